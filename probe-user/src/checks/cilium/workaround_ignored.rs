//! HDP206 workaround-ignored-by-version: this release does not learn addresses of lo.

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code, remedy},
    predict::{cilium, node},
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::WorkaroundIgnored, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The address has scope global on lo, but this Cilium does not learn addresses of lo.

Releases 1.15.0 to 1.15.7 and 1.16.0 leave out lo when they collect the node's addresses, so the
usual workaround does nothing there: the address stays unknown to Cilium. An entry in
exclude-local-address has the same effect in every release.

By hand: `cilium-dbg version`, and `cilium-dbg bpf endpoint list`, which has no entry for the
address.

Fix: upgrade to 1.15.8, 1.16.1 or later (and take the address out of exclude-local-address), or use
bpf.hostLegacyRouting: true.

Versions: 1.15.0 to 1.15.7, and 1.16.0.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let facts = case.facts;
    let Some(version) = cilium::version(facts).filter(|_| cilium::is_here(facts) == Some(true)) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for &address in &case.targets.addresses {
        let held = node::holders(facts, address).unwrap_or_default();
        let visible = held.iter().any(|at| at.interface == "lo" && at.scope <= cilium::scope_max(facts));
        let excluded = cilium::is_excluded(facts, address);
        let known = cilium::knows(facts, address).is_ok_and(|(known, _)| known);
        if !visible || known || (version.learns_from_lo() && !excluded) {
            continue;
        }
        let reason = if excluded {
            format!("{address} is in exclude-local-address ({})", facts.cilium.exclude_local_addresses.source())
        } else {
            format!("Cilium {version} leaves out lo; 1.15.8, 1.16.1 and later do not")
        };
        let title = format!("{address} has a scope that Cilium looks at, but this Cilium does not take it from lo.");
        let harmless = case.is_delivered_anyway(address);
        let severity = if harmless { Severity::Info } else { Severity::Warn };
        let finding = Finding::new(Code::WorkaroundIgnored, severity, title)
            .evidences(held.into_iter().map(node::describe))
            .evidence(reason);
        findings.push(if harmless { finding } else { finding.remedies(remedy::unknown_address(case, address)) });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{HOST_DNS, Scene, known},
        facts::{Facts, HostRouting},
    };

    fn at(version: &'static str) -> impl FnOnce(&mut Facts) {
        move |facts| {
            facts.cilium.version = known(version.into());
            facts.cilium.lxc.insert(HOST_DNS, known(None));
        }
    }

    #[test]
    fn old_releases_and_excluded_addresses() {
        assert!(Scene::new().facts(at("1.16.0")).finding("HDP206").is_some());
        assert_eq!(Scene::new().facts(at("1.16.1")).finding("HDP206"), None);
        let excluded = Scene::new().facts(at("1.18.1"));
        let excluded = excluded.facts(|f| f.cilium.exclude_local_addresses = known(vec![HOST_DNS.to_string()]));
        assert!(excluded.finding("HDP206").unwrap().evidence[1].contains("exclude-local-address"));
        let legacy = Scene::new().facts(at("1.16.0")).facts(|f| f.cilium.host_routing = known(HostRouting::Legacy));
        let finding = legacy.finding("HDP206").unwrap();
        assert_eq!((finding.severity, finding.remedies.len()), (Severity::Info, 0), "it works all the same");
    }
}
