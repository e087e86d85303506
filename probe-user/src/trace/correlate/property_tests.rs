//! Any number of transactions at once, in any order, with gaps and doubles: on ports of their own or on a few, with ids
//! or too short to have one.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{short_tests::shortened, testing::*, *};

/// Bits of an skb's address that tell a packet's place within its transaction.
const SKB_BITS: u32 = 8;

/// N transactions of different kinds, `ports` ports among them. On one port each has an id, or first bytes, of its own.
fn mixture(ports: u16) -> impl Strategy<Value = Vec<Vec<Event>>> {
    prop::collection::vec((0_u8..8, 0_u16..3, 0_u64..5_000), 1..12).prop_map(move |kinds| {
        kinds
            .into_iter()
            .enumerate()
            .map(|(n, (kind, id, delay))| {
                let n = u16::try_from(n).expect("few");
                let asked = Asked {
                    port: 40_000 + n % ports,
                    id: id + 3 * (n / ports),
                    start: 1_000_000_000 + delay * 1000 + u64::from(n),
                    skb: 0xffff_0000 + (u64::from(n) << SKB_BITS),
                };
                let events = match kind % 4 {
                    0 => asked.healthy(),
                    1 => asked.dropped(),
                    2 => asked.leaked(),
                    _ => [asked.leaked(), asked.answered_from_outside()].concat(),
                };
                // With ids of their own, so that first bytes never stand for another one's id.
                let mark = [0xff, u8::try_from(asked.id).expect("few"), 1, 0, 7];
                if kind < 4 { events } else { shortened(events, &mark[..2 + usize::from(n % 4)]) }
            })
            .collect()
    })
}

fn all(mixture: &[Vec<Event>]) -> Vec<Event> {
    mixture.concat()
}

fn transaction_of(event: &Event) -> u64 {
    event.skb >> SKB_BITS
}

/// Each trace is of one transaction alone.
fn none_is_joined(events: &[Event]) -> Result<(), TestCaseError> {
    for Finished { trace, events } in finished(events) {
        let of: BTreeSet<u64> = events.iter().map(transaction_of).collect();
        prop_assert_eq!(of.len(), 1, "{:#?}", trace);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_interleaving_gives_the_same_transactions(
        mixture in (1_u16..12).prop_flat_map(mixture),
        seed in any::<u64>(),
    ) {
        let events = all(&mixture);
        let mut shuffled = events.clone();
        shuffled.sort_by_key(|event| (event.time_ns ^ event.skb ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (straight, mixed) = (at_last(&events), at_last(&shuffled));
        prop_assert_eq!(straight.len(), mixture.len());
        let ends = |traces: &[PacketTrace]| {
            let mut ends: Vec<_> =
                traces.iter().map(|t| (t.started_ns, t.flow.src.port(), t.ended, t.hops.len())).collect();
            ends.sort_unstable();
            ends
        };
        let mut asked: Vec<_> = mixture.iter().map(|events| (events[0].time_ns, events.len())).collect();
        asked.sort_unstable();
        let told: Vec<_> = ends(&straight).into_iter().map(|(started, _, _, hops)| (started, hops)).collect();
        prop_assert_eq!(told, asked);
        prop_assert_eq!(ends(&live(&events)), ends(&straight), "live differs");
        prop_assert_eq!(straight, mixed);
        none_is_joined(&events)?;
    }

    #[test]
    fn duplicated_and_missing_events_never_join_two_transactions(
        mixture in (1_u16..12).prop_flat_map(mixture),
        fate in prop::collection::vec(0_u8..3, 100),
    ) {
        let events: Vec<Event> = all(&mixture)
            .into_iter()
            .zip(fate.into_iter().cycle())
            .flat_map(|(event, copies)| vec![event; usize::from(copies)])
            .collect();
        none_is_joined(&events)?;
    }
}
