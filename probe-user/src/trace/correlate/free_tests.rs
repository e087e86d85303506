//! Which of the kernel's frees is a death. The stream is what a pod's connection shows whose answers are lost: its SYN
//! comes again every second, at the same address each time, and TCP frees each copy but the first.

use super::{testing::*, *};
use crate::{
    ended::{Direction, Ended},
    facts::Transport,
    trace::{Flow, HookKind},
};

const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
const CLIENT: &str = "10.244.1.132:40000";
const SYNS_SKB: u64 = 0xffff_0000;
/// The first SYN and the next one (RFC 6298: the initial timeout is a second).
const SENT_AT: [u64; 2] = [0, 1_024_000];

fn seen(at_us: u64, hook: HookKind, place: (u64, u32), reply: bool) -> Event {
    let asked = Asked { port: 40_000, id: 0, start: 1_000_000_000, skb: SYNS_SKB };
    let (src, dst) = if reply { (TARGET, CLIENT) } else { (CLIENT, TARGET) };
    let mut event = asked.event(at_us, hook, place, src, dst, reply);
    event.flow = event.flow.map(|flow| Flow { transport: Transport::Tcp, ..flow });
    event.tcp_flags = if reply { SYN_ACK } else { SYN };
    event.dns = None;
    if reply {
        event.skb = SYNS_SKB + 0x1000 + at_us; // the server makes a new one each time
    }
    event
}

fn dropped(at_us: u64, reason: &str) -> Event {
    let mut event = seen(at_us, HookKind::Drop, (NODE, LXC), false);
    event.drop_reason = Some(reason.into());
    event
}

/// A SYN to the node's socket.
fn syn(at_us: u64) -> Vec<Event> {
    let mut at_server = seen(at_us + 35, HookKind::SocketIn, (NODE, LXC), false);
    at_server.socket = SERVER_SOCKET;
    vec![
        seen(at_us, HookKind::SocketOut, (POD, 0), false),
        seen(at_us + 19, HookKind::Ingress, (NODE, LXC), false),
        at_server,
    ]
}

/// What becomes of the answer to it.
fn lost_answer(at_us: u64) -> Vec<Event> {
    let mut events = vec![
        seen(at_us + 45, HookKind::SocketOut, (NODE, 0), true),
        seen(at_us + 49, HookKind::Egress, (NODE, LXC), true),
    ];
    events[1].skb = events[0].skb;
    events
}

fn only(events: &[Event], topology: &Topology) -> PacketTrace {
    let mut traces = correlate(events, topology, Horizon { now_ns: 10_000_000_000, last: true });
    assert_eq!(traces.len(), 1, "{traces:#?}");
    traces.remove(0)
}

/// As seen on Linux 6.12 and 6.18.
fn answers_lost() -> Vec<Event> {
    let mut events: Vec<Event> = SENT_AT.into_iter().flat_map(|at| [syn(at), lost_answer(at)].concat()).collect();
    events.push(dropped(SENT_AT[1] + 67, "NOT_SPECIFIED"));
    events
}

#[test]
fn a_syn_that_comes_again_and_is_freed_was_not_dropped_on_its_way() {
    let trace = only(&answers_lost(), &topology());
    assert_eq!((trace.ended, trace.drop), (Ended::Lost, None));
    let lost = trace.lost.expect("a loss");
    assert_eq!((lost.direction, lost.last_hop.as_str()), (Direction::Reply, "lxcaa egress"));
}

#[test]
fn nor_where_the_first_one_is_a_transaction_of_its_own() {
    let events: Vec<Event> = answers_lost().into_iter().filter(|event| event.time_ns > 2_000_000_000).collect();
    assert_eq!(only(&events, &topology()).ended, Ended::Lost);
}

#[test]
fn one_that_dies_on_its_way_did_not_arrive_because_an_earlier_one_at_its_address_had() {
    let mut events = [syn(SENT_AT[0]), lost_answer(SENT_AT[0])].concat();
    events.extend(syn(SENT_AT[1]).into_iter().take(2));
    events.push(dropped(SENT_AT[1] + 25, "TC_INGRESS"));
    let trace = only(&events, &topology());
    assert_eq!((trace.ended, trace.drop.expect("a drop").reason.as_str()), (Ended::Dropped, "TC_INGRESS"));
}

#[test]
fn what_the_socket_refuses_did_die() {
    for reason in ["SOCKET_FILTER", "TCP_CSUM", "TCP_MD5UNEXPECTED"] {
        let mut events = syn(SENT_AT[0]);
        events.push(dropped(SENT_AT[0] + 40, reason));
        let trace = only(&events, &topology());
        assert_eq!((trace.ended, trace.drop.expect("a drop").reason.as_str()), (Ended::Dropped, reason));
    }
}

#[test]
fn one_that_left_before_another_at_its_address_was_dropped_has_left() {
    let mut topology = topology();
    topology.cover.transmit = false;
    let out = |at| {
        let egress = seen(at + 25, HookKind::Egress, (NODE, ETH0), false);
        syn(at).into_iter().take(2).chain([egress]).collect::<Vec<_>>()
    };
    let mut events = out(SENT_AT[0]);
    events.extend(syn(SENT_AT[1]).into_iter().take(2));
    events.push(dropped(SENT_AT[1] + 25, "TC_INGRESS"));
    assert_eq!(only(&events, &topology).ended, Ended::Leaked);

    let mut events = out(SENT_AT[0]);
    events.push(dropped(SENT_AT[0] + 30, "TC_EGRESS"));
    assert_eq!(only(&events, &topology).ended, Ended::Dropped);
}

#[test]
fn a_datagram_that_goes_with_its_socket_had_arrived() {
    let ended = |reason: &str| {
        let asked = Asked { port: 40_000, id: 7, start: 1_000_000_000, skb: SYNS_SKB };
        let mut events = asked.healthy();
        // An answer that is none, so that only its arrival counts.
        events.iter_mut().filter(|event| event.skb != SYNS_SKB).for_each(|event| event.dns = None);
        let mut freed = Event { hook: HookKind::Drop, time_ns: 2_000_000_000, ..events[6].clone() };
        freed.drop_reason = Some(reason.into());
        events.push(freed);
        only(&events, &topology()).ended
    };
    assert_eq!((ended("NOT_SPECIFIED"), ended("QUEUE_PURGE")), (Ended::Unanswered, Ended::Unanswered));
    assert_eq!(ended("SOCKET_RCVBUFF"), Ended::Dropped);
}

/// Where the sockets cannot be watched, an answer that was seen shows that the query had come there.
#[test]
fn without_the_sockets_hooks_what_was_answered_is_not_said_to_have_died() {
    let mut topology = topology();
    topology.cover.sockets = false;
    let unseen = |event: &Event| matches!(event.hook, HookKind::SocketIn | HookKind::SocketOut);
    let events: Vec<Event> = answers_lost().into_iter().filter(|event| !unseen(event)).collect();
    assert_eq!(only(&events, &topology).ended, Ended::Unknown);

    let mut died: Vec<Event> = syn(SENT_AT[0]).into_iter().filter(|event| !unseen(event)).collect();
    died.push(dropped(SENT_AT[0] + 25, "TC_INGRESS"));
    assert_eq!(only(&died, &topology).ended, Ended::Dropped);
}

/// The kernel frees what a connection has consumed without a word, and gives its address to the next packet: here a
/// pod's first segment, right after one of the node's own.
#[test]
fn another_packet_at_a_known_address_is_no_translation() {
    const LO: u32 = 1;
    let mut topology = topology();
    topology.cover.sockets = false;
    let mut own = seen(0, HookKind::Ingress, (NODE, LO), false);
    own.flow = own.flow.map(|flow| Flow { src: addr("169.254.116.108:56505"), ..flow });
    let pods = seen(900, HookKind::Ingress, (NODE, LXC), false);
    let out = seen(910, HookKind::Transmit, (NODE, ETH0), false);
    let traces = correlate(&[own, pods, out], &topology, Horizon { now_ns: 10_000_000_000, last: true });
    let ends: Vec<_> = traces.iter().map(|trace| (trace.flow.src, trace.ended)).collect();
    assert_eq!(ends, [(addr("169.254.116.108:56505"), Ended::Unknown), (addr(CLIENT), Ended::Leaked)]);
}
