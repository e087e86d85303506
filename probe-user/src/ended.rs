//! How a packet ends: one enum, everywhere.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a query, or one packet of it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Any DNS response came back.
    Answered,
    /// The kernel or a BPF program freed the packet.
    Dropped,
    /// It left the node through an external, tunnel or encryption device instead of reaching the node's own server.
    Leaked,
    /// Seen, then never again; the direction is named beside it.
    Lost,
    /// Nobody listens: the node answered with an ICMP port unreachable, or a TCP reset.
    PortUnreachable,
    /// It reached the server, which did not answer in time.
    Unanswered,
    /// Not a DNS message.
    Malformed,
    /// Cannot be told; the reason stands beside it.
    Unknown,
}

impl Ended {
    /// The word used in every output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Dropped => "dropped",
            Self::Leaked => "leaked",
            Self::Lost => "lost",
            Self::PortUnreachable => "port_unreachable",
            Self::Unanswered => "unanswered",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which half of a transaction a failure belongs to. It comes from evidence, never from assumption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the pod to the server.
    Request,
    /// From the server to the pod.
    Reply,
    /// Nothing failed, or it is not known where.
    #[default]
    None,
}

impl Direction {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Reply => "reply",
            Self::None => "none",
        }
    }
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
