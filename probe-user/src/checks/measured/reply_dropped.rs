//! HDP404 reply-dropped: the server's answer was freed on its way back.

use crate::{
    checks::{Case, Check, Finding, Remedy, code::Code, remedy, symptom},
    verdict::outcome::Outcome,
};

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
    let ttl = hit.iter().filter_map(Outcome::cilium_reason).any(|reason| reason.code == TTL_EXCEEDED);
    let title = if ttl {
        "The server's answer dies on its way back: its TTL is used up."
    } else {
        "The server's answer is dropped on its way back."
    };
    let Some(first) = hit.first() else {
        return Vec::new();
    };
    let address = first.query.address.ip();
    let hop = ttl.then(|| {
        Remedy::new("Take the extra hop between the node's server and the pod away (a proxy, a second namespace).")
            .step(format!("from the node: tcpdump -vni any src host {address}   (ttl: what every hop leaves of it)"))
    });
    symptom::finding(case, Code::ReplyDropped, &hit, title)
        .map(|finding| finding.story(story(first, ttl)).remedies(hop))
        .into_iter()
        .collect()
}

fn story(outcome: &Outcome<'_>, ttl: bool) -> String {
    let at = outcome.drop().map_or("an unknown place", |drop| drop.r#where.as_str());
    let mut story = format!("The query reached the server, and its answer was dropped at {at}: the request is fine.");
    if ttl {
        story.push_str(" Its IP TTL was used up.");
        if remedy::is_talos(outcome.query.address.ip()) {
            story.push_str(
                " Talos' host DNS sends answers with TTL 2: that is enough for Cilium's delivery to a pod and for no \
                 hop more.",
            );
        }
    }
    story
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
        assert!(scene(Some(196)).finding("HDP404").unwrap().story.unwrap().contains("TTL 2"));
        let story = scene(None).finding("HDP404").unwrap().story.unwrap();
        assert!(story.contains("dropped at lxc1 on the node") && !story.contains("TTL"), "{story}");
    }
}
