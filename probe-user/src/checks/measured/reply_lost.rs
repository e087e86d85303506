//! HDP403 reply-lost: the server's answer never arrived.

use crate::{
    checks::{Case, Check, Finding, Remedy, code::Code, symptom},
    verdict::outcome::Outcome,
};

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
    let hit = symptom::showing(case, Code::ReplyLost);
    let Some(first) = hit.first() else {
        return Vec::new();
    };
    let last = first.trace.and_then(|trace| trace.hops.iter().rev().find_map(|hop| hop.interface.as_deref()));
    let device = last.unwrap_or("DEVICE");
    let pod = first.query.source.map_or_else(|| "POD-IP".to_owned(), |source| source.ip().to_string());
    let address = first.query.address.ip();
    let look = Remedy::new("Find what takes the answer between its last sighting and the pod.")
        .step(format!("from the node: tc -s qdisc show dev {device}   (a queue that only grows, or drops)"))
        .step("hostdns-probe check -v   (programs on the devices: one that is not Cilium's)")
        .step(format!(
            "from the node: ip route get {pod} from {address}   (cilium_host; with endpoint routes the pod's device)"
        ));
    let title = "The server answers, but the answer is lost on its way back.";
    let finding = symptom::finding(case, Code::ReplyLost, &hit, title);
    finding.map(|finding| finding.story(story(case, first)).remedies([look])).into_iter().collect()
}

fn story(case: &Case<'_>, outcome: &Outcome<'_>) -> String {
    let last = outcome.trace.and_then(|trace| trace.lost.as_ref()).map_or("an unknown place", |l| l.last_hop.as_str());
    let mut story = format!("The query reached the server, and its answer got as far as {last}.");
    // Only a hook that was there can have seen none.
    let kfree = case.hooks.iter().any(|hook| hook.attached && hook.name.contains("kfree_skb"));
    if kfree && case.events.lost == 0 {
        story.push_str(" The kernel reported no drop of it: it waits in a queue, or a program took it.");
    }
    story
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Fate, Scene, hook},
        ended::Direction,
    };

    #[test]
    fn no_drop_is_claimed_only_where_one_would_have_been_seen() {
        let mut scene = Scene::new().coredns(Fate::Lost(Direction::Reply));
        let story = |scene: &Scene| scene.finding("HDP403").unwrap().story.unwrap();
        assert!(!story(&scene).contains("no drop"), "{}", story(&scene));
        scene.hooks.push(hook("tp_btf kfree_skb", None, true));
        assert!(story(&scene).contains("reported no drop"), "{}", story(&scene));
    }

    #[test]
    fn the_steps_name_what_was_seen() {
        let steps = &Scene::new().coredns(Fate::Lost(Direction::Reply)).finding("HDP403").unwrap().remedies[0].steps;
        assert!(steps[0].contains("dev lxc1 "), "{steps:?}");
        assert!(steps[2].contains("ip route get 10.0.0.5 from 169.254.116.108"), "{steps:?}");
    }

    #[test]
    fn only_the_reply() {
        assert!(Scene::new().coredns(Fate::Lost(Direction::Reply)).finding("HDP403").is_some());
        assert_eq!(Scene::new().coredns(Fate::Lost(Direction::Request)).finding("HDP403"), None);
    }
}
