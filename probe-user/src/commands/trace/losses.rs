//! How many events were lost, and when: what was open meanwhile may lack some of them.

use std::collections::VecDeque;

/// A silence is judged after five seconds at most (the correlator's patience); what was lost before is no matter.
const WINDOW_NS: u64 = 6_000_000_000;

/// Losses by time, as far back as they matter.
#[derive(Debug, Default)]
pub(super) struct Losses {
    total: u64,
    recent: VecDeque<(u64, u64)>,
}

impl Losses {
    /// `total` events were lost by `now_ns` (boot clock).
    pub(super) fn look(&mut self, total: u64, now_ns: u64) {
        let more = total.saturating_sub(self.total);
        if more > 0 {
            self.total = total;
            self.recent.push_back((now_ns, more));
        }
        while self.recent.front().is_some_and(|(time, _)| now_ns.saturating_sub(*time) > WINDOW_NS) {
            self.recent.pop_front();
        }
    }

    /// None was lost within the window: silence means something.
    pub(super) fn is_complete(&self) -> bool {
        self.recent.is_empty()
    }

    /// Lost since then, within the window.
    pub(super) fn since(&self, time_ns: u64) -> u64 {
        self.recent.iter().filter(|(time, _)| *time >= time_ns).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_count_for_what_was_open_and_are_forgotten_later() {
        let mut losses = Losses::default();
        losses.look(0, 1_000);
        assert!(losses.is_complete());
        losses.look(5, 2_000);
        losses.look(5, 3_000);
        losses.look(7, 4_000);
        assert!(!losses.is_complete());
        assert_eq!([losses.since(0), losses.since(2_500), losses.since(5_000)], [7, 2, 0]);
        losses.look(7, WINDOW_NS + 5_000);
        assert!(losses.is_complete());
    }
}
