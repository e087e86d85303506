//! ASK: real questions, from the node and from inside the pods' namespaces.

#[cfg(all(feature = "probe", target_os = "linux"))]
mod ask;
#[cfg(all(feature = "probe", target_os = "linux"))]
mod connect;
#[cfg(all(feature = "probe", target_os = "linux"))]
mod outcome;
#[cfg(all(feature = "probe", target_os = "linux"))]
mod plan;
#[cfg(all(feature = "probe", target_os = "linux"))]
mod socket;
mod stats;
mod vantage;
#[cfg(all(feature = "probe", target_os = "linux"))]
mod wire;

use std::{net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ended::Ended,
    facts::{NetnsId, Transport},
};

#[cfg(all(feature = "probe", target_os = "linux"))]
pub use self::{
    ask::{Evidence, Observer, Question, RETRANSMIT_AFTER, TIMEOUT, Unobserved, ask},
    plan::{Ask, CONCURRENCY, QNAME, QTYPE, UNCACHED_QTYPE, Wanted, ask_all, plan},
};
pub use self::{
    stats::{RttPercentiles, Summary, summarize},
    vantage::{NamedVantage, UNKNOWN_NETNS, vantages},
};

/// Asked once per address as well, to see past the cache: a diagnostic name that Akamai publishes for anybody to ask,
/// whose answer names the resolver that asked and so may not be kept for long. A fixed name: random ones would never be
/// cached either, but upstreams take them for an attack. Its answers differ with the upstream resolver's address and
/// are not to be compared (HDP411).
pub const UNCACHED_QNAME: &str = "whoami.ds.akahelp.net";

/// The note of a question that the check's own budget ended (HDP009).
pub const OUT_OF_TIME: &str = "the check ran out of its time budget";

/// Where a question is asked from: a namespace, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vantage {
    /// `node`, `node@127.0.0.53`, the pod's name, `lxc_health`, or the name given with `--vantage`.
    pub name: String,
    pub kind: VantageKind,
    /// File to `setns` into; none: the namespace we are in.
    pub netns_path: Option<PathBuf>,
    pub netns: NetnsId,
    /// Its device on the node's side (`lxc*`).
    pub interface: Option<String>,
}

/// Pod vantages decide, CoreDNS's own first; the node's alone never passes a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VantageKind {
    Coredns,
    /// Named with `--vantage`.
    Named,
    Pod,
    Health,
    /// CoreDNS with hostNetwork: its path is the node's.
    CorednsOnHost,
    Node,
    /// The node, asking its own listener on 127.0.0.53.
    NodeLoopback,
}

impl VantageKind {
    /// The word used in every output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Coredns => "coredns",
            Self::Named => "named",
            Self::Pod => "pod",
            Self::Health => "health",
            Self::CorednsOnHost => "coredns_on_host",
            Self::Node => "node",
            Self::NodeLoopback => "node_loopback",
        }
    }

    /// Its path is a pod's: through `lxc*` and Cilium.
    #[must_use]
    pub const fn is_pod(self) -> bool {
        matches!(self, Self::Coredns | Self::Named | Self::Pod | Self::Health)
    }
}

/// One question and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Query {
    pub vantage: String,
    pub vantage_kind: VantageKind,
    /// Whom it was put to.
    pub address: SocketAddr,
    pub transport: Transport,
    pub qname: String,
    pub qtype: String,
    /// The asking socket's own address: with `address` it is the flow the trace knows it by.
    pub source: Option<SocketAddr>,
    /// DNS id, as it went out (a retransmission keeps it); 0: nothing was sent.
    pub id: u16,
    pub ended: Ended,
    /// `NOERROR`, `SERVFAIL`, ... of the response.
    pub rcode: Option<String>,
    /// TC was set in the response.
    #[serde(default)]
    pub truncated: bool,
    pub answers: Vec<String>,
    /// From the first send to the response, in microseconds. Over TCP the first send is the SYN: two round trips.
    pub rtt_us: Option<u64>,
    /// Why it ended as it did, where the answer itself does not say: "timed out after 5 s", "connection refused".
    pub note: Option<String>,
    /// Ids of the traces that belong to it.
    pub traces: Vec<u32>,
}

impl Query {
    /// `coredns-1, udp to 169.254.116.108:53:`, how a line about this query begins.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}, {} to {}:", self.vantage, self.transport, self.address)
    }
}
