//! HDP305 no-vantage: there was no pod to ask from.

use crate::{
    checks::{Case, Check, Finding, Remedy, Severity, code::Code},
    verdict::vantage,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::NoVantage, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
There is no pod on this node to ask from, so nothing is known of the way pods go.

Queries of the node itself never pass Cilium's pod datapath: they work while every pod fails. So the
node alone never passes. Usually there is CoreDNS, some other pod, or Cilium's health endpoint
(lxc_health, on every node); none of them was found or could be entered.

By hand: `ip link | grep lxc` shows the pods' devices, and `pgrep -a coredns` whether their
processes are visible.

Fix: run with hostPID so that pods' processes are visible, let Cilium's health endpoint run, or
name a namespace: --vantage netns=/proc/PID/ns/net,name=NAME.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    if !vantage::decisive(case).is_empty() {
        return Vec::new();
    }
    let pods = &case.facts.pods;
    let line = match pods.get() {
        Some(all) => format!("{} pods found, none that could be asked from ({})", all.len(), pods.source()),
        None => format!("pods are not known: {}", pods.why().unwrap_or("not read")),
    };
    let title = "No pod could be asked from: nothing is known of the way pods go.";
    let name = Remedy::new("Name a pod's namespace.")
        .step("hostdns-probe check --vantage netns=/proc/PID/ns/net,name=NAME   (PID: a process of the pod)");
    vec![Finding::new(Code::NoVantage, Severity::Warn, title).evidence(line).remedies([name])]
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Fate, Scene},
        facts::Transport,
        query::VantageKind,
    };

    #[test]
    fn the_node_alone_is_no_vantage() {
        let node = || Scene::new().asks(VantageKind::Node, Transport::Udp, Fate::Answered);
        assert!(node().finding("HDP305").is_some());
        assert_eq!(node().asks(VantageKind::Health, Transport::Udp, Fate::Leaked).finding("HDP305"), None);
    }
}
