//! HDP203 settings-not-applied: the agent runs with something else than it was told.

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code, remedy},
    facts::{Fact, HostRouting},
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
    differs(&mut lines, "host routing", &cilium.host_routing);
    differs(&mut lines, "enable-host-legacy-routing", &cilium.legacy_routing_configured);
    differs(&mut lines, "routing mode", &cilium.routing_mode);
    differs(&mut lines, "tunnel protocol", &cilium.tunnel_protocol);
    differs(&mut lines, "masquerading", &cilium.masquerade);
    differs(&mut lines, "ip-masq-agent", &cilium.ip_masq_agent);
    differs(&mut lines, "endpoint routes", &cilium.endpoint_routes);
    differs(&mut lines, "local-max-addr-scope", &cilium.address_scope_max);
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

/// Settings contradict what the agent runs with. What it says of itself in two places is no setting.
fn differs<T: std::fmt::Debug>(lines: &mut Vec<String>, what: &str, fact: &Fact<T>) {
    let Fact::Known { value, source, others, .. } = fact else { return };
    let settings: Vec<&str> = others.iter().map(String::as_str).filter(|other| !other.starts_with("agent ")).collect();
    if !settings.is_empty() {
        lines.push(format!("{what} is {value:?} ({source}); but {}", settings.join("; ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{Scene, known};

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
}
