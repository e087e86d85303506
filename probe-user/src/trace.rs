//! FOLLOW: the packets themselves. Events come off the kernel, become hops, and hops become one trace per packet.

pub mod btf;
pub mod cilium_reasons;
pub mod correlate;
pub mod decode;
pub mod event;
pub mod filter;
pub mod pcapng;
pub mod pods;
pub mod reorder;
pub mod summary;
pub mod topology;
pub mod transaction;
pub mod truncated;

#[cfg(all(feature = "probe", target_os = "linux"))]
mod attach;
#[cfg(all(feature = "probe", target_os = "linux"))]
mod clsact;
#[cfg(all(feature = "probe", target_os = "linux"))]
pub mod guardian;
#[cfg(all(feature = "probe", target_os = "linux"))]
pub mod hooking;
#[cfg(all(feature = "probe", target_os = "linux"))]
mod links;
#[cfg(all(feature = "probe", target_os = "linux"))]
pub(crate) mod load;
#[cfg(all(feature = "probe", target_os = "linux"))]
mod read;
#[cfg(all(feature = "probe", target_os = "linux"))]
pub mod tracer;

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ended::{Direction, Ended},
    facts::Transport,
};

/// A place in the kernel where a packet is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HookKind {
    /// cgroup_skb egress: a socket sent it.
    SocketOut,
    /// cgroup_skb ingress: it reached a socket's filter.
    SocketIn,
    /// tcx (or clsact) at the head of a device's ingress.
    Ingress,
    /// tcx (or clsact) at the head of a device's egress: before Cilium's NAT.
    Egress,
    /// tp_btf net_dev_start_xmit: after it.
    Transmit,
    /// tp_btf kfree_skb.
    Drop,
}

impl HookKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SocketOut => "socket out",
            Self::SocketIn => "socket in",
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Transmit => "transmit",
            Self::Drop => "drop",
        }
    }
}

/// The two ends of a packet as its first sighting shows them, and what joins it to its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Flow {
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub transport: Transport,
}

impl Flow {
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, transport: self.transport }
    }
}

/// One sighting of a packet, with its interface and namespace named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hop {
    /// Microseconds since the trace's `started_ns`.
    pub t_us: u64,
    pub hook: HookKind,
    /// Device, where the hook has one.
    pub interface: Option<String>,
    /// `node`, the pod's name, or `netns:INODE`.
    pub netns: String,
    /// Of the query, or of its answer.
    pub direction: Direction,
    pub src: SocketAddr,
    pub dst: SocketAddr,
    /// What changed, or what this hop means: "masqueraded", "the node's DNS socket", ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One transaction: the query, and its answer where one came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PacketTrace {
    pub id: u32,
    pub flow: Flow,
    /// Nanoseconds, boot clock, of the first hop.
    pub started_ns: u64,
    pub hops: Vec<Hop>,
    pub ended: Ended,
    /// Why it is unknown, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<Drop>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leak: Option<Leak>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drop {
    /// The kernel's name: `TC_INGRESS`, `NO_SOCKET`, `SOCKET_RCVBUFF`, ...
    pub reason: String,
    /// Interface and namespace: "lxc5f2a1 on the node".
    pub r#where: String,
    pub direction: Direction,
    /// Cilium's own reason, from the difference of its metrics around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cilium_reason: Option<CiliumReason>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CiliumReason {
    pub code: u8,
    /// "FIB lookup failed".
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Leak {
    pub interface: String,
    /// Source address on the wire; none: unknown.
    pub r#as: Option<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// "eth0 egress": hook and interface of the last sighting.
    pub last_hop: String,
    pub direction: Direction,
}

/// One attach point, as the report lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hook {
    pub name: String,
    pub interface: Option<String>,
    pub attached: bool,
    /// Why not, and what that costs; or how (clsact where tcx is missing).
    pub reason: Option<String>,
    /// Boot-clock nanoseconds from which its silence means something.
    #[serde(skip)]
    pub since_ns: u64,
}

/// Events of the check's own window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventCounts {
    pub seen: u64,
    pub lost: u64,
}
