//! Links, addresses, routes and rules from the bytes of rtnetlink messages (include/uapi/linux/rtnetlink.h). Numbers
//! are in host byte order, addresses in network order. What a newer kernel adds is skipped, so that it cannot hide
//! what is understood.

use std::net::IpAddr;

use super::bytes::{Attributes, address, be16_at, byte, text, u16_at, u32_at};
use super::netlink::{Error, Netlink, attribute};
use crate::facts::{InterfaceAddress, Link, Route, Rule};

/// NETLINK_ROUTE.
pub(super) const FAMILY: isize = 0;
const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;
const RTM_GETRULE: u16 = 34;
const RTM_GETNSID: u16 = 90;

pub(super) fn links(netlink: &Netlink) -> Result<Vec<Link>, Error> {
    const IFLA_EXT_MASK: u16 = 29;
    const SKIP_STATISTICS: u32 = 8; // RTEXT_FILTER_SKIP_STATS
    let mut body = vec![0; 16];
    body.extend(attribute(IFLA_EXT_MASK, &SKIP_STATISTICS.to_ne_bytes()));
    Ok(netlink.dump(RTM_GETLINK, &body)?.iter().filter_map(|m| link(&m.payload)).collect())
}

/// Addresses with the index of their interface.
pub(super) fn addresses(netlink: &Netlink) -> Result<Vec<(u32, InterfaceAddress)>, Error> {
    Ok(netlink.dump(RTM_GETADDR, &[0; 8])?.iter().filter_map(|m| interface_address(&m.payload)).collect())
}

/// Routes of every table and both families, with the index of their interface.
pub(super) fn routes(netlink: &Netlink) -> Result<Vec<(Option<u32>, RouteEntry)>, Error> {
    Ok(netlink.dump(RTM_GETROUTE, &[0; 12])?.iter().flat_map(|m| route(&m.payload)).collect())
}

pub(super) fn rules(netlink: &Netlink) -> Result<Vec<Rule>, Error> {
    Ok(netlink.dump(RTM_GETRULE, &[0; 12])?.iter().filter_map(|m| rule(&m.payload)).collect())
}

/// The number by which the socket's namespace knows the namespace of an open file; `None`: it has given it none, so
/// none of its links can have a peer there.
pub(super) fn nsid(netlink: &Netlink, namespace: i32) -> Result<Option<i32>, Error> {
    const NETNSA_NSID: u16 = 1; // include/uapi/linux/net_namespace.h
    const NETNSA_FD: u16 = 3;
    let mut body = vec![0; 4]; // struct rtgenmsg, padded
    body.extend(attribute(NETNSA_FD, &namespace.to_ne_bytes()));
    let answer = netlink.get(RTM_GETNSID, &body)?;
    let id = answer.and_then(|m| u32_at(Attributes(m.payload.get(4..)?).find(NETNSA_NSID)?, 0));
    Ok(id.map(u32::cast_signed).filter(|&id| id >= 0))
}

/// `struct ifinfomsg`: family 0:1, type 2:2, index 4:4, flags 8:4, change 12:4.
pub(super) fn link(payload: &[u8]) -> Option<Link> {
    const IFF_UP: u32 = 1;
    const ARPHRD_ETHER: u16 = 1;
    const ARPHRD_LOOPBACK: u16 = 772;
    let attributes = Attributes(payload.get(16..)?);
    let number = |kind| attributes.find(kind).and_then(|b| u32_at(b, 0));
    let layer3 = !matches!(u16_at(payload, 2)?, ARPHRD_ETHER | ARPHRD_LOOPBACK);
    let mac = attributes.find(1).filter(|b| b.len() == 6 && !layer3);
    Some(Link {
        index: u32_at(payload, 4)?,
        name: text(attributes.find(3)?),               // IFLA_IFNAME
        kind: attributes.nested(18).find(1).map(text), // IFLA_LINKINFO, IFLA_INFO_KIND
        mac: mac.map(|b| b.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")),
        up: u32_at(payload, 8)? & IFF_UP != 0,
        peer_index: number(5).filter(|&index| index != 0), // IFLA_LINK
        peer_nsid: number(37).map(u32::cast_signed),       // IFLA_LINK_NETNSID
        master: number(10),                                // IFLA_MASTER
        layer3,
    })
}

/// Names of the `IFA_F_*` flags (include/uapi/linux/if_addr.h), lowest bit first.
const ADDRESS_FLAGS: [&str; 12] = [
    "secondary",
    "nodad",
    "optimistic",
    "dadfailed",
    "homeaddress",
    "deprecated",
    "tentative",
    "permanent",
    "managetempaddr",
    "noprefixroute",
    "autojoin",
    "stableprivacy",
];

/// `struct ifaddrmsg`: family 0:1, prefixlen 1:1, flags 2:1, scope 3:1, index 4:4. The interface's name is left empty.
pub(super) fn interface_address(payload: &[u8]) -> Option<(u32, InterfaceAddress)> {
    let attributes = Attributes(payload.get(8..)?);
    // On a point-to-point link IFA_ADDRESS is the peer's; IFA_LOCAL is ours.
    let own = attributes.find(2).or_else(|| attributes.find(1)).and_then(address)?;
    let flags = match attributes.find(8).and_then(|b| u32_at(b, 0)) {
        Some(flags) => flags,
        None => u32::from(byte(payload, 2)?),
    };
    let flags = ADDRESS_FLAGS.iter().enumerate().filter(|(bit, _)| flags & (1 << bit) != 0);
    let found = InterfaceAddress {
        interface: String::new(),
        address: own,
        prefix_len: byte(payload, 1)?,
        scope: byte(payload, 3)?,
        flags: flags.map(|(_, name)| (*name).to_owned()).collect(),
    };
    Some((u32_at(payload, 4)?, found))
}

/// A route, with what is needed to say whom it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteEntry {
    pub(super) network: IpAddr,
    pub(super) prefix_len: u8,
    pub(super) route: Route,
}

impl RouteEntry {
    pub(super) fn covers(&self, target: IpAddr) -> bool {
        let (network, target, width) = match (self.network, target) {
            (IpAddr::V4(n), IpAddr::V4(t)) => (u128::from(n.to_bits()), u128::from(t.to_bits()), 32),
            (IpAddr::V6(n), IpAddr::V6(t)) => (n.to_bits(), t.to_bits(), 128),
            _ => return false,
        };
        let host_bits = u32::saturating_sub(width, self.prefix_len.into());
        network.checked_shr(host_bits).unwrap_or(0) == target.checked_shr(host_bits).unwrap_or(0)
    }
}

/// `struct rtmsg`: family 0:1, dst_len 1:1, src_len 2:1, tos 3:1, table 4:1, protocol 5:1, scope 6:1, type 7:1,
/// flags 8:4. One entry for each next hop; the interface's name is left empty.
pub(super) fn route(payload: &[u8]) -> Vec<(Option<u32>, RouteEntry)> {
    read_route(payload).unwrap_or_default()
}

fn read_route(payload: &[u8]) -> Option<Vec<(Option<u32>, RouteEntry)>> {
    const RTM_F_CLONED: u32 = 0x200;
    let attributes = Attributes(payload.get(12..)?);
    let unspecified = match i32::from(byte(payload, 0)?) {
        libc::AF_INET => IpAddr::from([0; 4]),
        libc::AF_INET6 => IpAddr::from([0; 16]),
        _ => return None, // multicast routing tables and MPLS answer too
    };
    if u32_at(payload, 8)? & RTM_F_CLONED != 0 {
        return None;
    }
    let network = attributes.find(1).and_then(address).unwrap_or(unspecified);
    let prefix_len = byte(payload, 1)?;
    let table = attributes.find(15).and_then(|b| u32_at(b, 0));
    let route = Route {
        destination: format!("{network}/{prefix_len}"),
        kind: route_kind(byte(payload, 7)?),
        table: table.unwrap_or(u32::from(byte(payload, 4)?)),
        interface: None,
        gateway: gateway(attributes),
    };
    let Some(mut hops) = attributes.find(9) else {
        let interface = attributes.find(4).and_then(|b| u32_at(b, 0));
        return Some(vec![(interface, RouteEntry { network, prefix_len, route })]);
    };
    let mut entries = Vec::new();
    // RTA_MULTIPATH: struct rtnexthop, len 0:2, flags 2:1, hops 3:1, ifindex 4:4, then attributes.
    while let (Some(len), Some(interface)) = (u16_at(hops, 0), u32_at(hops, 4)) {
        let Some(own) = hops.get(8..usize::from(len)) else { break };
        let route = Route { gateway: gateway(Attributes(own)), ..route.clone() };
        entries.push((Some(interface), RouteEntry { network, prefix_len, route }));
        hops = hops.get(usize::from(len).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(entries)
}

/// RTA_GATEWAY, or RTA_VIA (`struct rtvia`: family 0:2, then the address of another family).
fn gateway(attributes: Attributes<'_>) -> Option<IpAddr> {
    attributes.find(5).or_else(|| attributes.find(18).and_then(|b| b.get(2..))).and_then(address)
}

fn route_kind(kind: u8) -> String {
    const NAMES: [&str; 12] = [
        "unspec",
        "unicast",
        "local",
        "broadcast",
        "anycast",
        "multicast",
        "blackhole",
        "unreachable",
        "prohibit",
        "throw",
        "nat",
        "xresolve",
    ];
    NAMES.get(usize::from(kind)).map_or_else(|| format!("type {kind}"), |&name| name.to_owned())
}

/// `struct fib_rule_hdr`: family 0:1, dst_len 1:1, src_len 2:1, tos 3:1, table 4:1, action 7:1, flags 8:4
/// (include/uapi/linux/fib_rules.h). The text is as `ip rule` writes it. `None` for the kernel's own three.
pub(super) fn rule(payload: &[u8]) -> Option<Rule> {
    const FIB_RULE_INVERT: u32 = 2;
    // Multicast routing has rules of its own, and answers too.
    matches!(i32::from(byte(payload, 0)?), libc::AF_INET | libc::AF_INET6).then_some(())?;
    let attributes = Attributes(payload.get(12..)?);
    let number = |kind| attributes.find(kind).and_then(|b| u32_at(b, 0));
    let priority = number(6).unwrap_or(0);
    let table = number(15).unwrap_or(u32::from(byte(payload, 4)?));
    let mut text_parts = Vec::new();
    if u32_at(payload, 8)? & FIB_RULE_INVERT != 0 {
        text_parts.push("not".to_owned());
    }
    let source = attributes.find(2).and_then(address);
    text_parts.push(source.map_or("from all".into(), |ip| format!("from {ip}/{}", payload[2])));
    if let Some(ip) = attributes.find(1).and_then(address) {
        text_parts.push(format!("to {ip}/{}", payload[1]));
    }
    if let Some(mark) = number(10).filter(|&mark| mark != 0) {
        let mask = number(16).filter(|&mask| mask != u32::MAX).map_or(String::new(), |mask| format!("/{mask:#x}"));
        text_parts.push(format!("fwmark {mark:#x}{mask}"));
    }
    for (kind, word) in [(3, "iif"), (17, "oif")] {
        text_parts.extend(attributes.find(kind).map(|name| format!("{word} {}", text(name))));
    }
    if let Some(protocol) = attributes.find(22).and_then(|b| byte(b, 0)) {
        text_parts.push(format!("ipproto {protocol}"));
    }
    for (kind, word) in [(23, "sport"), (24, "dport")] {
        let range = attributes.find(kind).and_then(|b| Some((u16_at(b, 0)?, u16_at(b, 2)?)));
        text_parts.extend(range.map(|(low, high)| match low == high {
            true => format!("{word} {low}"),
            false => format!("{word} {low}-{high}"),
        }));
    }
    let selects = text_parts.len() > 1;
    text_parts.push(match byte(payload, 7)? {
        1 => format!("lookup {}", table_name(table)),
        2 => format!("goto {}", number(4).unwrap_or(0)),
        3 => "nop".into(),
        6 => "blackhole".into(),
        7 => "unreachable".into(),
        8 => "prohibit".into(),
        other => format!("action {other}"),
    });
    let own = matches!((priority, table), (0, 255) | (32766, 254) | (32767, 253));
    (selects || source.is_some() || !own).then(|| Rule { priority, text: text_parts.join(" ") })
}

fn table_name(table: u32) -> String {
    match table {
        253 => "default".into(),
        254 => "main".into(),
        255 => "local".into(),
        other => other.to_string(),
    }
}

/// A socket from sock_diag: `struct inet_diag_msg` (include/uapi/linux/inet_diag.h): family 0:1, state 1:1, then
/// `inet_diag_sockid` at 4 (sport 0:2 and dport 2:2 in network order, src 4:16, dst 20:16, if 36:4, cookie 40:8), uid
/// 64:4, inode 68:4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DiagSocket {
    pub(super) local: std::net::SocketAddr,
    pub(super) remote_port: u16,
    pub(super) state: u8,
    pub(super) cookie: u64,
    pub(super) inode: u32,
    /// Takes IPv6 only (`INET_DIAG_SKV6ONLY`).
    pub(super) v6_only: bool,
}

pub(super) fn socket(payload: &[u8]) -> Option<DiagSocket> {
    const INET_DIAG_SKV6ONLY: u16 = 11;
    let local = match i32::from(byte(payload, 0)?) {
        libc::AF_INET => address(payload.get(8..12)?)?,
        libc::AF_INET6 => address(payload.get(8..24)?)?,
        _ => return None,
    };
    let cookie = u64::from(u32_at(payload, 44)?) | u64::from(u32_at(payload, 48)?) << 32;
    let v6_only = Attributes(payload.get(72..)?).find(INET_DIAG_SKV6ONLY).and_then(|b| byte(b, 0));
    Some(DiagSocket {
        local: (local, be16_at(payload, 4)?).into(),
        remote_port: be16_at(payload, 6)?,
        state: byte(payload, 1)?,
        cookie,
        inode: u32_at(payload, 68)?,
        v6_only: v6_only == Some(1),
    })
}

#[cfg(test)]
#[path = "rtnetlink_tests.rs"]
mod tests;
