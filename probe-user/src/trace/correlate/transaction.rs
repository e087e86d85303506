//! What belongs to one query and its answer, and whether another event does.

use super::{Horizon, ending, hops, key::Key};
use crate::{
    ended::Direction,
    facts::Transport,
    trace::{
        Flow, HookKind, PacketTrace,
        event::{DnsHead, Event, Topology},
    },
};

/// A later packet with the same ends and id belongs to another question: resolvers give up long before.
const RETRY_WINDOW_NS: u64 = 15_000_000_000;

/// Names a transaction while it is open; they count up, so that a larger one is newer.
pub(super) type Id = u64;

/// The namespace of an event, and whether it is one that nobody has named.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) netns: u64,
    pub(super) stranger: bool,
}

/// An event that belongs to a transaction.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub(super) event: Event,
    pub(super) netns: u64,
    pub(super) direction: Direction,
}

#[derive(Clone, Debug)]
pub(super) struct Transaction {
    pub(super) key: Key,
    /// Every key it is entered under: its own, and translated ones.
    pub(super) names: Vec<Key>,
    pub(super) sightings: Vec<Sighting>,
    /// The one that had its ends and id before it: another question, or the same one asked anew.
    pub(super) before: Option<Id>,
    /// When its end was last asked for and not known, boot clock, if nothing was seen of it since.
    pub(super) unchanged: Option<u64>,
}

impl Transaction {
    pub(super) fn knows_ends(&self, key: Key) -> bool {
        self.names.iter().any(|name| name.ends() == key.ends())
    }

    pub(super) fn last_ns(&self) -> u64 {
        self.sightings.last().map_or(0, |sighting| sighting.event.time_ns)
    }

    fn answer_arrived(&self) -> bool {
        self.sightings.iter().any(|s| s.direction == Direction::Reply && s.event.hook == HookKind::SocketIn)
    }

    /// Over TCP the handshake's reply is no answer.
    fn tcp_answer_arrived(&self) -> bool {
        let answers = |s: &Sighting| s.event.dns.as_ref().is_some_and(DnsHead::is_response);
        self.sightings
            .iter()
            .any(|s| s.direction == Direction::Reply && s.event.hook == HookKind::SocketIn && answers(s))
    }

    fn closed(&self) -> bool {
        const FIN_OR_RST: u8 = 1 | 4;
        self.sightings.iter().any(|s| s.event.tcp_flags & FIN_OR_RST != 0)
    }

    /// The namespace it was asked from; none: the client's own send was not seen.
    pub(super) fn client(&self) -> Option<u64> {
        let asks = |s: &&Sighting| s.event.hook == HookKind::SocketOut && s.direction == Direction::Request;
        self.sightings.iter().find(asks).map(|s| s.netns)
    }

    /// All of it was seen in a namespace that is nobody's here: another node's pod, for all that is known.
    pub(super) fn is_elsewhere(&self, topology: &Topology) -> bool {
        topology.strangers && self.sightings.iter().all(|s| !topology.is_ours(s.netns))
    }

    /// A message with another question in it than was asked here. Some clients change the case of letters with each try.
    pub(super) fn asked_else(&self, event: &Event) -> bool {
        let Some((name, kind)) = question(event) else { return false };
        let asked =
            self.sightings.iter().filter(|s| s.direction == Direction::Request).find_map(|s| question(&s.event));
        asked.is_some_and(|(asked, of_kind)| !asked.eq_ignore_ascii_case(name) || of_kind != kind)
    }

    /// A socket sends this again: the same question, or a new one on the same ends? Ends repeat between namespaces: what
    /// a client's socket does belongs to the client that asked.
    pub(super) fn takes(&self, event: &Event, place: Place) -> bool {
        if self.key.transport == Transport::Udp && self.asked_else(event) {
            return false;
        }
        if place.stranger && event.hook != HookKind::Drop && self.client().is_some_and(|netns| netns != place.netns) {
            return false;
        }
        if event.hook != HookKind::SocketOut {
            return true;
        }
        let gap = event.time_ns.saturating_sub(self.last_ns());
        match self.key.transport {
            Transport::Udp => gap < RETRY_WINDOW_NS && !self.answer_arrived(),
            Transport::Tcp => {
                let opens = event.tcp_flags & 0x12 == 2; // SYN without ACK
                let asks_again = self.key.id.is_some()
                    && event.dns.as_ref().is_some_and(|dns| !dns.is_response() && Some(dns.id) == self.key.id)
                    && self.tcp_answer_arrived();
                !(asks_again || opens && self.closed()) && gap < 4 * RETRY_WINDOW_NS
            }
        }
    }

    pub(super) fn trace(&self, id: u32, topology: &Topology, horizon: Horizon) -> PacketTrace {
        self.told(ending::ending(&self.sightings, topology, horizon), id, topology)
    }

    pub(super) fn told(&self, ending: ending::Ending, id: u32, topology: &Topology) -> PacketTrace {
        PacketTrace {
            id,
            flow: Flow { src: self.key.client, dst: self.key.server, transport: self.key.transport },
            started_ns: self.sightings.first().map_or(0, |s| s.event.time_ns),
            hops: hops::name(self, topology),
            ended: ending.ended,
            unknown: ending.unknown,
            drop: ending.drop,
            leak: ending.leak,
            lost: ending.lost,
        }
    }
}

/// The first question's name and type, where both were captured.
pub(super) fn question(event: &Event) -> Option<(&str, u16)> {
    let dns = event.dns.as_ref()?;
    Some((dns.qname.as_deref()?, dns.qtype?))
}
