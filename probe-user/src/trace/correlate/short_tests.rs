//! Datagrams that are too short for a DNS id, several at once on one port.

use super::{testing::*, *};
use crate::trace::HookKind;

/// The same events as they are of a datagram of these bytes, and of an answer that echoes them: an earlier sighting's
/// bytes are not sent again, and a drop shows none.
pub(super) fn shortened(events: Vec<Event>, bytes: &[u8]) -> Vec<Event> {
    let mut known = std::collections::BTreeSet::new();
    let shorten = |mut event: Event| {
        let shows = event.hook != HookKind::Drop && !bytes.is_empty();
        event.dns = None;
        event.payload_len = if shows && event.hook != HookKind::Transmit { bytes.len() as u32 } else { 0 };
        let first = known.insert(event.skb) || event.hook == HookKind::Transmit;
        event.payload = (shows && first).then(|| bytes.into());
        event
    };
    events.into_iter().map(shorten).collect()
}

const PORT: u16 = 41_334;

/// The nth on one port; the second asks before the first is answered.
fn nth(n: u64, bytes: &[u8]) -> Vec<Event> {
    let asked = Asked { port: PORT, id: 7, start: 1_000_000_000 + n * 100_000, skb: 0xffff_0000 + n * 0x100 };
    shortened(asked.healthy(), bytes)
}

fn hops(events: &[Event]) -> Vec<(u64, usize)> {
    let mut skbs = Vec::new();
    for Finished { events, .. } in finished(events) {
        let of: std::collections::BTreeSet<u64> = events.iter().map(|event| event.skb >> 8 & 0xff).collect();
        assert_eq!(of.len(), 1, "joined: {events:#?}");
        skbs.push((*of.first().expect("one"), events.len()));
    }
    skbs.sort_unstable();
    skbs
}

#[test]
fn each_answer_goes_to_the_one_that_began_alike() {
    let whole = Asked { port: PORT, id: 7, start: 1_000_050_000, skb: 0xffff_0900 };
    let events = [nth(0, b"\xab\xcd\x01"), nth(1, b"\x12"), whole.healthy(), nth(2, b"\xab\xce")].concat();
    assert_eq!(hops(&events), [(0, 7), (1, 7), (2, 7), (9, 7)]);
}

#[test]
fn of_several_that_are_alike_the_oldest_is_answered_first() {
    let events = [nth(0, b""), nth(1, b""), nth(2, b"")].concat();
    assert_eq!(hops(&events), [(0, 7), (1, 7), (2, 7)]);
}

#[test]
fn a_proper_answer_to_a_short_query_and_a_short_one_to_a_proper_query_are_joined_by_the_id() {
    let ask = |n: u64| Asked {
        port: PORT,
        id: 0xabcd + n as u16,
        start: 1_000_000_000 + n * 100_000,
        skb: 0xffff_0000 + n * 0x100,
    };
    let is_reply = |event: &Event| event.flow.is_some_and(|flow| flow.src == addr(TARGET));
    let halves = |n: u64, short_reply: bool| {
        let (replies, requests): (Vec<_>, Vec<_>) = ask(n).healthy().into_iter().partition(is_reply);
        let id = (0xabcd + n as u16).to_be_bytes();
        if short_reply { [requests, shortened(replies, &id)] } else { [shortened(requests, &id), replies] }.concat()
    };
    let events = [halves(0, false), halves(1, true), halves(2, false)].concat();
    assert_eq!(hops(&events), [(0, 7), (1, 7), (2, 7)]);
}

#[test]
fn what_shows_nothing_joins_only_where_there_is_no_choice() {
    let asked = |n: u64| nth(n, &[1, n as u8]).into_iter().take(2).collect::<Vec<_>>();
    // Quotes the IP and UDP headers alone, after all were asked.
    let mut error = nth(100, &[])[3].clone();
    (error.icmp_error, error.payload, error.flow) = (Some((3, 3)), None, nth(100, &[])[0].flow);
    let refused = |events: &[Event]| {
        at_last(events).iter().filter(|trace| trace.ended == crate::ended::Ended::PortUnreachable).count()
    };
    assert_eq!(refused(&[asked(0), vec![error.clone()]].concat()), 1);
    assert_eq!(refused(&[asked(0), asked(1), vec![error]].concat()), 0);
}

#[test]
fn a_drop_without_bytes_is_of_a_packet_that_is_known() {
    let mut events = nth(0, &[1, 2]).into_iter().take(2).collect::<Vec<_>>();
    let other = Asked { port: PORT, id: 7, start: 1_001_000_000, skb: 0xffff_8000 };
    events.extend(other.dropped().into_iter().filter(|event| event.hook == HookKind::Drop));
    let traces = at_last(&events);
    assert_eq!((traces.len(), traces[0].hops.len()), (1, 2));
}
