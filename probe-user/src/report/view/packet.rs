//! One packet's story, told hop by hop.

use std::cmp::Reverse;

use super::{duration, queries::fate};
use crate::{
    ended::{Direction, Ended},
    query::Query,
    report::{Report, Status},
    trace::{EventCounts, HookKind, Hop, PacketTrace},
};

/// A line of the story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HopLine {
    pub time: String,
    /// `lxc5f2a1 ingress`, `pod socket out`.
    pub place: String,
    pub flow: String,
    pub note: Option<String>,
}

/// The word for people.
#[must_use]
pub fn word(ended: Ended) -> String {
    ended.as_str().replace('_', " ")
}

/// The packet that tells most: of a query that failed as the verdict says, from the best vantage, over UDP (two
/// packets, where TCP has a dozen), seen most often.
/// A healthy node needs none.
#[must_use]
pub fn telling(report: &Report) -> Option<(&Query, &PacketTrace)> {
    if report.verdict.status == Status::Pass {
        return None;
    }
    let fates = report.queries.iter().enumerate().map(|(asked, query)| (asked, query, fate(report, query)));
    let pairs = fates.filter(|(_, _, fate)| *fate != Ended::Answered).flat_map(|(asked, query, fate)| {
        let traces = report.traces.iter().filter(|trace| query.traces.contains(&trace.id));
        traces.filter(|trace| !trace.hops.is_empty()).map(move |trace| (asked, query, fate, trace))
    });
    let best = pairs.min_by_key(|(asked, query, fate, trace)| {
        let off_verdict = Some(*fate) != report.verdict.ended;
        let off_query = trace.ended != *fate;
        // Of equals the first question: everybody knows its name, and it is the same one every time.
        (off_verdict, off_query, query.vantage_kind, query.transport, Reverse(trace.hops.len()), *asked, trace.id)
    });
    best.map(|(_, query, _, trace)| (query, trace))
}

/// `UDP, example.com A, from kube-system/coredns-7c9d-x2k4p`.
#[must_use]
pub fn title(report: &Report, query: &Query) -> String {
    let pods = report.facts.pods.get().map(Vec::as_slice).unwrap_or_default();
    let namespace = pods.iter().find(|pod| pod.name == query.vantage).and_then(|pod| pod.namespace.as_deref());
    let vantage = namespace.map_or_else(|| query.vantage.clone(), |ns| format!("{ns}/{}", query.vantage));
    let transport = query.transport.to_string().to_uppercase();
    format!("{transport}, {} {}, from {vantage}", query.qname, query.qtype)
}

/// The hops, ready to be aligned.
#[must_use]
pub fn hops(trace: &PacketTrace) -> Vec<HopLine> {
    let line = |hop: &Hop| HopLine {
        time: time(hop.t_us),
        place: place(hop),
        flow: format!("{} → {}", hop.src, hop.dst),
        note: hop.note.clone(),
    };
    trace.hops.iter().map(line).collect()
}

/// The kernel's times are good to a microsecond; beyond ten milliseconds nobody counts them.
fn time(micros: u64) -> String {
    if micros < 10_000 { format!("{micros} µs") } else { duration(micros) }
}

fn place(hop: &Hop) -> String {
    let hook = hop.hook.as_str();
    match &hop.interface {
        Some(interface) => format!("{interface} {hook}"),
        None if hop.netns == "node" || hop.netns.starts_with("netns:") => format!("{} {hook}", hop.netns),
        // Which pod it is has been said above the hops.
        None => format!("pod {hook}"),
    }
}

/// The line below the hops: what did not happen, with the events that were lost, since absence rests on their being
/// none. Nothing for a packet that was answered.
#[must_use]
pub fn ending(report: &Report, trace: &PacketTrace) -> Option<String> {
    let window = Window { events: report.events, sockets: hooked(report) };
    let reached = trace.hops.iter().any(|hop| hop.hook == HookKind::SocketIn && hop.direction == Direction::Request);
    let text = match trace.ended {
        Ended::Answered => return None,
        Ended::Dropped => {
            let drop = trace.drop.as_ref().and_then(|drop| drop_words(trace, drop));
            join(drop, &absence(trace, reached, window))
        }
        Ended::Leaked => {
            let leak = trace.leak.as_ref().filter(|leak| !shown(trace, leak)).map(leak_words);
            join(leak, &absence(trace, reached, window))
        }
        Ended::Lost => {
            let seen = trace.lost.as_ref().map(|lost| format!("last seen at {} ({})", lost.last_hop, lost.direction));
            join(seen, &absence(trace, reached, window))
        }
        Ended::Unanswered => join(
            Some("reached the node's DNS socket".to_owned()),
            &never("no answer left it", "no answer was seen to leave it", window),
        ),
        Ended::PortUnreachable => "refused, by an ICMP error or a reset".to_owned(),
        Ended::Malformed => "what came back is not a DNS message".to_owned(),
        Ended::Unknown => {
            format!("cannot be told: {}", trace.unknown.as_deref().unwrap_or("no reason was recorded"))
        }
    };
    Some(text)
}

/// Where and why, as far as the hops do not show it: the kernel's reason stands beside the one where it was freed.
fn drop_words(trace: &PacketTrace, drop: &crate::trace::Drop) -> Option<String> {
    let cilium = drop.cilium_reason.as_ref().map(|cilium| format!("by Cilium: {} ({})", cilium.text, cilium.code));
    let shows =
        |hop: &Hop| hop.hook == HookKind::Drop && hop.note.as_ref().is_some_and(|note| note.ends_with(&drop.reason));
    if trace.hops.iter().any(shows) {
        return cilium.map(|cilium| format!("dropped {cilium}"));
    }
    let kernel = format!("dropped at {} (kernel reason {})", drop.r#where, drop.reason);
    Some(cilium.map_or_else(|| kernel.clone(), |cilium| format!("{kernel}, {cilium}")))
}

/// The hops show the packet on the wire already, with its address there.
fn shown(trace: &PacketTrace, leak: &crate::trace::Leak) -> bool {
    let on_wire = |hop: &Hop| hop.hook == HookKind::Transmit && hop.interface.as_deref() == Some(&leak.interface);
    trace.hops.iter().any(|hop| on_wire(hop) && Some(hop.src) == leak.r#as)
}

fn leak_words(leak: &crate::trace::Leak) -> String {
    match leak.r#as {
        Some(source) => format!("left the node through {} as {source}", leak.interface),
        None => format!("left the node through {} (as whom is not known)", leak.interface),
    }
}

/// A packet that reached the server and then failed did so on its way back.
fn absence(trace: &PacketTrace, reached: bool, window: Window) -> String {
    let direction = trace.drop.as_ref().map(|drop| drop.direction).or(trace.lost.as_ref().map(|lost| lost.direction));
    if reached || direction == Some(Direction::Reply) {
        never("the answer never at the socket that asked", "the answer was not seen at the socket that asked", window)
    } else {
        never("never at the node's DNS socket", "not seen at the node's DNS socket", window)
    }
}

/// What silence rests on.
#[derive(Clone, Copy)]
struct Window {
    events: EventCounts,
    /// The sockets' hooks were in place.
    sockets: bool,
}

fn hooked(report: &Report) -> bool {
    let mut sockets = report.hooks.iter().filter(|hook| hook.name.starts_with("cgroup_skb"));
    sockets.all(|hook| hook.attached)
}

fn never(sure: &str, unsure: &str, window: Window) -> String {
    match window.events.lost {
        0 if !window.sockets => format!("{unsure}, but the sockets' hooks are not in place: that proves nothing"),
        0 => format!("{sure} (0 events lost)"),
        1 => format!("{unsure}, but 1 event was lost: that proves nothing"),
        lost => format!("{unsure}, but {lost} events were lost: that proves nothing"),
    }
}

fn join(first: Option<String>, second: &str) -> String {
    first.map_or_else(|| second.to_owned(), |first| format!("{first}; {second}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::examples;

    #[test]
    fn the_telling_packet_comes_from_the_best_vantage_and_shows_most() {
        let report = examples::leak();
        let (query, trace) = telling(&report).expect("a failing query has a trace");
        assert_eq!((query.vantage.as_str(), trace.hops.len()), ("coredns-7c9d-x2k4p", 4));
        assert!(report.traces.iter().any(|other| other.hops.len() > trace.hops.len()), "a worse vantage saw more");
    }

    #[test]
    fn a_healthy_node_has_none_and_traces_without_hops_tell_nothing() {
        assert!(telling(&examples::healthy()).is_none());
        let mut report = examples::leak();
        report.traces.iter_mut().for_each(|trace| trace.hops.clear());
        assert!(telling(&report).is_none());
    }

    #[test]
    fn a_leak_that_was_answered_outside_is_told_all_the_same() {
        let mut report = examples::leak();
        report.queries.iter_mut().for_each(|query| query.ended = Ended::Answered);
        assert_eq!(telling(&report).expect("the packet left the node").1.ended, Ended::Leaked);
    }

    #[test]
    fn absence_is_claimed_only_where_no_event_was_lost() {
        let ending = |lost| {
            let report = Report { events: EventCounts { seen: 40, lost }, ..examples::leak() };
            ending(&report, &report.traces[0]).expect("it failed")
        };
        assert!(ending(0).ends_with("never at the node's DNS socket (0 events lost)"), "{}", ending(0));
        assert!(!ending(1).contains("never"), "{}", ending(1));
        assert!(ending(7).contains("7 events were lost"), "{}", ending(7));
    }

    #[test]
    fn absence_at_a_socket_is_claimed_only_where_sockets_are_watched() {
        let mut report = examples::leak();
        for hook in report.hooks.iter_mut().filter(|hook| hook.name.starts_with("cgroup_skb")) {
            hook.attached = false;
        }
        let text = ending(&report, &report.traces[0]).expect("it failed");
        assert!(!text.contains("never") && text.contains("hooks are not in place"), "{text}");
    }

    #[test]
    fn a_leak_is_named_where_the_hops_do_not_show_it() {
        let mut report = examples::leak();
        let text = |report: &Report| ending(report, &report.traces[0]).expect("it failed");
        assert!(text(&report).starts_with("never"), "{}", text(&report));
        report.traces[0].hops.pop();
        assert!(
            text(&report).starts_with("left the node through eth0 as 192.168.77.2:41334; never"),
            "{}",
            text(&report)
        );
    }

    #[test]
    fn a_reply_that_died_is_told_as_one() {
        let report = examples::lost_reply();
        let (_, trace) = telling(&report).expect("a failing query has a trace");
        let text = ending(&report, trace).expect("it failed");
        assert!(text.contains("the answer never at the socket that asked"), "{text}");
    }
}
