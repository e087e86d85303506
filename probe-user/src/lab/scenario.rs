//! A scenario as data: a node, its faults, and what `check` must say of it.

mod queries;

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::queries::{Family, Test};
use super::spec::CiliumSpec;
use crate::{
    ended::{Direction, Ended},
    facts::Transport,
    report::Status,
    target::HOST_DNS_V4,
};

/// One row of the table in [`super::scenarios`].
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// One line on what it shows.
    pub description: &'static str,
    pub node: NodeSpec,
    /// What `check` must be told on its command line; on most nodes nothing.
    pub check_args: Vec<String>,
    pub expected: Expected,
}

/// What `check` must say: the verdict, how each query ends, and whether configuration alone knew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Expected {
    pub status: Status,
    pub ended: Option<Ended>,
    pub direction: Direction,
    /// Finding code.
    pub cause: Option<String>,
    /// Queries to the address from pods.
    pub pods: Ends,
    /// Queries to the address from the node's own network; CoreDNS with hostNetwork is there too.
    pub node: Ends,
    /// Configuration alone predicts the verdict. Where it cannot know what is wrong (network policies, firewalls, what
    /// becomes of answers), `check` must say that it disagrees (HDP413).
    pub predicted: bool,
}

/// How queries end, by family and transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ends {
    pub ipv4: Over,
    pub ipv6: Over,
}

impl Ends {
    #[must_use]
    pub const fn all(ended: Ended) -> Self {
        let over = Over::both(ended);
        Self { ipv4: over, ipv6: over }
    }

    /// How a query of that family over that transport ends.
    #[must_use]
    pub const fn of(&self, family: Family, transport: Transport) -> Ended {
        let over = match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        };
        match transport {
            Transport::Udp => over.udp,
            Transport::Tcp => over.tcp,
        }
    }
}

/// How queries end over each transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Over {
    pub udp: Ended,
    pub tcp: Ended,
}

impl Over {
    #[must_use]
    pub const fn both(ended: Ended) -> Self {
        Self { udp: ended, tcp: ended }
    }
}

impl Expected {
    /// Healthy: answered, and nothing to explain.
    #[must_use]
    pub fn healthy() -> Self {
        Self {
            status: Status::Pass,
            ended: Some(Ended::Answered),
            direction: Direction::None,
            cause: None,
            pods: Ends::all(Ended::Answered),
            node: Ends::all(Ended::Answered),
            predicted: true,
        }
    }

    /// Answered, with something to say about it.
    #[must_use]
    pub fn answered(cause: &str) -> Self {
        Self { cause: Some(cause.into()), ..Self::healthy() }
    }

    /// Broken for pods; the node itself is answered.
    #[must_use]
    pub fn fails(ended: Ended, direction: Direction, cause: &str) -> Self {
        Self {
            status: Status::Fail,
            ended: Some(ended),
            direction,
            cause: Some(cause.into()),
            pods: Ends::all(ended),
            ..Self::healthy()
        }
    }

    /// Broken for the node too, in the same way.
    #[must_use]
    pub fn fails_everywhere(ended: Ended, direction: Direction, cause: &str) -> Self {
        Self { node: Ends::all(ended), ..Self::fails(ended, direction, cause) }
    }

    /// No setting that the prediction follows says so.
    #[must_use]
    pub fn unpredicted(self) -> Self {
        Self { predicted: false, ..self }
    }
}

/// A node: its devices, its Cilium, its DNS, its pods and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NodeSpec {
    pub cilium: CiliumSpec,
    pub uplinks: Uplinks,
    /// The addresses of the node's own DNS.
    pub host_dns: Vec<HostDnsAddress>,
    pub upstream: Upstream,
    /// IP TTL (IPv6: hop limit) of the host DNS' answers. Talos sets 2 when it forwards for pods.
    pub reply_ttl: u8,
    /// Host DNS listens on the node's own address too: the control measurement.
    pub also_on_node_address: bool,
    /// A DNS server outside answers on the host DNS' address.
    pub answered_outside: bool,
    pub ipv6: bool,
    pub coredns: CoreDns,
    pub faults: Faults,
}

impl Default for NodeSpec {
    fn default() -> Self {
        Self {
            cilium: CiliumSpec::default(),
            uplinks: Uplinks::One,
            host_dns: vec![HostDnsAddress::default()],
            upstream: Upstream::Up,
            reply_ttl: 2,
            also_on_node_address: false,
            answered_outside: false,
            ipv6: false,
            coredns: CoreDns::Pod,
            faults: Faults::default(),
        }
    }
}

/// Cilium's external devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Uplinks {
    /// `eth0`.
    #[default]
    One,
    /// `eth0` and `eth1`.
    Two,
    /// `tun0`, without an Ethernet header, as a WireGuard device would be.
    Layer3,
}

/// An address of the node's own DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HostDnsAddress {
    pub address: IpAddr,
    /// `RT_SCOPE_*` on its device: 254 host, as Talos sets it; 0 global, as the machine config does. None: absent.
    /// Of an IPv6 address the kernel derives the scope itself.
    pub scope: Option<u8>,
    pub device: AddressDevice,
    /// Host DNS listens there over UDP.
    pub udp: bool,
    /// Host DNS listens there over TCP.
    pub tcp: bool,
}

impl Default for HostDnsAddress {
    fn default() -> Self {
        Self { address: HOST_DNS_V4, scope: Some(254), device: AddressDevice::Lo, udp: true, tcp: true }
    }
}

/// The device that holds a host DNS address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddressDevice {
    #[default]
    Lo,
    /// A device of its own that Cilium does not select, as node-local-dns makes it.
    NodeLocalDns,
}

/// The DNS server outside that host DNS forwards to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    #[default]
    Up,
    /// Nothing listens there: host DNS answers SERVFAIL.
    Down,
    /// It takes so many milliseconds.
    Slow(u32),
}

/// CoreDNS on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CoreDns {
    /// A pod that forwards to the nameserver of its /etc/resolv.conf, which is host DNS.
    #[default]
    Pod,
    /// A pod whose Corefile names the upstream outside.
    BypassesHostDns,
    HostNetwork,
    /// On another node.
    Elsewhere,
}

/// What is wrong besides Cilium's settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Faults {
    /// `net.ipv4.conf.all.rp_filter` is 1.
    pub rp_filter_strict: bool,
    /// The node's ingress firewall lets in `lo` and the external devices only, as Talos' does whose configured pod
    /// subnet is not Cilium's.
    pub firewall: bool,
    /// Frames to the pods wait in a device queue that does not move.
    pub reply_queue_stuck: bool,
    /// `lab exec` and `lab check` run in a cgroup namespace of their own, as a container does by default.
    pub private_cgroup_namespace: bool,
}
