//! HDP212 datapath-not-observable: packets pass where no hook of ours can sit.

use crate::checks::{Case, Check, Finding, Severity, code::Code};

pub(in crate::checks) const CHECK: Check = Check { code: Code::DatapathNotObservable, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
Part of Cilium's datapath cannot be watched here.

With netkit devices (datapath-mode netkit, netkit-l2) Cilium's programs run in the device itself and
hand packets on without passing the ingress of a pod's device; the probe then sees a packet at the
sockets and at external devices only. Leaks are still seen. A drop inside Cilium looks like a loss.

By hand: `cilium-dbg status --verbose | grep -i 'device mode'` says netkit; `ip -d link` shows the
devices' kind.

Fix: nothing is broken. `cilium-dbg monitor -t drop` in the agent's pod shows Cilium's own drops,
and the drop counters in the report (before and after the queries) give the reason.

Versions: netkit: Cilium 1.16 and later, Linux 6.7 and later.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let mode = &case.facts.cilium.datapath_mode;
    let Some(name) = mode.get().filter(|name| name.starts_with("netkit")) else {
        return Vec::new();
    };
    let title = format!("Cilium's datapath mode is {name}: packets pass the pods' devices unseen.");
    vec![Finding::new(Code::DatapathNotObservable, Severity::Warn, title).evidence(mode.source())]
}

#[cfg(test)]
mod tests {
    use crate::checks::testing::{Scene, known};

    #[test]
    fn netkit_only() {
        for (mode, expected) in [("veth", false), ("netkit", true), ("netkit-l2", true)] {
            let scene = Scene::new().facts(|f| f.cilium.datapath_mode = known(mode.into()));
            assert_eq!(scene.finding("HDP212").is_some(), expected, "{mode}");
        }
    }
}
