//! The node's pods, and what CoreDNS among them does.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NetnsId;

/// A pod of this node, found through /proc.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pod {
    pub name: String,
    pub namespace: Option<String>,
    pub container: Option<String>,
    pub role: PodRole,
    /// A process inside, whose `/proc/PID/ns/net` is the way in.
    pub pid: u32,
    pub netns: NetnsId,
    pub host_network: bool,
    /// Its device on the node's side.
    pub interface: Option<String>,
    pub addresses: Vec<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PodRole {
    /// A process named coredns runs in it.
    Coredns,
    /// Cilium's health endpoint (`lxc_health`).
    Health,
    Other,
}

/// What a CoreDNS of this node forwards `.` to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Corefile {
    pub pod: String,
    pub path: String,
    /// Targets of the `forward .` lines; a file (`/etc/resolv.conf`) is resolved to its nameservers.
    pub forwards_to: Vec<String>,
    /// Every `forward` of every zone, in the Corefile's order, its imports followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<Forward>,
}

/// A `forward` of a Corefile (coredns plugin/forward).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forward {
    /// `.`, or the zones it is for, with spaces between them.
    pub zone: String,
    /// Whom it asks; a file is resolved to its nameservers.
    pub to: Vec<String>,
    /// `random` where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// It asks over TCP whatever it was asked over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_tcp: bool,
    /// Questions under way at once; more are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u64>,
}
