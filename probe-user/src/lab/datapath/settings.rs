//! From a user's settings to what the datapath does. Pure.

use std::net::Ipv4Addr;

use hostdns_probe_ebpf::datapath_abi::{Config, External};

use super::{Error, addresses::Address};
use crate::{
    facts::{HostRouting, Masquerade, RoutingMode},
    lab::spec::{CiliumSpec, CiliumVersion, DatapathConfig, Device, POD_CIDR},
};

/// The host routing that Cilium ends up with: it falls back to Legacy by itself where iptables masquerades (cilium
/// daemon/cmd/kube_proxy_replacement.go). Masquerading switched off altogether is no reason to.
#[must_use]
pub fn effective_host_routing(cilium: &CiliumSpec) -> HostRouting {
    match (cilium.host_routing, cilium.masquerade) {
        (HostRouting::Legacy, _) | (_, Masquerade::Iptables) => HostRouting::Legacy,
        (HostRouting::Bpf, Masquerade::Bpf | Masquerade::Disabled) => HostRouting::Bpf,
    }
}

/// The one device of ENABLE_SKIP_FIB (cilium pkg/datapath/linux/config/config.go), where it applies.
#[must_use]
pub(crate) fn shortcut(config: &DatapathConfig) -> Option<&Device> {
    match config.external.as_slice() {
        [only] if effective_host_routing(&config.cilium) == HostRouting::Bpf && !config.cilium.endpoint_routes => {
            Some(only)
        }
        _ => None,
    }
}

/// The settings as the eBPF side wants them.
pub(super) fn abi(config: &DatapathConfig, addresses: &[Address]) -> Result<Config, Error> {
    let cilium = &config.cilium;
    if config.external.is_empty() || config.external.len() > 2 {
        return Err(Error::Devices(config.external.len()));
    }
    let mut external = [External::default(); 2];
    for (slot, device) in external.iter_mut().zip(&config.external) {
        *slot = External {
            ifindex: device.index,
            layer3: device.layer3.into(),
            ipv4: masquerade_address(device, addresses).unwrap_or(config.node_ipv4).octets(),
        };
    }
    let shortcut = shortcut(config);
    let (cidr, length) = POD_CIDR;
    let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
    Ok(Config {
        bpf_host_routing: (effective_host_routing(cilium) == HostRouting::Bpf).into(),
        unknown_to_stack: (cilium.routing == RoutingMode::Tunnel && cilium.version <= CiliumVersion::V1_16_4).into(),
        fib_miss_to_stack: (cilium.version >= CiliumVersion::V1_19_0Pre0).into(),
        shortcut_ifindex: shortcut.map_or(0, |device| device.index),
        shortcut_layer3: shortcut.is_some_and(|device| device.layer3).into(),
        masquerade: (cilium.masquerade == Masquerade::Bpf).into(),
        pod_cidr: cidr.octets(),
        pod_cidr_mask: mask.to_be_bytes(),
        // Read from `cilium_metrics` of a 1.18.1 agent: a9 02 51 05 02 00 00 00. The others were not seen to drop.
        fib_drop_line: if cilium.version == CiliumVersion::V1_18_1 { 1361 } else { 0 },
        external,
    })
}

/// Cilium masquerades to the address of the device that the packet leaves by.
fn masquerade_address(device: &Device, addresses: &[Address]) -> Option<Ipv4Addr> {
    addresses.iter().find_map(|address| match address.ip {
        std::net::IpAddr::V4(ip) if address.index == device.index && address.scope == 0 => Some(ip),
        _ => None,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn device(name: &str, index: u32) -> Device {
        Device { name: name.into(), index, mac: [2, 0, 0, 0, 0, index as u8], layer3: false }
    }

    pub(crate) fn config(cilium: CiliumSpec, external: u32) -> DatapathConfig {
        DatapathConfig {
            cilium,
            node_ipv4: Ipv4Addr::new(192, 168, 77, 2),
            node_ipv6: None,
            external: (0..external).map(|n| device(&format!("eth{n}"), 2 + n)).collect(),
            cilium_host: device("cilium_host", 10),
            cilium_net: device("cilium_net", 11),
            overlay: None,
            endpoints: Vec::new(),
            host_dns: Vec::new(),
            bpf_root: "/nonexistent".into(),
            state_dir: "/nonexistent".into(),
            agent_socket: "/nonexistent".into(),
        }
    }

    #[test]
    fn host_routing_falls_back_for_iptables_alone() {
        let bpf = CiliumSpec::default();
        assert_eq!(effective_host_routing(&bpf), HostRouting::Bpf);
        let legacy = CiliumSpec { host_routing: HostRouting::Legacy, ..bpf.clone() };
        assert_eq!(effective_host_routing(&legacy), HostRouting::Legacy);
        let iptables = CiliumSpec { masquerade: Masquerade::Iptables, ..bpf.clone() };
        assert_eq!(effective_host_routing(&iptables), HostRouting::Legacy);
        let disabled = CiliumSpec { masquerade: Masquerade::Disabled, ..bpf };
        assert_eq!(effective_host_routing(&disabled), HostRouting::Bpf);
    }

    #[test]
    fn the_shortcut_needs_one_device_bpf_routing_and_no_endpoint_routes() {
        let bpf = CiliumSpec::default();
        assert_eq!(shortcut(&config(bpf.clone(), 1)).map(|d| d.index), Some(2));
        assert_eq!(shortcut(&config(bpf.clone(), 2)), None);
        assert_eq!(shortcut(&config(CiliumSpec { endpoint_routes: true, ..bpf.clone() }, 1)), None);
        assert_eq!(shortcut(&config(CiliumSpec { masquerade: Masquerade::Iptables, ..bpf }, 1)), None);
    }

    #[test]
    fn only_tunnel_mode_up_to_1_16_4_passes_unknown_addresses() {
        let passes = |version, routing| {
            let cilium = CiliumSpec { version, routing, ..CiliumSpec::default() };
            abi(&config(cilium, 1), &[]).expect("one device").unknown_to_stack == 1
        };
        assert!(passes(CiliumVersion::V1_16_4, RoutingMode::Tunnel));
        assert!(!passes(CiliumVersion::V1_16_4, RoutingMode::Native));
        assert!(!passes(CiliumVersion::V1_16_5, RoutingMode::Tunnel));
    }

    #[test]
    fn pods_are_masqueraded_to_the_address_of_the_device() {
        let second = Address { index: 3, ip: Ipv4Addr::new(192, 168, 78, 2).into(), scope: 0 };
        let settings = abi(&config(CiliumSpec::default(), 2), &[second]).expect("two devices");
        assert_eq!(settings.external[0].ipv4, [192, 168, 77, 2], "none on the device: the node's");
        assert_eq!(settings.external[1].ipv4, [192, 168, 78, 2]);
        assert_eq!(settings.pod_cidr_mask, [255, 255, 0, 0]);
    }

    #[test]
    fn devices_are_one_or_two() {
        assert!(matches!(abi(&config(CiliumSpec::default(), 0), &[]), Err(Error::Devices(0))));
        assert!(matches!(abi(&config(CiliumSpec::default(), 3), &[]), Err(Error::Devices(3))));
    }
}
