//! Events by kernel time: each waits until nothing older can come any more.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::event::Event;

/// How long an event waits. The reader empties its buffers every 8 ms, the costly ones at once.
pub const WAIT_NS: u64 = 10_000_000;

/// Events that wait at most; beyond it the oldest goes out early. More than a million a second.
const MAX_WAITING: usize = 16_384;

/// A buffer between the tracer and the correlator.
#[derive(Debug, Default)]
pub struct Reorder {
    waiting: BinaryHeap<Reverse<Waiting>>,
    taken: u64,
}

impl Reorder {
    pub fn push(&mut self, event: Event) {
        self.taken += 1;
        self.waiting.push(Reverse(Waiting { time_ns: event.time_ns, order: self.taken, event }));
    }

    /// The oldest event, if it has waited long enough by `now_ns` (boot clock).
    pub fn pop(&mut self, now_ns: u64) -> Option<Event> {
        let Reverse(oldest) = self.waiting.peek()?;
        let ripe = oldest.time_ns.saturating_add(WAIT_NS) <= now_ns || self.waiting.len() > MAX_WAITING;
        if ripe { self.waiting.pop().map(|Reverse(waiting)| waiting.event) } else { None }
    }
}

#[derive(Debug)]
struct Waiting {
    time_ns: u64,
    order: u64,
    event: Event,
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time_ns, self.order).cmp(&(other.time_ns, other.order))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::HookKind;

    fn at(time_ns: u64) -> Event {
        Event::bare(HookKind::Ingress, time_ns)
    }

    #[test]
    fn events_come_out_by_time_once_nothing_older_can_come() {
        let mut reorder = Reorder::default();
        for time in [30, 10, 20] {
            reorder.push(at(time));
        }
        assert!(reorder.pop(WAIT_NS).is_none(), "too young");
        let out: Vec<u64> = std::iter::from_fn(|| reorder.pop(WAIT_NS + 20)).map(|event| event.time_ns).collect();
        assert_eq!(out, [10, 20]);
        assert_eq!(reorder.pop(u64::MAX).map(|event| event.time_ns), Some(30));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut reorder = Reorder::default();
        for time in 0..=MAX_WAITING as u64 {
            reorder.push(at(time));
        }
        assert_eq!(reorder.pop(0).map(|event| event.time_ns), Some(0));
        assert!(reorder.pop(0).is_none());
    }
}
