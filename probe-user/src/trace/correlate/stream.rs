//! The same for what has no end: events come one by one, and transactions go out as they end.

use super::{
    Finished, Horizon, ending,
    joiner::{Joiner, SKB_MEMORY_NS},
};
use crate::{
    ended::Ended,
    trace::{
        PacketTrace,
        event::{Event, Topology},
    },
};

/// For a stream without end: events come in order of time, transactions go out as they end. What it holds is
/// bounded by [`MAX_OPEN`].
#[derive(Debug, Default)]
pub struct Correlator {
    pub(super) joiner: Joiner,
    handed_out: u32,
    pruned_ns: u64,
}

/// Transactions open at once, at most. The oldest ends as unknown where there would be more.
pub const MAX_OPEN: usize = 8_192;

/// A transaction that has ended is kept for so long, so that its last sightings still find it.
const LINGER_NS: u64 = 100_000_000;

/// How long a server may take before its silence is an end (contract: a slow upstream is not the datapath).
const PATIENCE_NS: u64 = 5_000_000_000;

impl Correlator {
    pub fn push(&mut self, event: Event, topology: &Topology) {
        let now_ns = event.time_ns;
        self.joiner.place(event, topology);
        if now_ns.saturating_sub(self.pruned_ns) > SKB_MEMORY_NS {
            self.pruned_ns = now_ns;
            self.joiner.by_skb.retain(|_, seen| now_ns.saturating_sub(seen.time_ns) <= SKB_MEMORY_NS);
        }
    }

    /// Transactions still open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.joiner.transactions.len()
    }

    /// Takes out what has ended by now, oldest first.
    pub fn take_ended(&mut self, topology: &Topology, horizon: Horizon) -> Vec<PacketTrace> {
        self.take_finished(topology, horizon).into_iter().map(|finished| finished.trace).collect()
    }

    /// The same, with the events behind each trace.
    pub fn take_finished(&mut self, topology: &Topology, horizon: Horizon) -> Vec<Finished> {
        let mut all = Vec::new();
        self.take_lot(topology, horizon, usize::MAX, &mut all);
        all
    }

    /// Appends so many at most: told, each takes several times the memory that it takes here. True: there are more.
    pub fn take_lot(
        &mut self,
        topology: &Topology,
        horizon: Horizon,
        most: usize,
        finished: &mut Vec<Finished>,
    ) -> bool {
        let excess = self.joiner.transactions.len().saturating_sub(MAX_OPEN);
        let mut ended = Vec::new();
        for (n, (&id, transaction)) in self.joiner.transactions.iter_mut().enumerate() {
            if ended.len() == most {
                break;
            }
            let quiet_ns = horizon.now_ns.saturating_sub(transaction.last_ns());
            let last = horizon.last || quiet_ns > PATIENCE_NS;
            let crowded_out = !last && n < excess;
            let asked_lately =
                transaction.unchanged.is_some_and(|asked_ns| horizon.now_ns.saturating_sub(asked_ns) < LINGER_NS);
            if !last && !crowded_out && (quiet_ns < LINGER_NS || asked_lately) {
                continue;
            }
            let mut ending = ending::ending(&transaction.sightings, topology, Horizon { last, ..horizon });
            if crowded_out && ending.ended == Ended::Unknown {
                ending.unknown = Some(format!("given up early: over {MAX_OPEN} transactions were open at once"));
            }
            if last || crowded_out || ending.ended != Ended::Unknown {
                ended.push((id, ending));
            } else {
                transaction.unchanged = Some(horizon.now_ns);
            }
        }
        let more = ended.len() == most;
        finished.extend(ended.into_iter().filter_map(|(id, ending)| {
            let mut transaction = self.joiner.forget(id)?;
            if transaction.is_elsewhere(topology) {
                return None;
            }
            transaction.sightings.sort_by_key(|sighting| sighting.event.time_ns);
            self.handed_out = self.handed_out.wrapping_add(1);
            let trace = transaction.told(ending, self.handed_out, topology);
            Some(Finished { trace, events: transaction.sightings.into_iter().map(|s| s.event).collect() })
        }));
        more
    }
}
