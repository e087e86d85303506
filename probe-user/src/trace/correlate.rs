//! From sightings to transactions: which belong to the same query and answer, through address translation, retries and
//! losses. A pure function of the events and of what is known of the node.
//!
//! Three things join a sighting to a transaction, strongest first: the two ends and the DNS id; the same ends after a
//! translation that was itself seen; the address of the `sk_buff`, while it is fresh (addresses are recycled). The
//! namespace comes before all of them: what belongs neither to the node nor to its pods is not ours.

mod ending;
mod hops;

use std::{collections::HashMap, net::SocketAddr};

use super::{
    Flow, HookKind, PacketTrace,
    event::{Event, Topology},
};
use crate::{ended::Direction, facts::Transport};

/// How long an `sk_buff` address names the same packet. Within a node a packet lives for microseconds; a neighbour
/// lookup can hold it for a second.
const SKB_MEMORY_NS: u64 = 2_000_000_000;

/// A later packet with the same ends and id belongs to another question: resolvers give up long before.
const RETRY_WINDOW_NS: u64 = 15_000_000_000;

/// At which moment the events are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Horizon {
    /// Boot clock, nanoseconds.
    pub now_ns: u64,
    /// Nothing more will come: what is open now has ended.
    pub last: bool,
}

/// The ends of a transaction as its client wrote them, and what tells two questions on the same ends apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    transport: Transport,
    client: SocketAddr,
    server: SocketAddr,
    /// DNS id over UDP; over TCP the connection is the transaction.
    id: Option<u16>,
}

/// An event that belongs to a transaction.
#[derive(Clone, Debug)]
struct Sighting<'a> {
    event: &'a Event,
    netns: u64,
    direction: Direction,
}

#[derive(Clone, Debug)]
struct Transaction<'a> {
    key: Key,
    sightings: Vec<Sighting<'a>>,
}

impl Transaction<'_> {
    fn last_ns(&self) -> u64 {
        self.sightings.last().map_or(0, |sighting| sighting.event.time_ns)
    }

    fn answer_arrived(&self) -> bool {
        self.sightings.iter().any(|s| s.direction == Direction::Reply && s.event.hook == HookKind::SocketIn)
    }

    fn closed(&self) -> bool {
        const FIN_OR_RST: u8 = 1 | 4;
        self.sightings.iter().any(|s| s.event.tcp_flags & FIN_OR_RST != 0)
    }

    /// A socket sends this again: the same question, or a new one on the same ends?
    fn takes(&self, event: &Event) -> bool {
        if event.hook != HookKind::SocketOut {
            return true;
        }
        let gap = event.time_ns.saturating_sub(self.last_ns());
        match self.key.transport {
            Transport::Udp => gap < RETRY_WINDOW_NS && !self.answer_arrived(),
            Transport::Tcp => {
                let opens = event.tcp_flags & 0x12 == 2; // SYN without ACK
                !(opens && self.closed()) && gap < 4 * RETRY_WINDOW_NS
            }
        }
    }
}

/// Joins events, in whatever order they come, to one trace per transaction, oldest first.
#[must_use]
pub fn correlate(events: &[Event], topology: &Topology, horizon: Horizon) -> Vec<PacketTrace> {
    let mut sorted: Vec<&Event> = events.iter().collect();
    sorted.sort_by_key(|event| (event.time_ns, event.skb, event.hook, event.ifindex));
    sorted.dedup();

    let mut joiner = Joiner { topology, transactions: Vec::new(), by_key: HashMap::new(), by_skb: HashMap::new() };
    for event in sorted {
        joiner.place(event);
    }
    let mut transactions: Vec<Transaction<'_>> =
        joiner.transactions.into_iter().filter(|transaction| !transaction.sightings.is_empty()).collect();
    for transaction in &mut transactions {
        transaction.sightings.sort_by_key(|sighting| sighting.event.time_ns);
    }
    transactions.sort_by_key(|transaction| transaction.sightings[0].event.time_ns);
    (1..).zip(&transactions).map(|(id, transaction)| trace(id, transaction, topology, horizon)).collect()
}

fn trace(id: u32, transaction: &Transaction<'_>, topology: &Topology, horizon: Horizon) -> PacketTrace {
    let started_ns = transaction.sightings[0].event.time_ns;
    let ending = ending::ending(&transaction.sightings, topology, horizon);
    PacketTrace {
        id,
        flow: Flow { src: transaction.key.client, dst: transaction.key.server, transport: transaction.key.transport },
        started_ns,
        hops: hops::name(transaction, topology),
        ended: ending.ended,
        unknown: ending.unknown,
        drop: ending.drop,
        leak: ending.leak,
        lost: ending.lost,
    }
}

/// Where a packet was last seen, by its kernel address.
#[derive(Clone, Copy, Debug)]
struct LastSeen {
    transaction: usize,
    time_ns: u64,
    direction: Direction,
}

struct Joiner<'a> {
    topology: &'a Topology,
    transactions: Vec<Transaction<'a>>,
    /// The transaction that owns these ends now; translated ends are entered beside the original ones.
    by_key: HashMap<Key, usize>,
    by_skb: HashMap<u64, LastSeen>,
}

impl<'a> Joiner<'a> {
    fn place(&mut self, event: &'a Event) {
        let Some(netns) = self.topology.netns_of(event) else { return };
        if !self.topology.is_ours(netns) {
            return;
        }
        let fresh = self
            .by_skb
            .get(&event.skb)
            .filter(|seen| event.skb != 0 && event.time_ns.saturating_sub(seen.time_ns) <= SKB_MEMORY_NS)
            .copied();
        let Some((index, direction)) = self.owner(event, fresh) else { return };
        self.transactions[index].sightings.push(Sighting { event, netns, direction });
        if event.hook == HookKind::Drop {
            self.by_skb.remove(&event.skb); // freed: the next packet there is another one
        } else if event.skb != 0 && event.icmp_error.is_none() {
            self.by_skb.insert(event.skb, LastSeen { transaction: index, time_ns: event.time_ns, direction });
        }
    }

    /// The transaction an event belongs to, and the way its packet goes.
    fn owner(&mut self, event: &Event, fresh: Option<LastSeen>) -> Option<(usize, Direction)> {
        let Some((key, direction)) = event.flow.and_then(|flow| self.orient(flow, event)) else {
            // No ends to go by, or ends that are nobody's: the packet's own identity, or nothing.
            return fresh.map(|seen| (seen.transaction, seen.direction));
        };
        // An ICMP error quotes the request; it travels the other way.
        let direction = if event.icmp_error.is_some() { Direction::Reply } else { direction };
        if let Some(index) = self.lookup(&key, event) {
            if let Some(seen) = fresh.filter(|seen| seen.transaction != index) {
                self.adopt_orphan(seen.transaction, index);
            }
            return Some((index, direction));
        }
        if let Some(seen) = fresh.filter(|seen| seen.direction == direction && self.same_question(seen, &key)) {
            // The same packet under other addresses: a translation. Its answer comes back to the new ones.
            self.by_key.insert(key, seen.transaction);
            return Some((seen.transaction, direction));
        }
        if event.icmp_error.is_some() || event.hook == HookKind::Drop {
            return None; // neither starts a transaction
        }
        self.transactions.push(Transaction { key, sightings: Vec::new() });
        let index = self.transactions.len() - 1;
        self.by_key.insert(key, index);
        Some((index, direction))
    }

    /// Which end is the server: the one under test; where both are (the node asks itself), the one on its port.
    fn orient(&self, flow: Flow, event: &Event) -> Option<(Key, Direction)> {
        let is_server = |address: SocketAddr| self.topology.targets.contains(&address);
        let says_response = event.dns.as_ref().map(super::event::DnsHead::is_response);
        let request = match (is_server(flow.dst), is_server(flow.src)) {
            (true, false) => true,
            (false, true) => false,
            (true, true) => !says_response?,
            (false, false) => return None,
        };
        let id = match flow.transport {
            Transport::Udp => event.dns.as_ref().map(|dns| dns.id),
            Transport::Tcp => None,
        };
        let (client, server) = if request { (flow.src, flow.dst) } else { (flow.dst, flow.src) };
        let direction = if request { Direction::Request } else { Direction::Reply };
        Some((Key { transport: flow.transport, client, server, id }, direction))
    }

    fn lookup(&self, key: &Key, event: &Event) -> Option<usize> {
        let exact = self.by_key.get(key).copied();
        let index = if key.transport == Transport::Udp && key.id.is_none() {
            // The id was not captured (a drop without bytes, a quoted header): the newest question on these ends.
            self.by_key
                .iter()
                .filter(|(known, _)| {
                    (known.transport, known.client, known.server) == (key.transport, key.client, key.server)
                })
                .map(|(_, &index)| index)
                .max_by_key(|&index| (self.transactions[index].last_ns(), index))
        } else {
            exact
        };
        index.filter(|&index| self.transactions[index].takes(event))
    }

    fn same_question(&self, seen: &LastSeen, key: &Key) -> bool {
        let known = &self.transactions[seen.transaction].key;
        known.transport == key.transport
            && (known.id == key.id || known.id.is_none() || key.id.is_none())
            // One end stays what it was: nobody translates both.
            && (known.server == key.server || known.client == key.client)
    }

    /// A reply that was first seen under translated addresses nobody had announced (the sighting of the translation is
    /// missing) turns out to be this transaction's: the same packet, the same id.
    fn adopt_orphan(&mut self, orphan: usize, home: usize) {
        let (stray, known) = (&self.transactions[orphan], &self.transactions[home]);
        let all_replies = stray.sightings.iter().all(|s| s.direction == Direction::Reply);
        let same = stray.key.id.is_some() && stray.key.id == known.key.id && stray.key.transport == known.key.transport;
        if !(all_replies && same && stray.key.server == known.key.server) {
            return;
        }
        let moved = std::mem::take(&mut self.transactions[orphan].sightings);
        self.transactions[home].sightings.extend(moved);
        for index in self.by_key.values_mut().filter(|index| **index == orphan) {
            *index = home;
        }
        for seen in self.by_skb.values_mut().filter(|seen| seen.transaction == orphan) {
            seen.transaction = home;
        }
    }
}

#[cfg(test)]
mod tests;
