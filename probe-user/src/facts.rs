//! GATHER: what is so on this node, each fact with where it was read, or why it could not be.
//!
//! The types here are plain data, so that judging them needs no root; the readers are in `gather`. Nothing
//! outside `facts`, `query` and `trace` does I/O.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(all(feature = "probe", target_os = "linux"))]
mod gather;
mod kubernetes;
mod programs;
mod talos;

pub use kubernetes::{ClusterPod, Kubernetes};
pub use programs::{AttachPoint, AttachedProgram};
pub use talos::{Talos, TalosAddress, TalosCache, TalosHostDns, TalosUpstream};

#[cfg(all(feature = "probe", target_os = "linux"))]
pub use gather::{Cluster, Drops, Sources, cilium_drops, gather, is_on_lo, refresh, translated_sources};

/// One fact: known, with its source (and what other sources say, where they differ), or unavailable and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Fact<T> {
    // First, because serde takes the first variant that fits, and a `Fact<Option<T>>` without "known" would fit `Known`.
    Unavailable {
        #[serde(rename = "unavailable")]
        why: String,
        source: String,
    },
    Known {
        #[serde(rename = "known")]
        value: T,
        source: String,
        /// Other sources that say something else, as text.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        others: Vec<String>,
    },
}

impl<T> Fact<T> {
    pub fn known(value: T, source: impl Into<String>) -> Self {
        Self::Known { value, source: source.into(), others: Vec::new() }
    }

    pub fn unavailable(why: impl std::fmt::Display, source: impl Into<String>) -> Self {
        Self::Unavailable { why: why.to_string(), source: source.into() }
    }

    /// The value, or `None` where it is not known.
    #[must_use]
    pub const fn get(&self) -> Option<&T> {
        match self {
            Self::Known { value, .. } => Some(value),
            Self::Unavailable { .. } => None,
        }
    }

    /// Why it is not known.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Known { .. } => None,
            Self::Unavailable { why, .. } => Some(why),
        }
    }

    #[must_use]
    pub fn source(&self) -> &str {
        match self {
            Self::Known { source, .. } | Self::Unavailable { source, .. } => source,
        }
    }

    /// What else was said of it: other sources that differ, parts that could not be read.
    #[must_use]
    pub fn others(&self) -> &[String] {
        match self {
            Self::Known { others, .. } => others,
            Self::Unavailable { .. } => &[],
        }
    }

    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Self::Known { value, source, others } => Fact::Known { value: f(value), source, others },
            Self::Unavailable { why, source } => Fact::Unavailable { why, source },
        }
    }
}

impl<T> Default for Fact<T> {
    fn default() -> Self {
        Self::unavailable("not looked for", "")
    }
}

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

/// Identity of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct NetnsId {
    /// Device of the nsfs inode.
    pub dev: u64,
    pub inode: u64,
    /// `SO_NETNS_COOKIE`; what the eBPF programs report. 0 where the kernel has none (before 5.14).
    pub cookie: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Network {
    /// The node's own network namespace (where the probe runs: hostNetwork).
    pub netns: Fact<NetnsId>,
    pub links: Fact<Vec<Link>>,
    pub addresses: Fact<Vec<InterfaceAddress>>,
    /// Routes of any table to the targets, the default routes, and the rest of the main table, up to 200 routes.
    pub routes: Fact<Vec<Route>>,
    /// Policy rules other than the kernel's three.
    pub rules: Fact<Vec<Rule>>,
    /// Effective rp_filter by interface: the higher of `all` and the interface's own. 0 off, 1 strict, 2 loose.
    pub rp_filter: Fact<BTreeMap<String, u8>>,
    /// `net.ipv4.ip_forward` of the node's namespace.
    pub ip_forward: Fact<bool>,
    /// Whom the node itself asks: its /etc/resolv.conf.
    pub resolv_conf: Fact<ResolvConf>,
    /// Whom pods with dnsPolicy Default (CoreDNS, usually) are told to ask: the kubelet's resolvConf.
    pub pod_resolv_conf: Fact<ResolvConf>,
}

/// A resolv.conf(5), as far as it is of interest here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResolvConf {
    pub nameservers: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `IFLA_INFO_KIND`: veth, vxlan, netkit, wireguard, bond, vlan, tun, dummy; none for hardware.
    pub kind: Option<String>,
    /// Ethernet address as text; none for devices without one (tun, wireguard).
    pub mac: Option<String>,
    pub up: bool,
    /// Index of the peer or the device below (`IFLA_LINK`), in namespace `peer_nsid` or, where that is none, here.
    pub peer_index: Option<u32>,
    /// `IFLA_LINK_NETNSID`.
    pub peer_nsid: Option<i32>,
    /// Index of the bond or bridge above it (`IFLA_MASTER`).
    pub master: Option<u32>,
    /// No Ethernet header in front of the packet (`ARPHRD_NONE` and the like).
    pub layer3: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceAddress {
    pub interface: String,
    pub address: IpAddr,
    pub prefix_len: u8,
    /// `RT_SCOPE_*` as the kernel says it: 0 global, 200 site, 253 link, 254 host.
    pub scope: u8,
    /// Names of the `IFA_F_*` flags that are set: permanent, tentative, deprecated, dadfailed, ...
    pub flags: Vec<String>,
}

/// The name of an address scope, as `ip` and Cilium write it.
#[must_use]
pub fn scope_name(scope: u8) -> String {
    match scope {
        0 => "global".into(),
        200 => "site".into(),
        253 => "link".into(),
        254 => "host".into(),
        255 => "nowhere".into(),
        other => other.to_string(),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Route {
    /// `address/len`; `0.0.0.0/0` and `::/0` are the defaults.
    pub destination: String,
    /// unicast, local, blackhole, unreachable, prohibit, ...
    pub kind: String,
    /// 254 main, 255 local.
    pub table: u32,
    pub interface: Option<String>,
    pub gateway: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rule {
    pub priority: u32,
    pub text: String,
}

/// A socket that listens on the port under test, in the node's namespace (sock_diag).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Listener {
    pub local: SocketAddr,
    pub transport: Transport,
    /// `idiag_cookie`: what `bpf_get_socket_cookie` says of the same socket.
    pub cookie: u64,
    /// The process that holds it; none is not an error: it may be invisible from here.
    pub process: Option<String>,
    pub pid: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Udp,
    Tcp,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

/// What the node's packet filter (nftables) has that may touch DNS to the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Firewall {
    /// nftables' tables: `family name`. iptables-nft has its own among them.
    pub tables: Vec<String>,
    /// Base chains that hook input (or prerouting) and may drop: `family table chain policy`.
    pub chains: Vec<FirewallChain>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FirewallChain {
    pub family: String,
    pub table: String,
    pub chain: String,
    /// prerouting, input, forward, output, postrouting, ingress.
    pub hook: String,
    pub priority: i32,
    /// The policy is drop.
    pub drops_by_default: bool,
    /// Rules in it that drop or reject.
    pub dropping_rules: u32,
}

/// Cilium as its agent, its maps and its files say it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Cilium {
    /// `1.18.1`, from `.cilium.msg`.
    pub version: Fact<String>,
    /// `.cilium.state`: Ok, Warning, Failure, ...
    pub state: Fact<String>,
    /// Where its settings were read from, what it was started with first: a directory of its process, one that was
    /// named.
    pub settings: Fact<Vec<String>>,
    /// Effective host routing.
    pub host_routing: Fact<HostRouting>,
    /// What the settings asked for (`enable-host-legacy-routing`): true is Legacy.
    pub legacy_routing_configured: Fact<bool>,
    /// Native or Tunnel.
    pub routing_mode: Fact<RoutingMode>,
    /// vxlan or geneve.
    pub tunnel_protocol: Fact<String>,
    pub masquerade: Fact<Masquerade>,
    pub ip_masq_agent: Fact<bool>,
    pub endpoint_routes: Fact<bool>,
    /// `local-max-addr-scope`, 252 by default.
    pub address_scope_max: Fact<u8>,
    pub exclude_local_addresses: Fact<Vec<String>>,
    pub devices: Fact<Vec<String>>,
    pub direct_routing_device: Fact<String>,
    pub kube_proxy_replacement: Fact<String>,
    /// tcx or tc.
    pub attach_mode: Fact<String>,
    /// veth, netkit, netkit-l2.
    pub datapath_mode: Fact<String>,
    pub local_redirect_policy: Fact<bool>,
    pub host_firewall: Fact<bool>,
    /// Compiled with the one-device shortcut (`ENABLE_SKIP_FIB` in an endpoint's `ep_config.h`).
    pub skip_fib: Fact<bool>,
    /// Per target address: what `cilium_lxc` holds; `None` is "no entry".
    pub lxc: BTreeMap<IpAddr, Fact<Option<LxcEntry>>>,
    /// Per target address: the identity of the longest match in the ipcache; `None` is "no entry" (world).
    pub ipcache: BTreeMap<IpAddr, Fact<Option<u32>>>,
    /// Per target address: in `cilium_ipmasq_v4`, so that a leak keeps the pod's address.
    pub not_masqueraded: BTreeMap<IpAddr, Fact<bool>>,
    /// Per target address: entries of `cilium_snat_v4_external` towards it, the trace of past leaks.
    pub snat_entries: BTreeMap<IpAddr, Fact<u32>>,
    /// `cilium_metrics` drops by reason and direction, summed over lines and CPUs, before the queries.
    pub drops_before: Fact<Vec<DropCount>>,
    /// The same after them.
    pub drops_after: Fact<Vec<DropCount>>,
    /// The kernel's id of the map that `drops_before` was read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drops_map: Option<u32>,
    /// Who is on the devices that packets pass: interface by interface, hook by hook, in the order in which they run.
    pub programs: Fact<Vec<AttachedProgram>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HostRouting {
    #[serde(rename = "BPF")]
    Bpf,
    Legacy,
}

impl HostRouting {
    /// As Cilium writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bpf => "BPF",
            Self::Legacy => "Legacy",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RoutingMode {
    Native,
    Tunnel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Masquerade {
    #[serde(rename = "BPF")]
    Bpf,
    #[serde(rename = "iptables")]
    Iptables,
    Disabled,
}

/// A value of `cilium_lxc` (`struct endpoint_info`, cilium bpf/lib/common.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LxcEntry {
    pub ifindex: u32,
    pub lxc_id: u16,
    /// 1 `ENDPOINT_F_HOST`, 2 `ENDPOINT_F_ATHOSTNS`.
    pub flags: u32,
}

impl LxcEntry {
    /// Cilium takes the address for the host's own.
    #[must_use]
    pub const fn is_host(self) -> bool {
        self.flags & 1 != 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DropCount {
    /// `DROP_*` as a positive number (cilium pkg/monitor/api/drop.go).
    pub reason: u8,
    /// 1 ingress, 2 egress.
    pub direction: u8,
    pub packets: u64,
}

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
