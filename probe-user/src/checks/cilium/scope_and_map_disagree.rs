//! HDP210 scope-and-map-disagree: Cilium's map is not what the node's addresses say.

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code, remedy},
    facts::{Cilium, Fact, Facts, LxcEntry},
    predict::cilium,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::ScopeAndMapDisagree, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
What Cilium's map says of the address is not what the node's addresses would make it.

Cilium follows the node's addresses live; a change is in its map within about a second. A lasting
difference means an agent that is stuck or not running, or a release that this probe judges
wrongly. The datapath goes by the map, whatever the address looks like.

By hand: `ip addr` against `cilium-dbg bpf endpoint list` in the agent's pod: entries of the host
say `(localhost)`.

Fix: look at the agent (HDP214, `kubectl -n kube-system logs ds/cilium`), and restart it on this
node.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let facts = case.facts;
    let mut findings = Vec::new();
    for &address in &case.targets.addresses {
        let Some(entry) = facts.cilium.lxc.get(&address).and_then(Fact::get) else {
            continue;
        };
        let mapped = entry.is_some_and(LxcEntry::is_host);
        let mut without = facts.cilium.lxc.clone();
        without.remove(&address);
        let alone = Facts { cilium: Cilium { lxc: without, ..facts.cilium.clone() }, ..facts.clone() };
        let beyond = cilium::version(facts).is_none_or(|version| version.is_beyond_measured());
        let Ok((expected, how)) = cilium::knows(&alone, address) else {
            continue;
        };
        if mapped == expected || beyond {
            continue;
        }
        let title = if mapped {
            format!("Cilium's map holds {address} as the host's, but the node's addresses do not say so.")
        } else {
            format!("Cilium's map does not hold {address}, though it should.")
        };
        let says = cilium::knows(facts, address).map(|(_, how)| how).ok();
        let finding = Finding::new(Code::ScopeAndMapDisagree, Severity::Warn, title).evidences(says).evidence(how);
        findings.push(finding.remedies([remedy::restart_agent(case)]));
    }
    findings
}

#[cfg(test)]
mod tests {
    use crate::checks::testing::{HOST_DNS, Scene, address, hide, known};

    #[test]
    fn both_ways() {
        assert_eq!(Scene::new().finding("HDP210"), None);
        assert_eq!(Scene::new().facts(hide).finding("HDP210"), None);
        let stale = Scene::new().facts(|f| f.network.addresses = known(vec![address("lo", HOST_DNS, 254)]));
        assert!(stale.finding("HDP210").unwrap().title.contains("as the host's"));
        let missing = Scene::new().facts(|f| {
            f.cilium.lxc.insert(HOST_DNS, known(None));
        });
        assert!(missing.finding("HDP210").unwrap().title.contains("though it should"));
    }
}
