//! HDP204 legacy-fallback: BPF host routing was wanted, Legacy is what runs.

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code},
    facts::HostRouting,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::LegacyFallback, explain: EXPLAIN, run };

const EXPLAIN: &str = r#"Cilium fell back to legacy host routing by itself, which is why pods reach the address.

BPF host routing needs BPF masquerading (or none at all), kube-proxy replacement and no IPsec; up
to 1.17 also a kernel with bpf_redirect_neigh and bpf_redirect_peer (Linux 5.10). Where one is
missing the agent logs "Falling back to legacy host routing" and goes on; BPF masquerading without
kube-proxy replacement alone makes it refuse to start (1.18.1). With Legacy the kernel delivers to
the node's own addresses whatever Cilium knows of them. It works today by accident: meet the last
of these conditions (bpf.masquerade and kube-proxy replacement on, IPsec off), and HDP201 or HDP202
is what you get.

By hand: `kubectl -n kube-system logs POD | grep 'Falling back to legacy'`, of this node's agent;
`cilium-dbg status | grep Routing` there says `Host: Legacy`.

Fix: nothing is broken. To make it deliberate set bpf.hostLegacyRouting: true, or make the address
known to Cilium (HDP102) before you turn BPF host routing on.

Versions: any; 1.15 prints `Host Routing`.
"#;

fn run(case: &Case<'_>) -> Vec<Finding> {
    let cilium = &case.facts.cilium;
    let fell_back = cilium.host_routing.get() == Some(&HostRouting::Legacy)
        && cilium.legacy_routing_configured.running() == Some(&false);
    if !fell_back {
        return Vec::new();
    }
    let finding = Finding::new(
        Code::LegacyFallback,
        Severity::Info,
        "Cilium fell back to legacy host routing; nobody asked for it.",
    )
    .evidence(format!("host routing is Legacy ({})", cilium.host_routing.source()))
    .evidence(format!("enable-host-legacy-routing is false ({})", cilium.legacy_routing_configured.source()))
    .evidences(cilium.legacy_because.get().cloned().unwrap_or_default());
    vec![finding]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{Scene, known},
        facts::{Fact, would_start_with},
    };

    #[test]
    fn only_where_nobody_asked_for_it() {
        assert_eq!(Scene::new().finding("HDP204"), None);
        let scene = Scene::new().facts(|f| {
            f.cilium.host_routing = known(HostRouting::Legacy);
            f.cilium.legacy_because = known(vec!["masquerading is done by iptables (agent)".into()]);
        });
        assert!(scene.finding("HDP204").unwrap().evidence.iter().any(|line| line.contains("iptables")));
        // What it would start with does not say what it was asked for.
        let next = Fact::known(false, would_start_with("enable-host-legacy-routing in /config"));
        let scene = scene.facts(|f| f.cilium.legacy_routing_configured = next);
        assert_eq!(scene.finding("HDP204"), None);
        assert_eq!(scene.facts(|f| f.cilium.legacy_routing_configured = known(true)).finding("HDP204"), None);
    }
}
