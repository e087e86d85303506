//! HDP201 unknown-address-leaks: cilium issue 36761 with one external device.

use super::story::{self, End};
use crate::{
    checks::{Case, Check, Finding, code::Code, remedy, symptom},
    predict::{cilium, node},
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::UnknownAddressLeaks, explain: EXPLAIN, run };

const EXPLAIN: &str = r#"Cilium does not know the address as the node's and sends the pods' queries out of the node.

With BPF host routing Cilium decides at the pod's device where a packet goes. An address that is
not in its map of endpoints (cilium_lxc, flag host) is "world". On a node with exactly one external
device it skips the route lookup (ENABLE_SKIP_FIB) and redirects the packet straight out of that
device, where it is masqueraded to the node's address (not with ip-masq-agent, HDP208) and leaks
onto the physical network. Usually nobody answers there. No drop is counted anywhere: `cilium
monitor -t drop` stays silent, and dig only says "timed out". The node's own queries work all the
time, since they do not pass that way.

Why Cilium does not know it: Talos puts the address on lo with scope host (254), Cilium looks at
scopes up to 252 (HDP102); or it is on a device that this release does not learn from (HDP105,
HDP206). In tunnel mode releases up to 1.16.4 passed such packets to the node; since 1.16.5 they do
not (cilium issue 36761). 1.18.2 and 1.19.0-pre.0 fix the case of several devices (HDP202), not this
one. Cilium took the shortcut itself out in December 2025 (cilium pull request 43277), shortly
before 1.19.0: from there on one device should do as several. That was read, not measured.

By hand: `cilium-dbg status | grep Routing` says `Host: BPF`;
`cilium-dbg bpf endpoint list | grep 169.254.116.108` is empty;
`tcpdump -ni eth0 host 169.254.116.108` on the node sees the queries leave;
`cilium-dbg bpf nat list | grep 169.254.116.108` keeps their trace.

Fix, one of these: give lo the address with scope global, so that Cilium learns it (works live);
bpf.hostLegacyRouting: true; local-max-addr-scope: "254"; Cilium 1.17 or later for an address that
is on another device than lo (HDP105); or forwardKubeDNSToHost: false on Talos and a restart of
CoreDNS. Excluding 169.254.0.0/16 from masquerading does not help (HDP208).

Versions: native routing: every release from 1.15 to 1.19.0-pre.0. Tunnel mode: since 1.16.5.
Releases after 1.19.0-pre.0 were not measured; those without the shortcut should not leak.
"#;

fn run(case: &Case<'_>) -> Vec<Finding> {
    let hit = symptom::rooted(case, Code::UnknownAddressLeaks);
    let Some(first) = hit.first() else {
        return Vec::new();
    };
    let address = first.query.address.ip();
    let why = super::unknown_because(case.facts, address, |held| {
        format!("{}; Cilium takes up to {}", node::describe(held), cilium::scope_max(case.facts))
    });
    symptom::root(
        case,
        Code::UnknownAddressLeaks,
        &hit,
        "Cilium does not know the address as the node's: queries leave the node.",
        why,
    )
    .map(|finding| finding.story(story::unknown_address(case, address, End::Leaked)))
    .map(|finding| finding.remedies(remedy::unknown_address(case, address)))
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::{
            Severity,
            testing::{Fate, Scene, hide, known},
        },
        facts::HostRouting,
    };

    #[test]
    fn a_leak_of_an_unknown_address() {
        let finding = Scene::new().facts(hide).coredns(Fate::Leaked).finding("HDP201").unwrap();
        assert_eq!(finding.severity, Severity::Fail);
        for part in ["through eth0 as 192.0.2.7:40000", "scope host (254)", "only external device", "cilium_lxc"] {
            assert!(finding.evidence.iter().any(|line| line.contains(part)), "{part}: {:#?}", finding.evidence);
        }
        assert_eq!(finding.remedies.len(), 4);
    }

    #[test]
    fn not_what_cilium_knows_nor_what_the_kernel_routes() {
        assert_eq!(Scene::new().coredns(Fate::Leaked).finding("HDP201"), None);
        let legacy = Scene::new().facts(hide).facts(|f| f.cilium.host_routing = known(HostRouting::Legacy));
        assert_eq!(legacy.coredns(Fate::Leaked).finding("HDP201"), None);
    }
}
