//! The node's network: devices, addresses, routes, who listens, who filters.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fact;

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
    /// Effective rp_filter by interface: the higher of `all` and the interface's own. 0 off, 1 strict, 2 loose. `all` and
    /// `default`, which interfaces to come begin with, are among them as they are set.
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

/// A scope by its number or its name, as `local-max-addr-scope` takes it.
#[must_use]
pub fn scope_of(text: &str) -> Option<u8> {
    text.parse().ok().or_else(|| (0..=u8::MAX).find(|&scope| scope_name(scope) == text))
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
    /// `SO_BINDTODEVICE`: it takes what comes in on this device alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
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
    /// Those of them that reject: whoever asked is told.
    #[serde(default)]
    pub rejecting_rules: u32,
}
