//! Connections: the handshake, several questions, answers in pieces.

use super::{testing::*, *};
use crate::{
    ended::Ended,
    facts::Transport,
    trace::{Flow, HookKind},
};

const SYN: u8 = 2;
const ACK: u8 = 16;
const PSH: u8 = 8 | ACK;
const FIN: u8 = 1 | ACK;

/// Segments of one connection, each seen at both sockets, a new packet each time.
struct Connection {
    port: u16,
    now_us: u64,
    packets: u64,
    events: Vec<Event>,
}

impl Connection {
    fn open(port: u16) -> Self {
        let mut new = Self { port, now_us: 0, packets: 0, events: Vec::new() };
        new.segment(false, SYN, None);
        new.segment(true, SYN | ACK, None);
        new.segment(false, ACK, None);
        new
    }

    fn segment(&mut self, reply: bool, flags: u8, dns: Option<u16>) {
        self.packets += 1;
        self.now_us += 100;
        let client = format!("10.244.1.132:{}", self.port);
        let (src, dst) = if reply { (TARGET, client.as_str()) } else { (client.as_str(), TARGET) };
        let asked = Asked { port: self.port, id: dns.unwrap_or(0), start: 1_000_000_000, skb: 0 };
        let (first, second) = if reply { (NODE, POD) } else { (POD, NODE) };
        for (after, hook, netns) in [(0, HookKind::SocketOut, first), (20, HookKind::SocketIn, second)] {
            let mut event = asked.event(self.now_us + after, hook, (netns, 0), src, dst, reply);
            event.skb = 0xffff_0000 + u64::from(self.port) * 0x1_0000 + self.packets * 0x100;
            event.flow = event.flow.map(|flow| Flow { transport: Transport::Tcp, ..flow });
            event.tcp_flags = flags;
            event.dns = event.dns.filter(|_| dns.is_some());
            self.events.push(event);
        }
    }

    fn ask(&mut self, id: u16) {
        self.segment(false, PSH, Some(id));
    }

    fn answer(&mut self, id: u16) {
        self.segment(true, PSH, Some(id));
        self.segment(true, PSH, None); // its second piece
        self.segment(false, ACK, None);
    }

    fn close(&mut self) {
        self.segment(false, FIN, None);
        self.segment(true, FIN, None);
        self.segment(false, ACK, None);
    }
}

fn ids(finished: &[Finished]) -> Vec<(Ended, std::collections::BTreeSet<u16>)> {
    let ids = |events: &[Event]| events.iter().filter_map(|event| event.dns.as_ref()).map(|dns| dns.id).collect();
    finished.iter().map(|finished| (finished.trace.ended, ids(&finished.events))).collect()
}

fn stream(events: &[Event], look_every_us: u64) -> Vec<Finished> {
    let mut correlator = Correlator::default();
    let (mut finished, mut looked) = (Vec::new(), 0);
    for event in events {
        if event.time_ns > looked + look_every_us * 1000 {
            looked = event.time_ns;
            finished.extend(correlator.take_finished(&topology(), Horizon { now_ns: looked, last: false }));
        }
        correlator.push(event.clone(), &topology());
    }
    finished.extend(correlator.take_finished(&topology(), Horizon { now_ns: u64::MAX, last: true }));
    finished.sort_by_key(|finished| finished.trace.started_ns);
    finished
}

#[test]
fn each_question_of_a_connection_is_a_transaction_and_the_first_has_the_handshake() {
    let mut connection = Connection::open(40_000);
    for id in [7, 8, 9] {
        connection.ask(id);
        connection.answer(id);
    }
    connection.close();
    let finished = stream(&connection.events, 20_000);
    assert_eq!(ids(&finished), [7, 8, 9].map(|id| (Ended::Answered, [id].into())));
    assert_eq!(finished[0].events[0].tcp_flags, SYN);
    assert!(finished[1..].iter().all(|finished| finished.events.iter().all(|event| event.tcp_flags & SYN == 0)));
}

#[test]
fn questions_sent_together_and_answered_out_of_order_are_kept_apart() {
    let mut connection = Connection::open(40_000);
    [1, 2, 3].into_iter().for_each(|id| connection.ask(id));
    [3, 1].into_iter().for_each(|id| connection.segment(true, PSH, Some(id)));
    let finished = stream(&connection.events, 20_000);
    let expected = [(Ended::Answered, [1].into()), (Ended::Unanswered, [2].into()), (Ended::Answered, [3].into())];
    assert_eq!(ids(&finished), expected);
}

#[test]
fn what_follows_a_transaction_that_was_handed_out_starts_none() {
    let mut connection = Connection::open(40_000);
    connection.ask(7);
    connection.answer(7);
    connection.now_us += 3_000_000;
    connection.close();
    assert_eq!(stream(&connection.events, 20_000).len(), 1);
}

#[test]
fn a_later_question_on_an_old_connection_is_told_too_even_with_the_same_id() {
    let mut connection = Connection::open(40_000);
    for id in [7, 8, 7] {
        connection.ask(id);
        connection.answer(id);
        connection.now_us += 1_000_000;
    }
    let finished = stream(&connection.events, 20_000);
    assert_eq!(ids(&finished), [7, 8, 7].map(|id| (Ended::Answered, [id].into())));
}

#[test]
fn a_piece_of_an_answer_that_looks_like_a_message_is_still_a_piece() {
    let mut connection = Connection::open(40_000);
    connection.ask(7);
    connection.segment(true, PSH, Some(7));
    connection.segment(true, PSH, Some(0x6578));
    assert_eq!(stream(&connection.events, 20_000).len(), 1);
}

proptest::proptest! {
    #[test]
    fn questions_of_any_number_of_connections_are_told_apart(
        plan in proptest::collection::vec((0_u16..4, 0_u16..6), 1..30),
        look_every_us in 1_000_u64..300_000,
        missing in proptest::collection::vec(0_u8..8, 40),
    ) {
        let mut connections: Vec<Connection> = (0..4).map(|n| Connection::open(40_000 + n)).collect();
        for (round, &(n, _)) in (0..).zip(&plan) {
            let connection = &mut connections[usize::from(n)];
            connection.now_us = connection.now_us.max(u64::from(round) * 1_000);
            connection.ask(100 + round);
            connection.answer(100 + round);
        }
        let mut events: Vec<Event> = connections.into_iter().flat_map(|connection| connection.events).collect();
        events.sort_by_key(|event| event.time_ns);
        let whole = stream(&events, look_every_us);
        let asked = whole.iter().filter(|f| f.events.iter().any(|event| event.dns.is_some())).count();
        proptest::prop_assert_eq!(asked, plan.len());
        proptest::prop_assert!(whole.iter().all(|f| f.trace.ended == Ended::Answered || f.events.iter().all(|e| e.dns.is_none())));

        // Whatever is missing, no two questions and no two connections are mixed.
        let kept: Vec<Event> = events
            .into_iter()
            .zip(missing.into_iter().cycle())
            .filter(|(_, fate)| *fate > 0)
            .map(|(event, _)| event)
            .collect();
        for finished in stream(&kept, look_every_us) {
            let questions: std::collections::BTreeSet<u16> = finished
                .events
                .iter()
                .filter_map(|event| event.dns.as_ref())
                .filter(|dns| !dns.is_response())
                .map(|dns| dns.id)
                .collect();
            proptest::prop_assert!(questions.len() <= 1, "{:?}", questions);
            let ports: std::collections::BTreeSet<u16> =
                finished.events.iter().filter_map(|e| e.flow).map(|f| f.src.port().max(f.dst.port())).collect();
            proptest::prop_assert_eq!(ports.len(), 1);
        }
    }
}

#[test]
fn a_reset_after_the_handshake_is_no_refusal_to_listen() {
    const RST: u8 = 4;
    let mut refused = Connection { port: 40_000, now_us: 0, packets: 0, events: Vec::new() };
    refused.segment(false, SYN, None);
    refused.segment(true, RST | ACK, None);
    assert_eq!(at_last(&refused.events)[0].ended, Ended::PortUnreachable);
    let mut closed = Connection::open(40_001);
    closed.ask(7);
    closed.segment(true, RST | ACK, None);
    assert_eq!(at_last(&closed.events)[0].ended, Ended::Unanswered);
}
