//! HDP403 reply-lost: the server's answer never arrived.

use crate::checks::{Case, Check, Finding, Remedy, code::Code, symptom};

pub(in crate::checks) const CHECK: Check = Check { code: Code::ReplyLost, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The server answered, and the answer was never seen again.

The query reached the server's socket and an answer left it. It was last seen at the place named,
no drop was reported, and it did not reach the pod. siderolabs/talos issue 10002 reports this half:
host DNS logs the answer, CoreDNS times out. The request is fine, so nothing of HDP201 applies.

By hand: `tcpdump -ni any host ADDRESS and port 53` on the node shows where the answer is seen
last.

Fix: look at the device after the last sighting: a tc program that consumes the packet, a wrong
route back to the pod (`ip route get POD-IP from ADDRESS`), or a peer device that is down.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let look = Remedy::new("Find what takes the answer between its last sighting and the pod.")
        .step("from the node: ip route get POD-IP from ADDRESS   (must name the device it was last seen at)")
        .step("from the node: tc -s qdisc show dev DEVICE   (a queue that only grows, or drops)")
        .step("from the node: bpftool net show dev DEVICE   (a program that is not Cilium's)");
    let found = symptom::shown(case, Code::ReplyLost, "The server answers, but the answer is lost on its way back.");
    found.into_iter().map(|finding| finding.remedies([look.clone()])).collect()
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Fate, Scene},
        ended::Direction,
    };

    #[test]
    fn only_the_reply() {
        assert!(Scene::new().coredns(Fate::Lost(Direction::Reply)).finding("HDP403").is_some());
        assert_eq!(Scene::new().coredns(Fate::Lost(Direction::Request)).finding("HDP403"), None);
    }
}
