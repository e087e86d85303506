//! HDP212 datapath-not-observable: packets pass where no hook of ours can sit.

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code},
    facts::Link,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::DatapathNotObservable, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
Part of Cilium's datapath cannot be watched here.

With netkit devices (datapath-mode netkit, netkit-l2) Cilium's programs run in the device itself,
while it transmits, and redirect packets that never come to the ingress of a pod's device: those are
seen at the pod's socket, at external devices and at the node's sockets. Verdicts stay what they
are: a leak is seen where it leaves, and a drop too, but with the kernel reason NOT_SPECIFIED.

By hand: `cilium-dbg status --verbose | grep -i 'device mode'` says netkit; `ip -d link` shows the
devices' kind.

Fix: nothing is broken. `cilium-dbg monitor -t drop` in the agent's pod shows Cilium's own drops,
and the drop counters in the report (before and after the queries) give the reason.

Versions: netkit: Cilium 1.16 and later, Linux 6.7 and later.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let mode = &case.facts.cilium.datapath_mode;
    let finding = |title: String| Finding::new(Code::DatapathNotObservable, Severity::Warn, title);
    if let Some(name) = mode.get().filter(|name| name.starts_with("netkit")) {
        let title = format!("Cilium's datapath mode is {name}: what it redirects passes the pods' devices unseen.");
        return vec![finding(title).evidence(mode.source())];
    }
    // The agent need not tell: the devices do.
    let links = &case.facts.network.links;
    let netkit = |link: &&Link| link.kind.as_deref() == Some("netkit") && link.peer_nsid.is_some();
    let devices: Vec<&str> = links.get().into_iter().flatten().filter(netkit).map(|link| link.name.as_str()).collect();
    if devices.is_empty() {
        return Vec::new();
    }
    let title = "Pods' devices are netkit pairs: what Cilium redirects inside of them passes their hooks unseen.";
    vec![finding(title.to_owned()).evidence(format!("{} ({})", devices.join(", "), links.source()))]
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Scene, hide, known, link},
        facts::Link,
    };

    #[test]
    fn netkit_only() {
        for (mode, expected) in [("veth", false), ("netkit", true), ("netkit-l2", true)] {
            let scene = Scene::new().facts(|f| f.cilium.datapath_mode = known(mode.into()));
            assert_eq!(scene.finding("HDP212").is_some(), expected, "{mode}");
        }
    }

    #[test]
    fn devices_tell_where_the_agent_does_not() {
        let of = |kind: &str, peer_nsid| {
            let lxc = Link { kind: Some(kind.into()), peer_nsid, ..link(9, "lxc1") };
            let scene = Scene::new().facts(|f| {
                hide(f);
                f.network.links = known(vec![lxc]);
            });
            scene.finding("HDP212").is_some()
        };
        assert!(of("netkit", Some(1)));
        assert!(!of("veth", Some(1)));
        assert!(!of("netkit", None), "both ends are here: no pod's");
    }
}
