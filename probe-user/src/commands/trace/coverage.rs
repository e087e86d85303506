//! Which pods that asked something were covered: each is counted once, whatever becomes of its device.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::trace::tracer::Outcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The device was asked for, by index.
    Requested(u32),
    Settled,
}

#[derive(Debug)]
struct Pod {
    state: State,
    /// Since when it is not there any more.
    gone: Option<Instant>,
}

/// By the cookie of their namespaces, which the kernel never gives twice.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    pods: HashMap<u64, Pod>,
    counts: Counts,
}

/// What became of them. Those that are in none of the three had not had their turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) asked: u64,
    pub(super) covered: u64,
    /// Gone before their device was covered.
    pub(super) too_late: u64,
    /// There, and not to be attached to.
    pub(super) refused: u64,
}

impl Counts {
    pub(super) const fn waiting(self) -> u64 {
        self.asked - self.covered - self.too_late - self.refused
    }
}

impl Coverage {
    pub(super) fn knows(&self, netns: u64) -> bool {
        self.pods.contains_key(&netns)
    }

    /// A pod has asked something for the first time. None: its device is gone already.
    pub(super) fn add(&mut self, netns: u64, device: Option<u32>) {
        if self.knows(netns) {
            return;
        }
        self.counts.asked += 1;
        self.counts.too_late += u64::from(device.is_none());
        self.pods.insert(netns, Pod { state: device.map_or(State::Settled, State::Requested), gone: None });
    }

    /// What the tracer says of a device.
    pub(super) fn settle(&mut self, device: u32, outcome: Outcome) {
        for pod in self.pods.values_mut().filter(|pod| pod.state == State::Requested(device)) {
            pod.state = State::Settled;
            match outcome {
                Outcome::Covered => self.counts.covered += 1,
                Outcome::Gone => self.counts.too_late += 1,
                Outcome::Refused => self.counts.refused += 1,
            }
        }
    }

    /// Forgets those that have been gone for `patience`: nothing of them is under way any more.
    pub(super) fn keep(&mut self, is_there: impl Fn(u64) -> bool, patience: Duration) {
        self.pods.retain(|&netns, pod| {
            if is_there(netns) || pod.state != State::Settled {
                pod.gone = None;
                return true;
            }
            pod.gone.get_or_insert_with(Instant::now).elapsed() < patience
        });
    }

    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pod_is_counted_once() {
        let mut coverage = Coverage::default();
        for (netns, device) in [(1, Some(10)), (2, Some(20)), (3, None), (4, Some(40)), (5, Some(50)), (1, Some(10))] {
            coverage.add(netns, device);
        }
        coverage.settle(10, Outcome::Covered);
        coverage.settle(20, Outcome::Gone);
        coverage.settle(40, Outcome::Refused);
        coverage.settle(10, Outcome::Gone); // has had its turn
        coverage.add(2, Some(20));
        let counts = coverage.counts();
        assert_eq!(counts, Counts { asked: 5, covered: 1, too_late: 2, refused: 1 });
        assert_eq!(counts.waiting(), 1);
    }

    #[test]
    fn pods_that_are_gone_are_forgotten_and_stay_counted() {
        let mut coverage = Coverage::default();
        for netns in 1..=3 {
            coverage.add(netns, Some(netns as u32));
        }
        coverage.settle(1, Outcome::Covered);
        coverage.settle(2, Outcome::Covered);
        coverage.keep(|netns| netns == 1, Duration::from_secs(60));
        assert!(coverage.knows(2), "its last events may be under way");
        coverage.keep(|netns| netns == 1, Duration::ZERO);
        assert_eq!([1, 2, 3].map(|netns| coverage.knows(netns)), [true, false, true]);
        assert_eq!(coverage.counts().covered, 2);
    }
}
