//! HDP203 settings-not-applied: the agent runs with something else than it was told.

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code, remedy},
    facts::{Disagreement, HostRouting, disagreements, is_running},
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::SettingsNotApplied, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
Cilium's settings and what its agent does differ: the change has not been applied.

The agent reads its settings when it starts. After a change of the ConfigMap (or a Helm upgrade
without rollOutCiliumPods) it goes on with the old ones until its pod is restarted on this very
node. What it will read next time is known from the ConfigMap: where the Kubernetes API was asked
(in the DaemonSet, or with --kubeconfig), or a directory was named (--cilium-config-dir). Keys that
a CiliumNodeConfig sets, or the agent's own arguments and environment, are left out.

By hand: compare `kubectl -n kube-system get configmap cilium-config -o yaml` with
`cilium-dbg config --all` in the agent's pod on this node.

Fix: restart the agent on this node, then check again.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let cilium = &case.facts.cilium;
    let mut lines = Vec::new();
    if cilium.legacy_routing_configured.get() == Some(&true) && cilium.host_routing.get() == Some(&HostRouting::Bpf) {
        lines.push(format!(
            "enable-host-legacy-routing is true ({}), but host routing is BPF ({})",
            cilium.legacy_routing_configured.source(),
            cilium.host_routing.source()
        ));
    }
    let all = disagreements(case.facts);
    for (fact, name) in SETTINGS {
        let Some(told) = all.iter().find(|told| told.fact == *fact) else { continue };
        let settings: Vec<&str> = told.others.iter().map(String::as_str).filter(|other| is_told(told, other)).collect();
        if !settings.is_empty() {
            let value = told.known.as_deref().unwrap_or("something else");
            lines.push(format!("{name} is {value} ({}); but {}", told.source, settings.join("; ")));
        }
    }
    if lines.is_empty() {
        return Vec::new();
    }
    let title = "Cilium's settings are not what its agent runs with.";
    vec![
        Finding::new(Code::SettingsNotApplied, Severity::Warn, title)
            .evidences(lines)
            .remedies([remedy::restart_agent(case)]),
    ]
}

/// The facts that are settings of the agent, with their names. Its devices are none: a setting for every node may name
/// more of them than this node has.
const SETTINGS: &[(&str, &str)] = &[
    ("cilium.legacy_routing_configured", "enable-host-legacy-routing"),
    ("cilium.routing_mode", "routing mode"),
    ("cilium.tunnel_protocol", "tunnel protocol"),
    ("cilium.ipv4", "enable-ipv4"),
    ("cilium.ipv6", "enable-ipv6"),
    ("cilium.masquerade", "masquerading"),
    ("cilium.ip_masq_agent", "ip-masq-agent"),
    ("cilium.endpoint_routes", "endpoint routes"),
    ("cilium.address_scope_max", "local-max-addr-scope"),
    ("cilium.exclude_local_addresses", "exclude-local-address"),
    ("cilium.direct_routing_device", "direct-routing-device"),
    ("cilium.kube_proxy_replacement", "kube-proxy-replacement"),
    ("cilium.ipsec", "enable-ipsec"),
    ("cilium.datapath_mode", "datapath-mode"),
    ("cilium.local_redirect_policy", "enable-local-redirect-policy"),
    ("cilium.host_firewall", "enable-host-firewall"),
];

/// What another source says of the fact is told here: a setting that contradicts what the agent runs with. What the agent
/// says of itself in two places is no setting, and where nobody knows what it runs with nothing contradicts that.
pub(in crate::checks) fn tells(told: &Disagreement, other: &str) -> bool {
    SETTINGS.iter().any(|(fact, _)| *fact == told.fact) && is_told(told, other)
}

fn is_told(told: &Disagreement, other: &str) -> bool {
    is_running(&told.source) && !other.starts_with("agent ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{Scene, known},
        facts::{Cilium, Fact, Facts},
    };

    #[test]
    fn told_legacy_but_runs_bpf() {
        assert_eq!(Scene::new().finding("HDP203"), None);
        let scene = Scene::new().facts(|f| f.cilium.legacy_routing_configured = known(true));
        assert!(scene.finding("HDP203").unwrap().evidence[0].contains("but host routing is BPF"));
    }

    #[test]
    fn sources_that_differ() {
        let scene = Scene::new().facts(|f| {
            f.cilium.address_scope_max = Fact::known(252, "agent");
            f.cilium.address_scope_max.differs("254 (ConfigMap)");
        });
        assert!(scene.finding("HDP203").unwrap().evidence[0].contains("254 (ConfigMap)"));
        let scene = Scene::new().facts(|f| {
            f.cilium.address_scope_max = Fact::known(252, "agent /v1/healthz");
            f.cilium.address_scope_max.differs("agent /v1/config AddressScopeMax: 254");
        });
        assert_eq!(scene.finding("HDP203"), None, "the agent's two answers are no settings");
    }

    #[test]
    fn every_setting_is_a_fact() {
        let facts: Vec<String> = crate::facts::every(&Facts::default()).into_iter().map(|(fact, _)| fact).collect();
        for (fact, _) in SETTINGS {
            assert!(facts.iter().any(|found| found == fact), "{fact}");
        }
        let differ: [fn(&mut Cilium); 3] = [
            |c| c.kube_proxy_replacement.differs("kube-proxy-replacement in ConfigMap x: False"),
            |c| {
                c.exclude_local_addresses = known(Vec::new());
                c.exclude_local_addresses.differs("exclude-local-address in ConfigMap x: 10.0.0.0/8");
            },
            |c| {
                c.datapath_mode = known("veth".into());
                c.datapath_mode.differs("datapath-mode in ConfigMap x: netkit");
            },
        ];
        for (differs, name) in
            differ.into_iter().zip(["kube-proxy-replacement", "exclude-local-address", "datapath-mode"])
        {
            let evidence = Scene::new().facts(|f| differs(&mut f.cilium)).finding("HDP203").unwrap().evidence;
            assert!(evidence[0].starts_with(name) && evidence[0].contains("ConfigMap x"), "{evidence:?}");
        }
    }
}
