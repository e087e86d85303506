//! From sightings to transactions: which belong to the same query and answer, through address translation, retries and
//! losses. A pure function of the events and of what is known of the node.
//!
//! Three things join a sighting to a transaction, strongest first: the two ends and the DNS id; the same ends after a
//! translation that was itself seen; the address of the `sk_buff`, while it is fresh (addresses are recycled). The
//! namespace comes before all of them: what belongs neither to the node nor to its pods is not ours.

mod ending;
mod hops;
mod joiner;
mod key;
mod said;
mod stream;
mod transaction;

pub use self::stream::{Correlator, MAX_OPEN};
use self::{joiner::Joiner, transaction::Transaction};
use super::{
    PacketTrace,
    event::{Event, Topology},
};

/// At which moment the events are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Horizon {
    /// Boot clock, nanoseconds.
    pub now_ns: u64,
    /// Nothing more will come: what is open now has ended.
    pub last: bool,
}

/// A transaction that has ended: its trace, and the events behind the trace's hops, in the same order.
#[derive(Clone, Debug)]
pub struct Finished {
    pub trace: PacketTrace,
    pub events: Vec<Event>,
}

/// Joins events, in whatever order they come, to one trace per transaction, oldest first.
#[must_use]
pub fn correlate(events: &[Event], topology: &Topology, horizon: Horizon) -> Vec<PacketTrace> {
    let mut sorted: Vec<&Event> = events.iter().collect();
    sorted.sort_by_key(|event| (event.time_ns, event.skb, event.hook, event.ifindex));
    sorted.dedup();

    let mut joiner = Joiner::default();
    for event in sorted {
        joiner.place(event.clone(), topology);
    }
    let mut transactions: Vec<Transaction> =
        joiner.transactions.into_values().filter(|transaction| !transaction.sightings.is_empty()).collect();
    for transaction in &mut transactions {
        transaction.sightings.sort_by_key(|sighting| sighting.event.time_ns);
    }
    transactions.sort_by_key(|transaction| (transaction.sightings[0].event.time_ns, transaction.key.client));
    (1..).zip(&transactions).map(|(id, transaction)| transaction.trace(id, topology, horizon)).collect()
}

#[cfg(test)]
mod free_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod recorded_tests;
#[cfg(test)]
mod short_tests;
#[cfg(test)]
mod tcp_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
