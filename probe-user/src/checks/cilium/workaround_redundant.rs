//! HDP205 workaround-redundant: two workarounds where one is enough.

use std::net::IpAddr;

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code, remedy},
    predict::{cilium, node},
    target::HOST_DNS_V4,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::WorkaroundRedundant, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
Two workarounds are in place where one is enough.

The address is known to Cilium as the node's (scope global on lo), so BPF host routing would
deliver to it; and bpf.hostLegacyRouting is true, which delivers whatever Cilium knows. Legacy host
routing costs the eBPF speed-up on every packet between pods and the outside.

By hand: `cilium-dbg status | grep Routing` says `Host: Legacy`, and `ip addr show lo` says
`scope global`.

Fix: take one away. Usually hostLegacyRouting: false, with the address on lo kept on *every* node:
check each node first, and restart the agents node by node.

Versions: any Cilium that learns addresses of lo: 1.15.8, 1.16.1 and later.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let facts = case.facts;
    let asked = facts.cilium.legacy_routing_configured.get() == Some(&true) && remedy::is_legacy(case);
    // Talos itself never gives its IPv4 address another scope than host: somebody did.
    let given = |address: &IpAddr| {
        *address == HOST_DNS_V4
            && node::holders(facts, *address)
                .is_some_and(|held| held.iter().any(|at| at.interface == "lo" && at.scope <= cilium::scope_max(facts)))
            && cilium::knows(facts, *address).is_ok_and(|(known, _)| known)
    };
    let Some(address) = case.targets.addresses.iter().copied().find(given).filter(|_| asked) else {
        return Vec::new();
    };
    let held = node::holders(facts, address).unwrap_or_default();
    vec![
        Finding::new(
            Code::WorkaroundRedundant,
            Severity::Warn,
            "The address is known to Cilium and bpf.hostLegacyRouting is also true; one of the two is enough.",
        )
        .evidences(held.into_iter().map(node::describe))
        .evidence(format!("enable-host-legacy-routing is true ({})", facts.cilium.legacy_routing_configured.source())),
    ]
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Scene, hide, known},
        facts::{Facts, HostRouting},
    };

    fn legacy(facts: &mut Facts) {
        facts.cilium.host_routing = known(HostRouting::Legacy);
        facts.cilium.legacy_routing_configured = known(true);
    }

    #[test]
    fn needs_both() {
        assert!(Scene::new().facts(legacy).finding("HDP205").is_some());
        assert_eq!(Scene::new().finding("HDP205"), None);
        assert_eq!(Scene::new().facts(legacy).facts(hide).finding("HDP205"), None);
    }
}
