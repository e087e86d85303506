//! HDP404 reply-dropped: the server's answer was freed on its way back.

use crate::checks::{Case, Check, Finding, Remedy, code::Code, symptom};

pub(in crate::checks) const CHECK: Check = Check { code: Code::ReplyDropped, explain: EXPLAIN, run };

const EXPLAIN: &str = r#"The server answered, and the answer was dropped on its way back to the pod.

The kernel or a BPF program freed it; the reason stands beside it. Cilium's reason 196, "TTL
exceeded", is the special one: Talos' host DNS sends its answers with IP TTL 2, so they survive
exactly one hop. Any additional hop between the server and the pod (a proxy, a second namespace, a
router) kills them.

By hand: `cilium-dbg monitor -t drop` in the agent's pod; `tcpdump -vni any src host ADDRESS` shows
the TTL.

Fix: TTL exceeded: take the extra hop away; the TTL is built into Talos. Other reasons: a policy on
the way in to the pod (133), or the packet filter's output or forward chain (NETFILTER_DROP).

Versions: Talos 1.8 and later answers with TTL 2.
"#;

/// Cilium's `DROP_TTL_EXCEEDED`.
const TTL_EXCEEDED: u8 = 196;

fn run(case: &Case<'_>) -> Vec<Finding> {
    let hit = symptom::showing(case, Code::ReplyDropped);
    let ttl = hit
        .iter()
        .filter_map(|outcome| outcome.drop()?.cilium_reason.as_ref())
        .any(|reason| reason.code == TTL_EXCEEDED);
    let title = if ttl {
        "The server's answer dies on its way back: its TTL is used up."
    } else {
        "The server's answer is dropped on its way back."
    };
    let hop = ttl.then(|| {
        Remedy::new("Take the extra hop between the node's server and the pod away.")
            .step("Talos' host DNS answers with IP TTL 2: one hop (Cilium's delivery to the pod) is all there may be")
    });
    symptom::finding(case, Code::ReplyDropped, &hit, title).map(|finding| finding.remedies(hop)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Fate, Scene},
        ended::Direction,
    };

    #[test]
    fn ttl_is_named() {
        let scene = |code| Scene::new().coredns(Fate::Dropped("TC_EGRESS", Direction::Reply, code));
        assert!(scene(Some(196)).finding("HDP404").unwrap().title.contains("TTL"));
        assert!(!scene(None).finding("HDP404").unwrap().title.contains("TTL"));
    }
}
