//! The node's devices, addresses and routes, shaped like those of the real agents that were recorded.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
};

use super::{
    Error,
    links::Links,
    mounts::sysctl,
    pod::RunningPod,
    scenario::{AddressDevice, NodeSpec, Uplinks},
    spec::{DatapathConfig, Device, Endpoint},
    tun,
};
use crate::{facts::RoutingMode, netns::Netns};

pub const NODE_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
pub const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const NODE_SECOND_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 78, 2);
const OUTSIDE_SECOND_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 78, 1);
const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 2);
const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1);
const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 52);
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, 0x52);
const PODS_V4: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 0);
const PODS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, 0);
const GLOBAL: u8 = 0;

/// The devices of a node, standing.
pub struct Topology {
    pub datapath: DatapathConfig,
    /// TUN devices live as long as their files are open.
    pub held_open: Vec<File>,
}

/// Builds everything. The calling thread is in the node's network and mount namespaces.
///
/// # Errors
/// The kernel refuses one of the devices, addresses or routes.
pub fn build(spec: &NodeSpec, outside: &Netns, pods: &[RunningPod]) -> Result<Topology, Error> {
    let links = Links::open()?;
    let mut held_open = Vec::new();
    as_cilium_sets(spec)?;
    links.up("lo")?;

    let external = uplinks(&links, spec, outside, &mut held_open)?;
    links.veth("cilium_net", "cilium_host", None, true)?;
    links.up("cilium_host")?;
    for name in ["cilium_net", "cilium_host"] {
        sysctl(&format!("net/ipv4/conf/{name}/accept_local"), "1")?;
    }
    links.address("cilium_host", ROUTER_V4.into(), 32, GLOBAL)?;
    links.route(ROUTER_V4.into(), 32, None, "cilium_host")?;
    if spec.ipv6 {
        links.address("cilium_host", ROUTER_V6.into(), 128, GLOBAL)?;
    }
    if !spec.cilium.endpoint_routes {
        links.route(PODS_V4.into(), 24, Some(ROUTER_V4.into()), "cilium_host")?;
        if spec.ipv6 {
            links.route(PODS_V6.into(), 64, None, "cilium_host")?;
        }
    }
    let overlay = match spec.cilium.routing {
        RoutingMode::Tunnel => {
            links.vxlan("cilium_vxlan")?;
            Some(links.device("cilium_vxlan")?)
        }
        RoutingMode::Native => None,
    };
    host_dns(&links, spec, &mut held_open)?;

    let mut endpoints = Vec::new();
    for (pod, number) in pods.iter().filter(|pod| !pod.plan.host_network).zip(131_u8..) {
        endpoints.push(endpoint(&links, spec, pod, number)?);
    }
    if spec.faults.rp_filter_strict {
        sysctl("net/ipv4/conf/all/rp_filter", "1")?;
    }
    if spec.faults.firewall {
        let names: Vec<&str> = external.iter().map(|device| device.name.as_str()).chain(["lo"]).collect();
        super::firewall::block_input_except(&names)?;
    }
    let datapath = DatapathConfig {
        cilium: spec.cilium.clone(),
        node_ipv4: NODE_V4,
        node_ipv6: spec.ipv6.then_some(NODE_V6),
        external,
        cilium_host: links.device("cilium_host")?,
        cilium_net: links.device("cilium_net")?,
        overlay,
        endpoints,
        host_dns: spec.host_dns.iter().map(|dns| dns.address).collect(),
        bpf_root: PathBuf::from(super::mounts::BPF),
        state_dir: PathBuf::from("/run/cilium/state"),
        agent_socket: PathBuf::from("/run/cilium/cilium.sock"),
    };
    Ok(Topology { datapath, held_open })
}

/// What the agent's sysctl settings come to (cilium pkg/datapath/loader, `cilium-sysctlfix`): pods' packets are
/// forwarded, and no interface asks whether their source is behind it.
fn as_cilium_sets(spec: &NodeSpec) -> Result<(), Error> {
    for (key, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/default/send_redirects", "0"),
    ] {
        sysctl(key, value)?;
    }
    if spec.ipv6 {
        sysctl("net/ipv6/conf/all/forwarding", "1")?;
        sysctl("net/ipv6/conf/default/accept_dad", "0")?;
    }
    Ok(())
}

/// The external devices, with the other end of the wire and the default route.
fn uplinks(links: &Links, spec: &NodeSpec, outside: &Netns, held: &mut Vec<File>) -> Result<Vec<Device>, Error> {
    let fd = outside.as_fd().as_raw_fd();
    let first = match spec.uplinks {
        Uplinks::Layer3 => {
            let near = tun::create("tun0")?;
            let far = outside.run(|| tun::create("uplink0"))??;
            tun::connect(&near, &far)?;
            held.extend([near, far]);
            links.up("tun0")?;
            "tun0"
        }
        Uplinks::One | Uplinks::Two => {
            links.veth("eth0", "uplink0", Some(fd), false)?;
            "eth0"
        }
    };
    let two = spec.uplinks == Uplinks::Two;
    if two {
        links.veth("eth1", "uplink1", Some(fd), false)?;
    }
    outside.run(|| {
        let there = Links::open()?;
        there.up("uplink0")?;
        there.address("uplink0", OUTSIDE_V4.into(), 24, GLOBAL)?;
        there.route(PODS_V4.into(), 24, Some(NODE_V4.into()), "uplink0")?;
        if spec.ipv6 {
            there.address("uplink0", OUTSIDE_V6.into(), 64, GLOBAL)?;
            there.route(PODS_V6.into(), 64, Some(NODE_V6.into()), "uplink0")?;
        }
        if two {
            there.up("uplink1")?;
            there.address("uplink1", OUTSIDE_SECOND_V4.into(), 24, GLOBAL)?;
        }
        Ok::<(), Error>(())
    })??;
    links.address(first, NODE_V4.into(), 24, GLOBAL)?;
    links.route(Ipv4Addr::UNSPECIFIED.into(), 0, Some(OUTSIDE_V4.into()), first)?;
    if spec.ipv6 {
        links.address(first, NODE_V6.into(), 64, GLOBAL)?;
        links.route(Ipv6Addr::UNSPECIFIED.into(), 0, Some(OUTSIDE_V6.into()), first)?;
    }
    let mut devices = vec![links.device(first)?];
    if two {
        links.address("eth1", NODE_SECOND_V4.into(), 24, GLOBAL)?;
        devices.push(links.device("eth1")?);
    }
    Ok(devices)
}

/// The addresses of the node's own DNS.
fn host_dns(links: &Links, spec: &NodeSpec, held: &mut Vec<File>) -> Result<(), Error> {
    for dns in &spec.host_dns {
        let Some(scope) = dns.scope else { continue };
        let device = match dns.device {
            AddressDevice::Lo => "lo",
            AddressDevice::NodeLocalDns => {
                // node-local-dns makes a dummy device; a kernel without them gets a TUN that nobody reads.
                if links.dummy("nodelocaldns").is_err() {
                    held.push(tun::create("nodelocaldns")?);
                }
                "nodelocaldns"
            }
        };
        let whole = if dns.address.is_ipv4() { 32 } else { 128 };
        links.address(device, dns.address, whole, scope)?;
    }
    Ok(())
}

/// A pod's veth or netkit pair: `eth0` inside, `lxc*` on the node.
fn endpoint(links: &Links, spec: &NodeSpec, pod: &RunningPod, number: u8) -> Result<Endpoint, Error> {
    let ipv4 = Ipv4Addr::new(10, 244, 1, number);
    let ipv6 = spec.ipv6.then(|| Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, u16::from(number)));
    let inside = Netns::open(format!("/proc/{}/ns/net", pod.pid))?;
    let name = pod.plan.interface.as_str();
    let netns = inside.as_fd().as_raw_fd();
    if spec.cilium.netkit {
        links.netkit(name, "eth0", netns)?;
    } else {
        links.veth(name, "eth0", Some(netns), false)?;
    }
    let device = links.device(name)?;
    let mac = inside.run(|| {
        let there = Links::open()?;
        if ipv6.is_some() {
            sysctl("net/ipv6/conf/eth0/accept_dad", "0")?;
        }
        there.up("eth0")?;
        there.address("eth0", ipv4.into(), 32, GLOBAL)?;
        there.route(ROUTER_V4.into(), 32, None, "eth0")?;
        there.route(Ipv4Addr::UNSPECIFIED.into(), 0, Some(ROUTER_V4.into()), "eth0")?;
        if let Some(ipv6) = ipv6 {
            there.address("eth0", ipv6.into(), 128, GLOBAL)?;
            there.route(ROUTER_V6.into(), 128, None, "eth0")?;
            there.route(Ipv6Addr::UNSPECIFIED.into(), 0, Some(ROUTER_V6.into()), "eth0")?;
            // Cilium's program answers this neighbour solicitation itself (bpf/lib/icmp6.h).
            there.neighbour("eth0", ROUTER_V6.into(), device.mac)?;
        }
        if spec.faults.reply_queue_stuck || spec.faults.rp_filter_strict {
            // The answer to its ARP request would be stuck too, and strict rp_filter ignores the request (arp_process
            // asks for the route back as well): a pod of before the fault knows its gateway.
            there.neighbour("eth0", ROUTER_V4.into(), device.mac)?;
        }
        Ok::<_, Error>(there.device("eth0")?.mac)
    })??;
    if spec.cilium.endpoint_routes {
        links.route(ipv4.into(), 32, None, name)?;
        if let Some(ipv6) = ipv6 {
            links.route(IpAddr::V6(ipv6), 128, None, name)?;
        }
    }
    Ok(Endpoint { id: pod.plan.endpoint_id, device, mac, ipv4: Some(ipv4), ipv6, identity: pod.plan.identity })
}
