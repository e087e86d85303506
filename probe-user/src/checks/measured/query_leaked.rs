//! HDP402 query-leaked: the query left the node.

use crate::checks::{Case, Check, Finding, code::Code, symptom};

pub(in crate::checks) const CHECK: Check = Check { code: Code::QueryLeaked, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The query left the node through an external device instead of reaching the node's own server.

It was seen at the egress of an external, tunnel or encryption device. That decides: an answer that
still comes is from a server outside that happens to have the same address, and must not pass for
the node's. Link-local addresses are not routed, so normally nobody answers and dig times out.

By hand: `tcpdump -ni any host ADDRESS and port 53` on the node, while a pod asks: the query is
seen on an external device.

Fix: the one of the root: HDP201 (Cilium does not know the address), HDP101 (the address is not on
the node), HDP106 (no local route). Without a root, see `ip route get ADDRESS` on the node.

Versions: see the root.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    symptom::shown(case, Code::QueryLeaked, "Queries to the node leave it.")
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Fate, Scene},
        ended::Direction,
    };

    #[test]
    fn an_answer_from_outside_does_not_hide_it() {
        assert!(Scene::new().coredns(Fate::LeakedButAnswered).finding("HDP402").is_some());
        assert_eq!(Scene::new().coredns(Fate::Lost(Direction::Request)).finding("HDP402"), None);
    }
}
