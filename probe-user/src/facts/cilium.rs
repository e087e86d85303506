//! Cilium on this node.

use std::{collections::BTreeMap, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AttachedProgram, Fact};

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
    /// What made it Legacy, one reason each; empty where it is BPF.
    pub legacy_because: Fact<Vec<String>>,
    /// What the settings asked for (`enable-host-legacy-routing`): true is Legacy.
    pub legacy_routing_configured: Fact<bool>,
    /// Native or Tunnel.
    pub routing_mode: Fact<RoutingMode>,
    /// vxlan or geneve.
    pub tunnel_protocol: Fact<String>,
    /// Cilium handles IPv4.
    pub ipv4: Fact<bool>,
    /// Cilium handles IPv6. Where it does not, it skips every IPv6 address of the node.
    pub ipv6: Fact<bool>,
    /// Of either family.
    pub masquerade: Fact<Masquerade>,
    pub ip_masq_agent: Fact<bool>,
    pub endpoint_routes: Fact<bool>,
    /// `local-max-addr-scope`, 252 by default.
    pub address_scope_max: Fact<u8>,
    pub exclude_local_addresses: Fact<Vec<String>>,
    pub devices: Fact<Vec<String>>,
    pub direct_routing_device: Fact<String>,
    pub kube_proxy_replacement: Fact<String>,
    /// Encryption by IPsec.
    pub ipsec: Fact<bool>,
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
    /// `ENDPOINT_MASK_HOST_DELIVERY` (cilium bpf/lib/common.h, 1.16.4 and later). Before, 1 alone was looked at, and
    /// nobody set 2.
    const HOST_DELIVERY: u32 = 1 | 2;

    /// Cilium takes the address for the host's own: what goes to it is passed to the stack.
    #[must_use]
    pub const fn is_host(self) -> bool {
        self.flags & Self::HOST_DELIVERY != 0
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_hosts_namespace_is_delivered_there_too() {
        let is_host = |flags| LxcEntry { ifindex: 0, lxc_id: 0, flags }.is_host();
        assert_eq!([0, 1, 2, 3, 4].map(is_host), [false, true, true, true, false]);
    }
}
