//! What the kernel really hands over, recorded in labs: `record-streams` of the package `end-to-end` writes the files
//! below `recorded/` anew. Ports, addresses of packets and cookies are as they were; expected is what the scenario does.

use proptest::prelude::*;

use super::{testing::finished_on, *};
use crate::{ended::Direction, facts::Transport};

/// A packet's way to the node's socket, and one back.
const THERE: &str = ">socket_out >ingress >socket_in";
const BACK: &str = "<socket_out <egress <egress <socket_in";
/// Out through the node's own device.
const OUT: &str = ">socket_out >ingress >egress >transmit";
const DROPPED: &str = ">socket_out >ingress >drop";
/// The last acknowledgement is on its way while the client's socket goes, and takes the server's FIN along.
const LAST_ACK: &str = ">socket_out <drop >ingress >socket_in";
/// Handshake, question and its acknowledgement, answer and its own, the two ends.
const CONNECTION: &[&str] = &[THERE, BACK, THERE, THERE, BACK, BACK, THERE, THERE, BACK, LAST_ACK];
/// The server ends it, and its socket is gone when the client's FIN is freed.
const CLOSED_BY_THE_SERVER: &[&str] =
    &[THERE, BACK, THERE, THERE, BACK, BACK, THERE, BACK, THERE, "<socket_out <egress <egress >drop <socket_in"];

/// What a stream comes to: of each transaction the transport, its hops, and its end with what proves it.
struct Stream {
    name: &'static str,
    recorded: &'static str,
    told: &'static [(Transport, &'static [&'static str], &'static str)],
}

macro_rules! stream {
    ($name:literal, $($told:expr),+) => {
        Stream { name: $name, recorded: include_str!(concat!("recorded/", $name, ".jsonl")), told: &[$($told),+] }
    };
}

const LEAKED: &str = "leaked: eth0 as 192.168.77.2";
const NO_WAY: &str = "dropped: TC_INGRESS at lxc014991a937be on the node, request";
const LOST: &str = "lost: lxc014991a937be egress, reply";

use Transport::{Tcp, Udp};

const STREAMS: &[Stream] = &[
    stream!("healthy-udp", (Udp, &[THERE, BACK], "answered")),
    stream!("healthy-tcp", (Tcp, CONNECTION, "answered")),
    stream!("leak-udp", (Udp, &[OUT], LEAKED)),
    stream!("leak-tcp", (Tcp, &[OUT], LEAKED)),
    stream!("leak-answered-outside", (Udp, &[OUT, "<ingress <socket_in"], LEAKED)),
    stream!("drop-udp", (Udp, &[DROPPED], NO_WAY)),
    stream!("policy-denied", (Udp, &[DROPPED], NO_WAY)),
    stream!("reply-lost-udp", (Udp, &[THERE, "<socket_out <egress <egress"], LOST)),
    stream!("reply-lost-tcp", (Tcp, &[THERE, "<socket_out <egress <egress"], LOST)),
    // The kernel frees the packet after it has answered: an ICMP error over UDP, a RST over TCP.
    stream!(
        "nobody-listens",
        (Udp, &[">socket_out >ingress <socket_out <egress <egress >drop"], "port_unreachable"),
        (Tcp, &[">socket_out >ingress <socket_out <egress <egress >drop <socket_in"], "port_unreachable")
    ),
    stream!("ipv6", (Udp, &[THERE, BACK], "answered"), (Tcp, CONNECTION, "answered")),
    // An `sk_buff` of the connection comes back in the query after it.
    stream!(
        "several",
        (Udp, &[THERE, BACK], "answered"),
        (Tcp, CONNECTION, "answered"),
        (Udp, &[THERE, BACK], "answered")
    ),
    stream!("truncated", (Udp, &[THERE, BACK], "answered"), (Tcp, CLOSED_BY_THE_SERVER, "answered")),
];

impl Stream {
    fn read(&self) -> (Topology, Vec<Event>) {
        let mut lines = self.recorded.lines();
        let wrong = |error| -> ! { panic!("{}: {error}", self.name) };
        let topology = serde_json::from_str(lines.next().expect("a topology")).unwrap_or_else(|e| wrong(e));
        (topology, lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| wrong(e))).collect())
    }
}

fn at_the_end(events: &[Event], topology: &Topology) -> Vec<PacketTrace> {
    correlate(events, topology, Horizon { now_ns: u64::MAX, last: true })
}

fn hops(trace: &PacketTrace) -> String {
    let hop = |hop: &crate::trace::Hop| {
        let way = if hop.direction == Direction::Request { '>' } else { '<' };
        format!("{way}{}", hop.hook.as_str().replace(' ', "_"))
    };
    trace.hops.iter().map(hop).collect::<Vec<_>>().join(" ")
}

/// How it ended, with all the proofs that it has.
fn end(trace: &PacketTrace) -> String {
    let ended = serde_json::to_value(trace.ended).expect("an end has a name");
    let mut end = ended.as_str().expect("text").to_owned();
    if let Some(leak) = &trace.leak {
        let source = leak.r#as.map_or_else(|| "?".to_owned(), |source| source.ip().to_string());
        end += &format!(": {} as {source}", leak.interface);
    }
    if let Some(drop) = &trace.drop {
        end += &format!(": {} at {}, {}", drop.reason, drop.r#where, drop.direction);
    }
    if let Some(lost) = &trace.lost {
        end += &format!(": {}, {}", lost.last_hop, lost.direction);
    }
    end
}

#[test]
fn each_recorded_stream_comes_to_what_its_scenario_does() {
    for stream in STREAMS {
        let (topology, events) = stream.read();
        let traces = at_the_end(&events, &topology);
        let told: Vec<_> = traces.iter().map(|trace| (trace.flow.transport, hops(trace), end(trace))).collect();
        let expected: Vec<_> =
            stream.told.iter().map(|&(transport, hops, end)| (transport, hops.join(" "), end.to_owned())).collect();
        assert_eq!(told, expected, "{}", stream.name);
        assert_eq!(traces.iter().map(|trace| trace.hops.len()).sum::<usize>(), events.len(), "{}", stream.name);
    }
}

#[test]
fn as_it_comes_a_recorded_stream_gives_the_same() {
    for stream in STREAMS {
        let (topology, events) = stream.read();
        let mut live: Vec<_> = finished_on(&events, &topology).into_iter().map(|finished| finished.trace).collect();
        live.sort_by_key(|trace| trace.started_ns);
        for (id, trace) in (1..).zip(&mut live) {
            trace.id = id;
        }
        assert_eq!(live, at_the_end(&events, &topology), "{}", stream.name);
    }
}

#[test]
fn an_event_is_written_as_it_was_read() {
    for stream in STREAMS {
        for (line, event) in stream.recorded.lines().skip(1).zip(stream.read().1) {
            assert_eq!(serde_json::to_string(&event).expect("JSON"), line, "{}", stream.name);
        }
    }
}

#[test]
fn the_truncated_answer_was_recorded_as_one() {
    let (_, events) = STREAMS.iter().find(|stream| stream.name == "truncated").expect("it is there").read();
    let cut = |transport| {
        let of = |event: &&Event| event.flow.is_some_and(|flow| flow.transport == transport);
        events.iter().filter(of).filter(|event| event.dns.as_ref().is_some_and(|dns| dns.truncated())).count()
    };
    assert_eq!((cut(Udp), cut(Tcp)), (4, 0));
}

proptest! {
    #[test]
    fn any_order_of_a_recorded_stream_with_any_doubles_gives_the_same(
        (stream, shuffled) in (0..STREAMS.len()).prop_flat_map(|stream| {
            let (_, events) = STREAMS[stream].read();
            let copies = prop::collection::vec(1_usize..4, events.len());
            let doubled = copies.prop_map(move |copies| {
                events.iter().zip(copies).flat_map(|(event, copies)| vec![event.clone(); copies]).collect::<Vec<_>>()
            });
            (Just(stream), doubled.prop_shuffle())
        })
    ) {
        let (topology, events) = STREAMS[stream].read();
        prop_assert_eq!(at_the_end(&shuffled, &topology), at_the_end(&events, &topology));
    }
}
