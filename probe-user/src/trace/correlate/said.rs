//! What a packet says that tells one question from another on the same ends.

use crate::{
    facts::Transport,
    trace::{HookKind, event::Event},
};

/// A DNS id, or what stands in its place; neither where nothing of it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) id: Option<u16>,
    pub(super) short: Option<Short>,
}

/// How a datagram begins that is too short for a DNS header, and can be empty. Who answers such a thing sends its first
/// bytes back, as with an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Short {
    bytes: [u8; 2],
    /// How many of them there are.
    len: u8,
}

impl Short {
    fn of(payload: &[u8]) -> Self {
        let byte = |at: usize| payload.get(at).copied().unwrap_or(0);
        Self { bytes: [byte(0), byte(1)], len: payload.len().min(2) as u8 }
    }

    pub(super) const fn of_id(id: u16) -> Self {
        Self { bytes: id.to_be_bytes(), len: 2 }
    }

    /// The id that it would be; none: too short even for that.
    pub(super) fn id(self) -> Option<u16> {
        (self.len == 2).then(|| u16::from_be_bytes(self.bytes))
    }
}

impl Said {
    pub(super) const NOTHING: Self = Self { id: None, short: None };

    pub(super) const fn id(id: u16) -> Self {
        Self { id: Some(id), short: None }
    }

    pub(super) const fn short(short: Short) -> Self {
        Self { id: None, short: Some(short) }
    }

    pub(super) fn by(event: &Event) -> Self {
        if let Some(dns) = &event.dns {
            return Self::id(dns.id);
        }
        let udp = event.flow.is_some_and(|flow| flow.transport == Transport::Udp);
        match &event.payload {
            Some(payload) if udp => Self::short(Short::of(payload)),
            None if is_no_message(event) && !matches!(event.hook, HookKind::Drop | HookKind::Transmit) => {
                Self::short(Short::of(&[]))
            }
            _ => Self::NOTHING,
        }
    }

    /// The same, or one of the two has nothing to say.
    pub(super) fn agrees(self, other: Self) -> bool {
        self == other || self == Self::NOTHING || other == Self::NOTHING
    }

    pub(super) fn or(self, before: Option<Self>) -> Self {
        if self == Self::NOTHING { before.unwrap_or(self) } else { self }
    }
}

/// Over UDP: bytes that are not even the head of a message, or none.
pub(super) fn is_no_message(event: &Event) -> bool {
    event.dns.is_none()
        && event.icmp_error.is_none()
        && (event.payload.is_some() || event.payload_len == 0)
        && event.flow.is_some_and(|flow| flow.transport == Transport::Udp)
}
