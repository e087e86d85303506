//! HDP401 query-dropped: the query was freed on its way to the server.

use crate::checks::{Case, Check, Finding, code::Code, symptom};

pub(in crate::checks) const CHECK: Check = Check { code: Code::QueryDropped, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The query was dropped on its way to the server.

The kernel, or a BPF program, freed the packet, and the probe saw it happen: the kernel's reason
and the place stand beside it, and Cilium's own reason where its counters told. If a root was found
it is a finding of its own: HDP202 (FIB lookup failed), HDP213 (policy), HDP107 (rp_filter), HDP108
(firewall). Other reasons worth knowing: SOCKET_RCVBUFF, the server is too slow to empty its queue;
SKB_CSUM and UDP_CSUM, a broken checksum offload; TC_INGRESS without a Cilium reason, some tc
program freed it.

By hand: `cilium-dbg monitor -t drop` for Cilium's own,
`bpftrace -e 'tracepoint:skb:kfree_skb { @[args->reason] = count(); }'` for the kernel's.

Fix: the one of the root. Without a root, look the reason up in the kernel's dropreason-core.h, and
run `cilium-dbg monitor -t drop` while you repeat the query.

Versions: drop reasons since Linux 5.17.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    symptom::shown(case, Code::QueryDropped, "The query is dropped on its way to the server.")
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Fate, Scene},
        ended::Direction,
    };

    #[test]
    fn a_dropped_reply_is_another_code() {
        let scene = Scene::new().coredns(Fate::Dropped("SOCKET_RCVBUFF", Direction::Request, None));
        assert!(scene.finding("HDP401").unwrap().evidence[0].contains("SOCKET_RCVBUFF"));
        let reply = Scene::new().coredns(Fate::Dropped("TC_INGRESS", Direction::Reply, Some(196)));
        assert_eq!(reply.finding("HDP401"), None);
    }
}
