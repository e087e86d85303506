//! Which transaction an event belongs to: the open ones, by what they are known by.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{
    key::{Key, orient},
    said::{Said, Short, is_no_message},
    transaction::{Id, Place, Sighting, Transaction},
};
use crate::{
    ended::Direction,
    facts::Transport,
    trace::{
        HookKind,
        event::{Cover, DeviceRole, Event, Topology},
    },
};

/// How long an `sk_buff` address names the same packet. Within a node a packet lives for microseconds; a neighbour
/// lookup can hold it for a second.
pub(super) const SKB_MEMORY_NS: u64 = 2_000_000_000;

/// Sightings kept of one transaction; a client that sends the same again and again must not fill the memory.
const MAX_SIGHTINGS: usize = 256;

/// Questions under one id on the same ends that are told apart; a client that asks more at once gets the rest as new ones.
const SAME_ID: usize = 8;

/// Where a packet was last seen, by its kernel address.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastSeen {
    transaction: Id,
    pub(super) time_ns: u64,
    direction: Direction,
    said: Said,
}

/// Transactions that have something in common, oldest first; none of the lists is empty.
type Lists = HashMap<Key, VecDeque<Id>>;

#[derive(Debug, Default)]
pub(super) struct Joiner {
    next: Id,
    pub(super) transactions: BTreeMap<Id, Transaction>,
    /// The transaction that owns these ends now; translated ends are entered beside the original ones.
    pub(super) by_key: HashMap<Key, Id>,
    /// The ends without the id, for what does not show it: the transactions on them.
    pub(super) by_ends: Lists,
    /// Datagrams without a header whose answer has not been seen: several may say the same.
    pub(super) waiting: Lists,
    pub(super) by_skb: HashMap<u64, LastSeen>,
}

impl Joiner {
    pub(super) fn place(&mut self, event: Event, topology: &Topology) {
        let known = topology.netns_of(&event).filter(|&netns| topology.is_ours(netns));
        let Some(netns) = known.or_else(|| topology.strangers.then_some(event.netns)) else { return };
        let place = Place { netns, stranger: known.is_none() };
        let fresh = self
            .by_skb
            .get(&event.skb)
            .filter(|seen| event.skb != 0 && event.time_ns.saturating_sub(seen.time_ns) <= SKB_MEMORY_NS)
            .copied();
        let Some((id, direction)) = self.owner(&event, place, fresh, topology) else { return };
        let Some(transaction) = self.transactions.get_mut(&id) else { return };
        let clients = transaction.client().map_or(event.hook == HookKind::SocketOut, |client| client == netns);
        if place.stranger && !clients {
            return; // the packet has left the node, and what becomes of it elsewhere is not seen from here
        }
        transaction.unchanged = None;
        if event.hook == HookKind::Drop {
            self.by_skb.remove(&event.skb); // freed: the next packet there is another one
        } else if event.skb != 0 && event.icmp_error.is_none() {
            // A later sighting need not show what an earlier one of the same packet did.
            let before = fresh.filter(|seen| seen.transaction == id && seen.direction == direction);
            let said = Said::by(&event).or(before.map(|seen| seen.said));
            self.by_skb.insert(event.skb, LastSeen { transaction: id, time_ns: event.time_ns, direction, said });
        }
        if transaction.sightings.len() < MAX_SIGHTINGS {
            transaction.sightings.push(Sighting { event, netns, direction });
        }
    }

    /// The transaction an event belongs to, and the way its packet goes.
    fn owner(
        &mut self,
        event: &Event,
        place: Place,
        fresh: Option<LastSeen>,
        topology: &Topology,
    ) -> Option<(Id, Direction)> {
        let Some((key, direction)) = event.flow.and_then(|flow| orient(flow, event, topology)) else {
            // No ends to go by, or ends that are nobody's: the packet's own identity, or nothing.
            let same = fresh.filter(|seen| seen.said.agrees(Said::by(event)));
            return same.map(|seen| (seen.transaction, seen.direction));
        };
        if place.stranger && event.hook != HookKind::Drop && !is_clients(event, direction) {
            return None;
        }
        // An ICMP error quotes the request; it travels the other way.
        let direction = if event.icmp_error.is_some() { Direction::Reply } else { direction };
        // A socket sends new packets only: whatever was known at that address is gone.
        let travelled = fresh.filter(|seen| event.hook != HookKind::SocketOut && seen.direction == direction);
        let same_packet = travelled.filter(|seen| self.same_question(seen, &key));
        // Where the question is not in it the ends and the id would do, but the packet itself knows better.
        let unnamed = event.dns.as_ref().is_none_or(|dns| dns.qname.is_none());
        if let Some(seen) = same_packet.filter(|seen| unnamed && self.knows_ends(seen.transaction, &key)) {
            return Some((seen.transaction, direction));
        }
        if let Some(id) = self.lookup(&key, event, place, direction) {
            if direction == Direction::Reply && event.icmp_error.is_none() {
                self.no_longer_waits(id);
            }
            if let Some(seen) = fresh.filter(|seen| seen.transaction != id && event.hook != HookKind::SocketOut) {
                self.adopt_orphan(seen.transaction, id);
            }
            return Some((id, direction));
        }
        if let Some(seen) = same_packet.filter(|_| !is_first_place(event, direction, topology)) {
            // The same packet under other addresses: a translation. Its answer comes back to the new ones.
            self.enter(key, seen.transaction);
            return Some((seen.transaction, direction));
        }
        if key.transport == Transport::Tcp
            && let Some(id) = self.on_connection(key, event, place)
        {
            return Some((id, direction));
        }
        if !starts(event) || !begins_here(event, direction, place, topology) {
            return None;
        }
        let id = self.next;
        self.next += 1;
        let before = self.by_key.get(&key).copied();
        let begun = Transaction { key, names: Vec::new(), sightings: Vec::new(), before, unchanged: None };
        self.transactions.insert(id, begun);
        self.enter(key, id);
        if direction == Direction::Reply {
            self.no_longer_waits(id);
        }
        Some((id, direction))
    }

    fn knows_ends(&self, id: Id, key: &Key) -> bool {
        self.transactions.get(&id).is_some_and(|transaction| transaction.knows_ends(*key))
    }

    /// A segment of a connection that is known, with an id that is not: the first question makes the handshake its
    /// own, a further one is a transaction of its own, and what else looks like a message is a piece of one.
    fn on_connection(&mut self, key: Key, event: &Event, place: Place) -> Option<Id> {
        let id = *self.by_ends.get(&key.ends())?.back()?;
        let newest = self.transactions.get_mut(&id)?;
        if !newest.takes(event, place) {
            return None;
        }
        if !is_question(event) {
            return Some(id);
        }
        if newest.key.id.is_some() {
            return None;
        }
        newest.key.id = key.id;
        self.enter(key, id);
        Some(id)
    }

    fn enter(&mut self, key: Key, id: Id) {
        self.by_key.insert(key, id);
        let Some(transaction) = self.transactions.get_mut(&id) else { return };
        if !transaction.knows_ends(key) {
            self.by_ends.entry(key.ends()).or_default().push_back(id);
            if key.short.is_some() {
                self.waiting.entry(key).or_default().push_back(id);
            }
        }
        transaction.names.push(key);
    }

    pub(super) fn forget(&mut self, id: Id) -> Option<Transaction> {
        self.no_longer_waits(id);
        let gone = self.transactions.remove(&id)?;
        for key in &gone.names {
            if self.by_key.get(key) == Some(&id) {
                self.by_key.remove(key);
            }
            take_out(&mut self.by_ends, &key.ends(), id);
        }
        for Sighting { event, .. } in &gone.sightings {
            if self.by_skb.get(&event.skb).is_some_and(|seen| seen.transaction == id) {
                self.by_skb.remove(&event.skb);
            }
        }
        Some(gone)
    }

    /// Its answer has been seen.
    fn no_longer_waits(&mut self, id: Id) {
        let Some(transaction) = self.transactions.get(&id) else { return };
        for key in transaction.names.iter().filter(|key| key.short.is_some()) {
            take_out(&mut self.waiting, key, id);
        }
    }

    /// The open transaction that an event speaks of.
    fn lookup(&self, key: &Key, event: &Event, place: Place, direction: Direction) -> Option<Id> {
        let asks = event.hook == HookKind::SocketOut && event.flow.is_some_and(|flow| flow.dst == key.server);
        if asks && is_no_message(event) {
            return None; // something new, whatever went before on these ends
        }
        let answers = direction == Direction::Reply && event.icmp_error.is_none();
        let mut id = if key.transport == Transport::Udp && answers {
            self.answered_by(key, event)?
        } else if key.said() == Said::NOTHING {
            self.only_one(key, event)?
        } else {
            *self.by_key.get(key)?
        };
        for _ in 0..SAME_ID {
            let transaction = self.transactions.get(&id)?;
            if transaction.takes(event, place) {
                return Some(id);
            }
            id = transaction.before.filter(|_| transaction.asked_else(event))?;
        }
        None
    }

    /// What a datagram answers. One without a header answers another one that began alike, and of several the one that
    /// has waited longest; or the question whose id it begins with.
    fn answered_by(&self, key: &Key, event: &Event) -> Option<Id> {
        let waits = |short| self.waiting.get(&key.saying(Said::short(short)))?.front().copied();
        match (key.id, key.short) {
            (Some(id), _) => self.by_key.get(key).copied().or_else(|| waits(Short::of_id(id))),
            (None, Some(short)) => waits(short).or_else(|| match short.id() {
                Some(id) => self.by_key.get(&key.saying(Said::id(id))).copied(),
                None => self.only_one(key, event),
            }),
            (None, None) => self.only_one(key, event),
        }
    }

    /// Where nothing tells which question is meant (a quoted header, an empty answer), it is the only one on these ends, if
    /// there is only one. Over TCP it is the newest: a connection's segments need not begin with an id.
    fn only_one(&self, key: &Key, event: &Event) -> Option<Id> {
        let on_ends = self.by_ends.get(&key.ends())?;
        // A drop without bytes is of a packet that is known by its address, or not at all; and so is one of a few bytes
        // that an earlier sighting had.
        let tells_nothing =
            event.hook == HookKind::Drop || event.payload.is_none() && (1..12).contains(&event.payload_len);
        match key.transport {
            Transport::Tcp => on_ends.back().copied(),
            Transport::Udp => on_ends.front().filter(|_| on_ends.len() == 1 && !tells_nothing).copied(),
        }
    }

    fn same_question(&self, seen: &LastSeen, key: &Key) -> bool {
        let Some(Transaction { key: known, .. }) = self.transactions.get(&seen.transaction) else { return false };
        let same = match key.transport {
            // One packet says one thing: what the question did, where nothing of it has been seen yet.
            Transport::Udp => seen.said.or(Some(known.said())).agrees(key.said()),
            Transport::Tcp => known.id == key.id || known.id.is_none() || key.id.is_none(),
        };
        known.transport == key.transport
            && same
            // One end stays what it was: nobody translates both.
            && (known.server == key.server || known.client == key.client)
    }

    /// A reply that was first seen under translated addresses nobody had announced (the sighting of the translation is
    /// missing) turns out to be this transaction's: the same packet, the same id.
    fn adopt_orphan(&mut self, orphan: Id, home: Id) {
        let (Some(stray), Some(known)) = (self.transactions.get(&orphan), self.transactions.get(&home)) else { return };
        let all_replies = stray.sightings.iter().all(|s| s.direction == Direction::Reply);
        let said = stray.key.said();
        let same = said != Said::NOTHING && said == known.key.said() && stray.key.transport == known.key.transport;
        if !(all_replies && same && stray.key.server == known.key.server) {
            return;
        }
        let Some(stray) = self.forget(orphan) else { return };
        if let Some(known) = self.transactions.get_mut(&home) {
            known.unchanged = None;
            known.sightings.extend(stray.sightings);
            known.sightings.sort_by_key(|s| s.event.time_ns);
        }
        for key in stray.names {
            self.enter(key, home);
        }
        self.no_longer_waits(home);
        for seen in self.by_skb.values_mut().filter(|seen| seen.transaction == orphan) {
            seen.transaction = home;
        }
    }
}

fn take_out(lists: &mut Lists, key: &Key, id: Id) {
    let Some(list) = lists.get_mut(key) else { return };
    if let Some(at) = list.iter().position(|&other| other == id) {
        list.remove(at);
    }
    if list.is_empty() {
        lists.remove(key);
    }
}

/// A standard query (opcode 0) with its name.
fn is_question(event: &Event) -> bool {
    event.dns.as_ref().is_some_and(|dns| dns.flags & 0xf800 == 0 && dns.qname.is_some())
}

/// Whether a transaction may begin with this event. An error or a drop is about one that is known, and a connection's
/// acknowledgements (of its first segment too, which are sent again and again) and its end belong to what went over it,
/// which may have been handed out already.
fn starts(event: &Event) -> bool {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    let tcp = event.flow.is_some_and(|flow| flow.transport == Transport::Tcp);
    event.icmp_error.is_none()
        && event.hook != HookKind::Drop
        && (!tcp || event.tcp_flags & (SYN | ACK) == SYN || is_question(event))
}

/// A query straight from its socket: a pod's at the node's end of its device, the node's own on `lo`. Nothing lies between
/// that could translate it (the sockets' hook runs after netfilter), so other ends at a known address are another
/// packet's: the kernel lets go of many without a word, and where the sockets' hook is missing this is where the next one
/// is first seen.
fn is_first_place(event: &Event, direction: Direction, topology: &Topology) -> bool {
    let role = topology.device(event.ifindex).map(|device| device.role);
    direction == Direction::Request
        && matches!(
            (event.hook, role),
            (HookKind::Ingress, Some(DeviceRole::Pod)) | (HookKind::Egress, Some(DeviceRole::Loopback))
        )
}

/// A client's end of it: its question out, its answer in.
fn is_clients(event: &Event, direction: Direction) -> bool {
    matches!(
        (event.hook, direction),
        (HookKind::SocketOut, Direction::Request) | (HookKind::SocketIn, Direction::Reply)
    )
}

/// While events are lost, only what is certainly a beginning begins a transaction: a client's own send, or a packet from
/// outside the node. The rest of a query whose beginning was lost, and was counted as lost, is not told as another one.
fn begins_here(event: &Event, direction: Direction, place: Place, topology: &Topology) -> bool {
    if place.stranger {
        return event.hook == HookKind::SocketOut;
    }
    let Cover { complete, sockets, .. } = topology.cover;
    let outside = || topology.device(event.ifindex).is_some_and(|device| device.role.leaves_the_node());
    complete
        || !sockets
        || direction == Direction::Request
            && (event.hook == HookKind::SocketOut || event.hook == HookKind::Ingress && outside())
}
