//! HDP207 version-in-regression-range: tunnel mode since 1.16.5.

use std::net::IpAddr;

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code},
    facts::{HostRouting, RoutingMode},
    predict::{cilium, node},
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::RegressionRange, explain: EXPLAIN, run };

const EXPLAIN: &str = r#"In tunnel mode this release treats the address as releases up to 1.16.4 did not.

Up to 1.16.4 Cilium in tunnel mode passed packets without a tunnel endpoint to the node's stack, so
an address that Cilium did not know still worked. Since 1.16.5 (commit 2932ac49db) they go the way
of native routing: out of the only external device (HDP201), or into a failing route lookup
(HDP202). This is the regression of cilium issue 36761: "it worked before the upgrade".

By hand: `cilium-dbg version` and `cilium-dbg status | grep Routing`, which says `Network: Tunnel`.

Fix: do not downgrade; make the address known to Cilium, or use bpf.hostLegacyRouting (see HDP201).

Versions: tunnel mode since 1.16.5; the last one that passed them is 1.16.4.
"#;

fn run(case: &Case<'_>) -> Vec<Finding> {
    let facts = case.facts;
    let tunnel = facts.cilium.routing_mode.get() == Some(&RoutingMode::Tunnel);
    let bpf = matches!(cilium::host_routing(facts), Ok((HostRouting::Bpf, _)));
    let Some(version) = cilium::version(facts).filter(|v| tunnel && bpf && !v.tunnel_passes_to_stack()) else {
        return Vec::new();
    };
    let there = |a: &&IpAddr| node::holders(facts, **a).is_some_and(|held| !held.is_empty());
    let unknown = |a: &&IpAddr| matches!(cilium::knows(facts, **a), Ok((false, _)));
    let Some(address) = case.targets.addresses.iter().find(|a| there(a) && unknown(a)) else {
        return Vec::new();
    };
    // From 1.18.2 on several devices are fine again; one device is not.
    if version.passes_local_fib_result() && !matches!(cilium::skips_fib(facts), Ok((true, _))) {
        return Vec::new();
    }
    let title = format!("Cilium {version} in tunnel mode no longer passes {address} to the node; 1.16.4 did.");
    vec![
        Finding::new(Code::RegressionRange, Severity::Info, title)
            .evidence(format!("Cilium {version} ({})", facts.cilium.version.source()))
            .evidence(format!("routing mode is Tunnel ({})", facts.cilium.routing_mode.source())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{Scene, hide, known};

    #[test]
    fn tunnel_from_1_16_5_on() {
        for (version, mode, expected) in [
            ("1.16.4", RoutingMode::Tunnel, false),
            ("1.16.5", RoutingMode::Tunnel, true),
            ("1.16.5", RoutingMode::Native, false),
            ("1.18.2", RoutingMode::Tunnel, true),
        ] {
            let scene = Scene::new().facts(hide).facts(|f| {
                f.cilium.version = known(version.into());
                f.cilium.routing_mode = known(mode);
            });
            assert_eq!(scene.finding("HDP207").is_some(), expected, "{version} {mode:?}");
        }
    }
}
