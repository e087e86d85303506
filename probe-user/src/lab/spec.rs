//! What a lab consists of, as data. The topology builds it; the datapath behaves like the Cilium it names.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::facts::{HostRouting, Masquerade, RoutingMode};

/// Where pods live: `ipv4-native-routing-cidr`. Packets to it are not masqueraded.
pub const POD_CIDR: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 244, 0, 0), 16);

/// The Cilium releases that were measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum CiliumVersion {
    #[serde(rename = "1.16.4")]
    V1_16_4,
    #[serde(rename = "1.16.5")]
    V1_16_5,
    #[serde(rename = "1.18.1")]
    V1_18_1,
    #[serde(rename = "1.19.0-pre.0")]
    V1_19_0Pre0,
}

/// Cilium's settings, as a user gives them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CiliumSpec {
    pub version: CiliumVersion,
    pub routing: RoutingMode,
    /// What the settings ask for; the effective mode may fall back to Legacy.
    pub host_routing: HostRouting,
    pub masquerade: Masquerade,
    /// ip-masq-agent with masqLinkLocal false: 169.254/16 keeps the pod's address.
    pub ip_masq_agent: bool,
    pub endpoint_routes: bool,
    /// `local-max-addr-scope`.
    pub address_scope_max: u8,
    /// A network policy denies the pods' egress to the address (reason 133).
    pub policy_denies: bool,
    /// `datapath-mode: netkit-l2`: pods' devices are netkit pairs, and Cilium's programs run inside of them (Linux 6.7).
    pub netkit: bool,
}

impl Default for CiliumSpec {
    fn default() -> Self {
        Self {
            version: CiliumVersion::V1_18_1,
            routing: RoutingMode::Native,
            host_routing: HostRouting::Bpf,
            masquerade: Masquerade::Bpf,
            ip_masq_agent: false,
            endpoint_routes: false,
            address_scope_max: 252,
            policy_denies: false,
            netkit: false,
        }
    }
}

/// What the datapath needs to know of the topology. All devices are in the node's network namespace.
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    pub cilium: CiliumSpec,
    pub node_ipv4: Ipv4Addr,
    pub node_ipv6: Option<Ipv6Addr>,
    /// Cilium's `devices`: one or two.
    pub external: Vec<Device>,
    pub cilium_host: Device,
    pub cilium_net: Device,
    /// cilium_vxlan in tunnel mode.
    pub overlay: Option<Device>,
    pub endpoints: Vec<Endpoint>,
    /// The addresses whose fate is under test (169.254.116.108, ...): those a network policy may deny.
    pub host_dns: Vec<IpAddr>,
    /// The bpffs of the lab, mounted at /sys/fs/bpf in its mount namespace: maps are pinned under `tc/globals`.
    pub bpf_root: PathBuf,
    /// Agent state directory of the lab: `<endpoint id>/ep_config.h`, `globals/node_config.h`.
    pub state_dir: PathBuf,
    /// Where the agent's API socket listens.
    pub agent_socket: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub name: String,
    pub index: u32,
    /// All zero for devices without an Ethernet header (tun).
    pub mac: [u8; 6],
    pub layer3: bool,
}

/// A pod, as Cilium knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub id: u16,
    /// Its device on the node's side.
    pub device: Device,
    /// MAC inside the pod.
    pub mac: [u8; 6],
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub identity: u32,
}
