//! HDP414 query-lost: the query vanished on its way to the server.

use crate::checks::{Case, Check, Finding, code::Code, symptom};

pub(in crate::checks) const CHECK: Check = Check { code: Code::QueryLost, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The query was seen on its way and then never again, and no drop was reported.

It did not leave through a watched device, did not reach the server's socket, and the kernel
reported no drop of it. Kernels before 5.17 report drops without a reason, and devices in hardware
or in other namespaces can swallow a packet unseen.

By hand: `tcpdump -ni any host ADDRESS and port 53` on the node; `tc -s qdisc` of the last device.

Fix: HDP107 if rp_filter is strict on the pod's device. Else follow it with `hostdns-probe trace
--all-interfaces` while the query is repeated; `nstat -az` and `ip -s link` show counters that grow.

Versions: drop reasons since Linux 5.17; before, more drops look like this.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    symptom::shown(case, Code::QueryLost, "The query vanishes on its way to the server.")
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Fate, Scene},
        ended::Direction,
    };

    #[test]
    fn only_the_request() {
        assert!(Scene::new().coredns(Fate::Lost(Direction::Request)).finding("HDP414").is_some());
        assert_eq!(Scene::new().coredns(Fate::Lost(Direction::Reply)).finding("HDP414"), None);
    }
}
