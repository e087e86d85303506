//! HDP202 unknown-address-dropped: cilium issue 36761 with several devices or endpoint routes.

use super::story::{self, End};
use crate::{
    checks::{Case, Check, Finding, code::Code, remedy, symptom},
    predict::node,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::UnknownAddressDropped, explain: EXPLAIN, run };

const EXPLAIN: &str = r#"Cilium does not know the address as the node's and drops the pods' queries: FIB lookup failed.

With BPF host routing Cilium looks the route up itself. With more than one external device, or with
endpoint routes, it asks the kernel's FIB; the kernel answers "not forwarded", because the address
is local, and Cilium drops the packet with reason 169, "FIB lookup failed", ext 4 (cilium issue
41241). The kernel's reason is TC_INGRESS at the pod's device. It is the same failure as HDP201
with another end: an address in Cilium's map of endpoints would never come this far. 1.18.2 and
1.19 pass such packets to the node instead.

By hand: `cilium-dbg monitor -t drop` in the agent's pod says `FIB lookup failed` while a pod asks;
`cilium-dbg metrics list | grep -i fib` counts.

Fix, one of these: give lo the address with scope global, so that Cilium learns it (works live);
bpf.hostLegacyRouting: true; local-max-addr-scope: "254"; forwardKubeDNSToHost: false on Talos and a
restart of CoreDNS; or an upgrade to 1.18.2, as long as the node has several external devices or
endpoint routes.

Versions: native routing: 1.15 to 1.18.1. Tunnel mode: 1.16.5 to 1.18.1. Fixed in 1.18.2 and 1.19.
"#;

fn run(case: &Case<'_>) -> Vec<Finding> {
    let hit = symptom::rooted(case, Code::UnknownAddressDropped);
    let Some(first) = hit.first() else {
        return Vec::new();
    };
    let address = first.query.address.ip();
    let why = super::unknown_because(case.facts, address, node::describe);
    symptom::root(
        case,
        Code::UnknownAddressDropped,
        &hit,
        "Cilium drops queries to an address it does not know: FIB lookup failed.",
        why,
    )
    .map(|finding| finding.story(story::unknown_address(case, address, End::Dropped)))
    .map(|finding| finding.remedies(remedy::unknown_address(case, address)).remedies(remedy::upgrade_for_fib(case)))
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Fate, Scene, hide},
        ended::Direction,
    };

    fn dropped(code: Option<u8>) -> Scene {
        Scene::new().facts(hide).coredns(Fate::Dropped("TC_INGRESS", Direction::Request, code))
    }

    #[test]
    fn by_ciliums_reason() {
        let finding = dropped(Some(169)).finding("HDP202").unwrap();
        assert!(finding.remedies.last().unwrap().title.contains("1.18.2"));
        assert_eq!(dropped(Some(133)).finding("HDP202"), None);
        assert_eq!(dropped(None).finding("HDP202"), None);
    }

    #[test]
    fn not_where_cilium_knows_the_address() {
        let known = Scene::new().coredns(Fate::Dropped("TC_INGRESS", Direction::Request, Some(169)));
        assert_eq!(known.finding("HDP202"), None);
    }

    #[test]
    fn by_the_prediction() {
        let mut scene = dropped(None);
        scene.prediction.cause = Some("HDP202".into());
        assert!(scene.finding("HDP202").is_some());
    }
}
