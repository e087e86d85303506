//! HDP102 address-scope-hidden-from-cilium: a scope above what Cilium looks at.

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code, remedy},
    facts::{Facts, RoutingMode},
    predict::{cilium, node},
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::AddressScopeHidden, explain: EXPLAIN, run };

const EXPLAIN: &str = r#"The address has a scope that Cilium does not look at, so Cilium does not know it as the node's.

Cilium learns the node's addresses up to local-max-addr-scope, 252 by default. Talos puts the host
DNS address on lo with scope host, which is 254. To Cilium the address is then "world". With BPF
host routing that is fatal for pods (HDP201, HDP202), but in tunnel mode up to 1.16.4, and from
1.18.2 on where there are several external devices or endpoint routes; with legacy host routing it
does no harm. That is the secret of the well-known workaround: not that the address is there, but
its scope.

By hand: `ip addr show lo` says `scope host`;
`kubectl -n kube-system get configmap cilium-config -o yaml | grep local-max-addr-scope`;
`cilium-dbg bpf endpoint list` in the agent's pod has no entry for the address.

Fix: give lo the address with scope global (Talos machine configuration), or raise
local-max-addr-scope to 254, or use bpf.hostLegacyRouting. `ip addr replace` does not change a
scope.

Versions: Talos 1.8 and later sets scope host; Cilium's limit of 252 holds in every release from
1.15 to 1.19.0-pre.0.
"#;

fn run(case: &Case<'_>) -> Vec<Finding> {
    let facts = case.facts;
    if cilium::is_here(facts) != Some(true) {
        return Vec::new();
    }
    let max = cilium::scope_max(facts);
    let mut findings = Vec::new();
    for &address in &case.targets.addresses {
        let held = node::holders(facts, address).unwrap_or_default();
        let known = cilium::knows(facts, address).is_ok_and(|(known, _)| known);
        if known || held.is_empty() || held.iter().any(|at| at.scope <= max) {
            continue;
        }
        let harmless = case.is_delivered_anyway(address);
        let why = match remedy::is_legacy(case) {
            true => " Legacy host routing makes that harmless.".to_owned(),
            false => luck(facts).map(|luck| format!(" {luck}")).unwrap_or_default(),
        };
        let title = format!("Cilium does not know {address}: its scope hides it.{why}");
        let severity = if harmless { Severity::Info } else { Severity::Warn };
        let scopes = held.iter().map(|at| node::describe(at)).collect::<Vec<_>>();
        let mut finding = Finding::new(Code::AddressScopeHidden, severity, title)
            .evidences(scopes)
            .evidence(format!("local-max-addr-scope is {max}"));
        if let Ok((_, how)) = cilium::knows(facts, address) {
            finding = finding.evidence(how);
        }
        findings.push(if harmless { finding } else { finding.remedies(remedy::unknown_address(case, address)) });
    }
    findings
}

/// Why pods may reach the address all the same, and what ends that.
fn luck(facts: &Facts) -> Option<String> {
    let version = cilium::version(facts)?;
    if facts.cilium.routing_mode.get() == Some(&RoutingMode::Tunnel) && version.tunnel_passes_to_stack() {
        return Some(format!(
            "In tunnel mode Cilium {version} still passes such packets to the node; from 1.16.5 on they leak or are \
             dropped."
        ));
    }
    let several = !version.is_beyond_measured()
        && version.passes_local_fib_result()
        && matches!(cilium::skips_fib(facts), Ok((false, _)));
    several.then(|| {
        format!(
            "With several devices or endpoint routes Cilium {version} passes such packets to the node; with one \
             external device they leak."
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{Scene, hide, known},
        facts::HostRouting,
        report::{Prediction, Status},
    };

    #[test]
    fn what_it_works_by_is_said() {
        let title = |version: &str, tunnel: bool, devices: &[&str]| {
            let scene = Scene::new().facts(hide).facts(|f| {
                f.cilium.version = known(version.into());
                f.cilium.routing_mode = known(if tunnel { RoutingMode::Tunnel } else { RoutingMode::Native });
                f.cilium.devices = known(devices.iter().map(ToString::to_string).collect());
            });
            scene.finding("HDP102").unwrap().title
        };
        assert!(title("1.16.4", true, &["eth0"]).contains("from 1.16.5 on they leak or are dropped"));
        assert!(title("1.19.0-pre.0", false, &["eth0", "eth1"]).contains("with one external device they leak"));
        for (version, tunnel, devices) in [
            ("1.16.5", true, &["eth0"][..]),
            ("1.16.4", false, &["eth0"]),
            ("1.18.1", false, &["eth0", "eth1"]),
            ("1.19.0-pre.0", false, &["eth0"]),
            ("1.20.0", false, &["eth0", "eth1"]),
        ] {
            let title = title(version, tunnel, devices);
            assert!(title.ends_with("its scope hides it."), "{version}: {title}");
        }
    }

    #[test]
    fn harmless_with_legacy_routing() {
        assert_eq!(Scene::new().finding("HDP102"), None);
        let scene = Scene::new().facts(hide);
        assert_eq!(scene.finding("HDP102").unwrap().severity, Severity::Warn);
        let scene = scene.facts(|f| f.cilium.host_routing = known(HostRouting::Legacy));
        let finding = scene.finding("HDP102").unwrap();
        assert_eq!((finding.severity, finding.remedies.len()), (Severity::Info, 0));
    }

    #[test]
    fn harmless_where_the_release_delivers_all_the_same() {
        let mut scene = Scene::new().facts(hide).facts(|f| f.cilium.version = known("1.16.4".into()));
        scene.prediction = Prediction { status: Status::Pass, ..Prediction::default() };
        let finding = scene.finding("HDP102").unwrap();
        assert_eq!((finding.severity, finding.remedies.len()), (Severity::Info, 0));
    }

    #[test]
    fn nothing_is_hidden_without_cilium() {
        let scene = Scene::new().facts(|f| {
            hide(f);
            f.cilium = crate::facts::Cilium::default();
            f.network.links = known(vec![]);
        });
        assert_eq!(scene.finding("HDP102"), None);
    }
}
