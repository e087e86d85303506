//! Cilium's own reason for a drop: which of its counters rose around it. The counters are read at most a few times a
//! second; drops wait for that.

use std::time::{Duration, Instant};

use crate::{
    facts::{self, DropCount, Fact, Sources},
    trace::{CiliumReason, cilium_reasons, correlate::Finished},
};

/// From one reading of all CPUs' counters to the next.
const PACE: Duration = Duration::from_millis(250);

/// Drops that wait at most; more go out without Cilium's reason.
const MAX_HELD: usize = 4096;

pub(super) struct Reasons {
    before: Option<Vec<DropCount>>,
    /// The map that they were read from.
    map: Option<u32>,
    read: Instant,
    held: Vec<Finished>,
}

impl Reasons {
    pub(super) fn new(before: &Fact<Vec<DropCount>>, map: Option<u32>) -> Self {
        Self { before: before.get().cloned(), map, read: Instant::now(), held: Vec::new() }
    }

    /// Passes on what is ready: everything but drops of Cilium's, and those as soon as the counters may be read.
    pub(super) async fn add(&mut self, finished: Vec<Finished>, sources: &Sources, last: bool) -> Vec<Finished> {
        let Some(before) = &self.before else { return finished };
        let (wait, mut ready): (Vec<_>, Vec<_>) = finished.into_iter().partition(is_ciliums);
        self.held.extend(wait);
        if self.held.is_empty() || (!last && self.read.elapsed() < PACE && self.held.len() < MAX_HELD) {
            return ready;
        }
        let mut reason: Option<CiliumReason> = None;
        if self.read.elapsed() >= PACE || last {
            self.read = Instant::now();
            let read = facts::cilium_drops(sources).await;
            if let Some(after) = read.clone().since(self.map).get() {
                reason = cilium_reasons::only(before, after, self.held.len() as u64);
            }
            if let Some(after) = read.counts.get() {
                (self.before, self.map) = (Some(after.clone()), read.map);
            }
        }
        for mut finished in self.held.drain(..) {
            if let Some(drop) = &mut finished.trace.drop {
                drop.cilium_reason.clone_from(&reason);
            }
            ready.push(finished);
        }
        ready
    }
}

/// Only a program of Cilium's drops at the tc hooks here.
fn is_ciliums(finished: &Finished) -> bool {
    let reason = finished.trace.drop.as_ref().map(|drop| drop.reason.as_str());
    matches!(reason, Some("TC_INGRESS" | "TC_EGRESS"))
}
