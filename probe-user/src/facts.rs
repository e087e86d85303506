//! GATHER: what is so on this node, each fact with where it was read, or why it could not be.
//!
//! The types here are plain data, so that judging them needs no root; the readers are in `gather`. Nothing
//! outside `facts`, `query` and `trace` does I/O.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod cilium;
mod fact;
#[cfg(all(feature = "probe", target_os = "linux"))]
mod gather;
mod host_routing;
mod kubernetes;
mod network;
mod pods;
mod programs;
mod talos;
mod walk;

pub use cilium::{Cilium, DropCount, HostRouting, LxcEntry, Masquerade, RoutingMode};
pub use fact::Fact;
pub(crate) use fact::NOT_LOOKED_FOR;
pub use host_routing::{LegacyReasons, is_running, replaces_kube_proxy, would_start_with};
pub use kubernetes::{ClusterPod, Kubernetes};
pub use network::{
    Firewall, FirewallChain, InterfaceAddress, Link, Listener, NetnsId, Network, ResolvConf, Route, Rule, Transport,
    scope_name, scope_of,
};
pub use pods::{Corefile, Forward, Pod, PodRole};
pub use programs::{AttachPoint, AttachedProgram};
pub use talos::{Talos, TalosAddress, TalosCache, TalosHostDns, TalosUpstream};
pub use walk::{Disagreement, disagreements, every};

#[cfg(all(feature = "probe", target_os = "linux"))]
pub use gather::{Cluster, Drops, Sources, cilium_drops, gather, is_on_lo, refresh, translated_sources};

/// Everything that was gathered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Facts {
    pub kernel: Kernel,
    pub network: Network,
    pub listeners: Fact<Vec<Listener>>,
    pub firewall: Fact<Firewall>,
    pub cilium: Cilium,
    pub pods: Fact<Vec<Pod>>,
    pub coredns: Fact<Vec<Corefile>>,
    /// What Talos says, where files with its resources were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub talos: Option<Talos>,
    /// What the Kubernetes API says, where it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Kubernetes>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Kernel {
    pub node_name: Fact<String>,
    /// `uname -r`.
    pub release: Fact<String>,
    /// PRETTY_NAME of the node's os-release.
    pub os: Fact<String>,
    /// Talos' version, `v1.11.2`; `None`: the node does not run Talos.
    pub talos: Fact<Option<String>>,
    /// `none`, `integrity` or `confidentiality`.
    pub lockdown: Fact<String>,
    /// Where the kernel's own BTF was found.
    pub btf: Fact<PathBuf>,
    /// The cgroup v2 hierarchy's real root (directory inode 1).
    pub cgroup_root: Fact<PathBuf>,
    /// Capabilities needed and not held; empty: all are there.
    pub missing_capabilities: Fact<Vec<String>>,
}
