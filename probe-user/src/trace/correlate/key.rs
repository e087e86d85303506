//! The name of a transaction, and which end of a packet is the client's.

use std::net::SocketAddr;

use super::said::{Said, Short};
use crate::{
    ended::Direction,
    facts::Transport,
    trace::{
        Flow,
        event::{Event, Topology},
    },
};

/// The ends of a transaction as its client wrote them, and what tells two questions on the same ends apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) transport: Transport,
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    /// DNS id. Over TCP none at first: the handshake, and the first question makes it its own.
    pub(super) id: Option<u16>,
    /// What stands in its place in a datagram without a header.
    pub(super) short: Option<Short>,
}

impl Key {
    pub(super) const fn ends(self) -> Self {
        Self { id: None, short: None, ..self }
    }

    pub(super) const fn said(self) -> Said {
        Said { id: self.id, short: self.short }
    }

    pub(super) const fn saying(self, said: Said) -> Self {
        Self { id: said.id, short: said.short, ..self }
    }
}

/// Which end is the server: the one under test; where both are (the node asks itself), what the message says it is,
/// and failing that the port under test.
pub(super) fn orient(flow: Flow, event: &Event, topology: &Topology) -> Option<(Key, Direction)> {
    let is_server = |address: SocketAddr| topology.targets.contains(&address);
    let request = match (is_server(flow.dst), is_server(flow.src)) {
        (true, false) => true,
        (false, true) => false,
        (true, true) => !event.dns.as_ref()?.is_response(),
        (false, false) => return None,
    };
    let Said { id, short } = Said::by(event);
    let (client, server) = if request { (flow.src, flow.dst) } else { (flow.dst, flow.src) };
    let direction = if request { Direction::Request } else { Direction::Reply };
    Some((Key { transport: flow.transport, client, server, id, short }, direction))
}
