//! Links, addresses, routes and rules as facts, from rtnetlink's messages. Attributes are decoded one by one: what a
//! newer kernel adds or changes must not hide what is understood.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_packet_core::{DecodeError, Emitable as _, NlaBuffer, NlasIterator, Parseable as _, ParseableParametrized};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeader, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, LinkLayerType, LinkMessage},
    nsid::{NsidAttribute, NsidHeader, NsidMessage},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteLwEnCapType, RouteMessage, RouteType, RouteVia,
    },
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleHeader, RuleMessage, RulePortRange},
};

use crate::facts::{InterfaceAddress, Link, Route, Rule};
use crate::netlink::{Entries, Error, Netlink};

pub(super) use netlink_sys::protocols::NETLINK_ROUTE as FAMILY;

pub(super) fn links(netlink: &Netlink) -> Result<Entries<Link>, Error> {
    let mut request = LinkMessage::default();
    request.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    Ok(Entries::decode(&netlink.dump(RouteNetlinkMessage::GetLink(request))?, |m| link(m).map(Some)))
}

/// Addresses with the index of their interface.
pub(super) fn addresses(netlink: &Netlink) -> Result<Entries<(u32, InterfaceAddress)>, Error> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    Ok(Entries::decode(&netlink.dump(request)?, |m| interface_address(m).map(Some)))
}

/// Routes of every table and both families, with the index of their interface.
pub(super) fn routes(netlink: &Netlink) -> Result<Entries<(Option<u32>, RouteEntry)>, Error> {
    Ok(Entries::decode(&netlink.dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()))?, route))
}

pub(super) fn rules(netlink: &Netlink) -> Result<Entries<Rule>, Error> {
    Ok(Entries::decode(&netlink.dump(RouteNetlinkMessage::GetRule(RuleMessage::default()))?, rule))
}

/// The number by which the socket's namespace knows the namespace of an open file; `None`: it has given it none, so
/// none of its links can have a peer there.
pub(super) fn nsid(netlink: &Netlink, namespace: BorrowedFd<'_>) -> Result<Option<i32>, Error> {
    let mut request = NsidMessage::default();
    request.attributes = vec![NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned())];
    let Some(answer) = netlink.get(RouteNetlinkMessage::GetNsId(request))? else { return Ok(None) };
    numbered(&answer.payload).map_err(Error::Decode)
}

fn numbered(payload: &[u8]) -> Result<Option<i32>, DecodeError> {
    let header = NsidHeader::parse(payload)?;
    let attributes = attributes(payload, header.buffer_len(), NsidAttribute::parse);
    Ok(attributes.into_iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) if id >= 0 => Some(id),
        _ => None,
    }))
}

/// The attributes behind a header of so many bytes, those that can be decoded.
fn attributes<'a, A>(
    payload: &'a [u8],
    header: usize,
    decode: impl Fn(&NlaBuffer<&'a [u8]>) -> Result<A, DecodeError>,
) -> Vec<A> {
    let decoded = NlasIterator::new(payload.get(header..).unwrap_or_default()).map(|nla| decode(&nla?));
    decoded
        .filter_map(|attribute| attribute.inspect_err(|e| tracing::debug!("rtnetlink: left out: {e}")).ok())
        .collect()
}

pub(super) fn link(payload: &[u8]) -> Result<Link, DecodeError> {
    let header = LinkHeader::parse(payload)?;
    let layer3 = !matches!(header.link_layer_type, LinkLayerType::Ether | LinkLayerType::Loopback);
    let mut link = Link {
        index: header.index,
        name: String::new(),
        kind: link_kind(payload, header.buffer_len()),
        mac: None,
        up: header.flags.contains(LinkFlags::Up),
        peer_index: None,
        peer_nsid: None,
        master: None,
        layer3,
    };
    let decode = |nla: &NlaBuffer<&[u8]>| LinkAttribute::parse_with_param(nla, header.interface_family);
    for attribute in attributes(payload, header.buffer_len(), decode) {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) if bytes.len() == 6 && !layer3 => {
                let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                link.mac = Some(bytes.join(":"));
            }
            LinkAttribute::Link(index) if index != 0 => link.peer_index = Some(index),
            LinkAttribute::LinkNetNsId(id) => link.peer_nsid = Some(id),
            LinkAttribute::Controller(index) => link.master = Some(index),
            _ => {}
        }
    }
    if link.name.is_empty() {
        return Err(format!("link {} has no name", link.index).into());
    }
    Ok(link)
}

/// IFLA_INFO_KIND alone: what else IFLA_LINKINFO has in it differs by kind and kernel.
fn link_kind(payload: &[u8], header: usize) -> Option<String> {
    let kind = |nla: &NlaBuffer<&[u8]>| match nla.kind() {
        libc::IFLA_LINKINFO => Ok(NlasIterator::new(nla.value()).find_map(|nla| InfoKind::parse(&nla.ok()?).ok())),
        _ => Ok(None),
    };
    attributes(payload, header, kind).into_iter().flatten().next().map(|kind| kind.to_string())
}

/// The interface's name is left empty.
pub(super) fn interface_address(payload: &[u8]) -> Result<(u32, InterfaceAddress), DecodeError> {
    let header = AddressHeader::parse(payload)?;
    let (mut own, mut other) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(header.flags.bits().into());
    for attribute in attributes(payload, header.buffer_len(), AddressAttribute::parse) {
        match attribute {
            // On a point-to-point link IFA_ADDRESS is the peer's; IFA_LOCAL is ours.
            AddressAttribute::Local(ip) => own = Some(ip),
            AddressAttribute::Address(ip) => other = Some(ip),
            AddressAttribute::Flags(all) => flags = all,
            _ => {}
        }
    }
    let found = InterfaceAddress {
        interface: String::new(),
        address: own.or(other).ok_or("an address message has no address")?,
        prefix_len: header.prefix_len,
        scope: header.scope.into(),
        flags: flags.iter_names().map(|(name, _)| name.to_lowercase()).collect(),
    };
    Ok((header.index, found))
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

/// One entry for each next hop; the interface's name is left empty.
pub(super) fn route(payload: &[u8]) -> Result<Vec<(Option<u32>, RouteEntry)>, DecodeError> {
    let header = RouteHeader::parse(payload)?;
    let mut network = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return Ok(Vec::new()), // multicast routing tables and MPLS answer too
    };
    if header.flags.contains(RouteFlags::Cloned) {
        return Ok(Vec::new());
    }
    let decode = |nla: &NlaBuffer<&[u8]>| {
        RouteAttribute::parse_with_param(nla, (header.address_family, header.kind, RouteLwEnCapType::None))
    };
    let attributes = attributes(payload, header.buffer_len(), decode);
    let mut table = header.table.into();
    let (mut interface, mut hops) = (None, None);
    for attribute in &attributes {
        match attribute {
            RouteAttribute::Destination(to) => network = ip(to).unwrap_or(network),
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::MultiPath(all) => hops = Some(all),
            _ => {}
        }
    }
    let prefix_len = header.destination_prefix_length;
    let entry = |gateway| {
        let destination = format!("{network}/{prefix_len}");
        let route = Route { destination, kind: route_kind(header.kind), table, interface: None, gateway };
        RouteEntry { network, prefix_len, route }
    };
    Ok(match hops {
        None => vec![(interface, entry(gateway(&attributes)))],
        Some(hops) => hops.iter().map(|hop| (Some(hop.interface_index), entry(gateway(&hop.attributes)))).collect(),
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// RTA_GATEWAY, or RTA_VIA: a gateway of the other family.
fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(ip)) => Some((*ip).into()),
        RouteAttribute::Via(RouteVia::Inet6(ip)) => Some((*ip).into()),
        _ => None,
    })
}

/// As `ip route` writes it.
fn route_kind(kind: RouteType) -> String {
    let name = match kind {
        RouteType::Unspec => "unspec",
        RouteType::Unicast => "unicast",
        RouteType::Local => "local",
        RouteType::Broadcast => "broadcast",
        RouteType::Anycast => "anycast",
        RouteType::Multicast => "multicast",
        RouteType::BlackHole => "blackhole",
        RouteType::Unreachable => "unreachable",
        RouteType::Prohibit => "prohibit",
        RouteType::Throw => "throw",
        RouteType::Nat => "nat",
        RouteType::ExternalResolve => "xresolve",
        other => return format!("type {}", u8::from(other)),
    };
    name.to_owned()
}

/// The text is as `ip rule` writes it. `None` for the kernel's own three.
pub(super) fn rule(payload: &[u8]) -> Result<Option<Rule>, DecodeError> {
    let header = RuleHeader::parse(payload)?;
    // Multicast routing has rules of its own, and answers too.
    if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return Ok(None);
    }
    let attributes = attributes(payload, header.buffer_len(), RuleAttribute::parse);
    let (mut priority, mut table, mut goto) = (0, header.table.into(), 0);
    let (mut from, mut to, mut mark, mut mask) = (None, None, 0, u32::MAX);
    let mut selectors = Vec::new();
    for attribute in attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = number,
            RuleAttribute::Table(number) => table = number,
            RuleAttribute::Goto(number) => goto = number,
            RuleAttribute::Source(ip) => from = Some(ip),
            RuleAttribute::Destination(ip) => to = Some(ip),
            RuleAttribute::FwMark(number) => mark = number,
            RuleAttribute::FwMask(number) => mask = number,
            RuleAttribute::Iifname(name) => selectors.push(format!("iif {name}")),
            RuleAttribute::Oifname(name) => selectors.push(format!("oif {name}")),
            RuleAttribute::IpProtocol(number) => selectors.push(format!("ipproto {}", u8::from(number))),
            RuleAttribute::SourcePortRange(ports) => selectors.push(format!("sport {}", range(ports))),
            RuleAttribute::DestinationPortRange(ports) => selectors.push(format!("dport {}", range(ports))),
            _ => {}
        }
    }
    let mut parts = Vec::new();
    if header.flags.contains(RuleFlags::Invert) {
        parts.push("not".to_owned());
    }
    parts.push(from.map_or("from all".into(), |ip| format!("from {ip}/{}", header.src_len)));
    parts.extend(to.map(|ip| format!("to {ip}/{}", header.dst_len)));
    match (mark, mask) {
        (0, _) => {}
        (mark, u32::MAX) => parts.push(format!("fwmark {mark:#x}")),
        (mark, mask) => parts.push(format!("fwmark {mark:#x}/{mask:#x}")),
    }
    parts.append(&mut selectors);
    let selects = parts.len() > 1 || from.is_some();
    parts.push(match header.action {
        RuleAction::ToTable => format!("lookup {}", table_name(table)),
        RuleAction::Goto => format!("goto {goto}"),
        RuleAction::Nop => "nop".into(),
        RuleAction::Blackhole => "blackhole".into(),
        RuleAction::Unreachable => "unreachable".into(),
        RuleAction::Prohibit => "prohibit".into(),
        other => format!("action {}", u8::from(other)),
    });
    let own = matches!((priority, table), (0, 255) | (32766, 254) | (32767, 253));
    Ok((selects || !own).then(|| Rule { priority, text: parts.join(" ") }))
}

fn range(ports: RulePortRange) -> String {
    match (ports.start, ports.end) {
        (low, high) if low == high => low.to_string(),
        (low, high) => format!("{low}-{high}"),
    }
}

fn table_name(table: u32) -> String {
    match table {
        253 => "default".into(),
        254 => "main".into(),
        255 => "local".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "rtnetlink_tests.rs"]
mod tests;
