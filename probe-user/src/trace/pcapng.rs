//! Sightings as a pcapng file (draft-ietf-opsawg-pcapng), one packet per hop, for Wireshark.
//!
//! The kernel hands over addresses, ports, flags, TTL and the head of the payload, not the frame. The packet is rebuilt
//! from these: a minimal IP header (LINKTYPE_RAW), a UDP or TCP header, and the payload as far as it was captured. The
//! original length says how much there was. Options of IP and TCP are not known, and not made up.

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr},
};

use super::{Hop, event::Event, transaction::Transaction};
use crate::{ended::Direction, facts::Transport};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Begins with the IP header, of either version.
const LINKTYPE_RAW: u16 = 101;
const OPT_COMMENT: u16 = 1;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const SHB_USERAPPL: u16 = 4;
/// Blocks' numbers are in the byte order of the writer; this tells which that is.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// Interfaces described at most; pods come and go, and a reader keeps all of them.
const MAX_INTERFACES: usize = 4096;

/// One section, written as it grows.
#[derive(Debug, Default)]
pub struct Writer {
    interfaces: Vec<String>,
}

impl Writer {
    /// Begins the section.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn start(out: &mut dyn Write) -> io::Result<Self> {
        let mut body = Vec::new();
        body.extend(BYTE_ORDER_MAGIC.to_ne_bytes());
        body.extend([1_u16, 0].map(u16::to_ne_bytes).concat()); // version 1.0
        body.extend((-1_i64).to_ne_bytes()); // length of the section: not known
        option(&mut body, SHB_USERAPPL, concat!("hostdns-probe ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(&mut body, 0, &[]);
        block(out, SECTION_HEADER, &body)?;
        Ok(Self::default())
    }

    /// Every hop of a transaction; `events` are those behind the hops, `unix_ns` the time of the first.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn transaction(
        &mut self,
        transaction: &Transaction,
        events: &[Event],
        unix_ns: i128,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let datagram = |direction: Direction| {
            let of = transaction.hops.iter().zip(events).filter(|(hop, _)| hop.direction == direction);
            of.map(|(_, event)| event.payload_len).max().unwrap_or(0)
        };
        let lengths = [datagram(Direction::Request), datagram(Direction::Reply)];
        for (hop, event) in transaction.hops.iter().zip(events) {
            let known = match transaction.flow.transport {
                // A recalled packet does not say how long it was, but its other sightings do.
                Transport::Udp => lengths[usize::from(hop.direction == Direction::Reply)],
                Transport::Tcp => 0,
            };
            let captured = event.payload.as_deref().or_else(|| message(event, events)).unwrap_or_default();
            let (bytes, original) = rebuild(hop, event, captured, transaction.flow.transport, known);
            let after = event.time_ns.saturating_sub(transaction.started_ns);
            let time = u64::try_from(unix_ns + i128::from(after)).unwrap_or(0);
            let interface = self.interface(hop, out)?;
            packet(interface, time, &bytes, original, &comment(transaction, hop), out)?;
        }
        Ok(())
    }

    fn interface(&mut self, hop: &Hop, out: &mut dyn Write) -> io::Result<u32> {
        let (name, description) = match &hop.interface {
            Some(name) => (name.clone(), format!("{name}, in the node's namespace")),
            None => (format!("{} sockets", hop.netns), format!("cgroup_skb hooks, namespace {}", hop.netns)),
        };
        if let Some(at) = self.interfaces.iter().position(|known| *known == name) {
            return Ok(u32::try_from(at).unwrap_or(0));
        }
        if self.interfaces.len() >= MAX_INTERFACES {
            return Ok(0); // the comment still names the place
        }
        let mut body = Vec::new();
        body.extend(LINKTYPE_RAW.to_ne_bytes());
        body.extend([0; 2]);
        body.extend(0_u32.to_ne_bytes()); // no limit to the captured length
        option(&mut body, IF_NAME, name.as_bytes());
        option(&mut body, IF_DESCRIPTION, description.as_bytes());
        option(&mut body, IF_TSRESOL, &[9]); // nanoseconds
        option(&mut body, 0, &[]);
        block(out, INTERFACE_DESCRIPTION, &body)?;
        self.interfaces.push(name);
        Ok(u32::try_from(self.interfaces.len() - 1).unwrap_or(0))
    }
}

fn comment(transaction: &Transaction, hop: &Hop) -> String {
    let place = hop.interface.as_ref().unwrap_or(&hop.netns);
    let mut text = format!("{place} {}; transaction {}, {}", hop.hook.as_str(), transaction.id, transaction.ended);
    let mut add = |more: &str| {
        text.push_str("; ");
        text.push_str(more);
    };
    if let Some(note) = &hop.note {
        add(note);
    }
    if hop.hook == super::HookKind::Drop
        && let Some(cilium) = transaction.drop.as_ref().and_then(|drop| drop.cilium_reason.as_ref())
    {
        add(&format!("Cilium: {} ({})", cilium.text, cilium.code));
    }
    if transaction.events_lost > 0 {
        add(&format!("{} events lost meanwhile", transaction.events_lost));
    }
    text
}

fn packet(
    interface: u32,
    time: u64,
    bytes: &[u8],
    original: u32,
    comment: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    let captured = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut body = Vec::with_capacity(bytes.len() + comment.len() + 48);
    let halves = [(time >> 32) as u32, time as u32];
    for word in [interface, halves[0], halves[1], captured, original.max(captured)] {
        body.extend(word.to_ne_bytes());
    }
    body.extend(bytes);
    pad(&mut body);
    option(&mut body, OPT_COMMENT, comment.as_bytes());
    option(&mut body, 0, &[]);
    block(out, ENHANCED_PACKET, &body)
}

fn block(out: &mut dyn Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len() + 12).map_err(io::Error::other)?.to_ne_bytes();
    out.write_all(&[&kind.to_ne_bytes(), &length, body, &length].concat())
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_ne_bytes());
    body.extend((value.len() as u16).to_ne_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

/// What another sighting of the same UDP packet has of its message.
fn message<'a>(event: &Event, events: &'a [Event]) -> Option<&'a [u8]> {
    let dns = event.dns.as_ref().filter(|dns| dns.qname.is_none() && event.skb != 0)?;
    let same = |other: &&Event| other.skb == event.skb && other.dns.as_ref().is_some_and(|known| known.id == dns.id);
    events.iter().filter(same).find_map(|other| other.payload.as_deref())
}

/// The packet as far as it is known, and how long it was. `datagram`: length of its payload; 0: not known.
fn rebuild(hop: &Hop, event: &Event, captured: &[u8], transport: Transport, datagram: u32) -> (Vec<u8>, u32) {
    let whole = captured.len().max(event.payload_len as usize).max(datagram as usize).min(65_000);
    let header = match transport {
        Transport::Udp => udp(hop, whole),
        Transport::Tcp => tcp(hop, event),
    };
    let mut segment = [header.as_slice(), captured].concat();
    let protocol = if transport == Transport::Udp { 17 } else { 6 };
    let length = header.len() + whole;
    // Of what was cut off no checksum can be known. A UDP one of 0 means "none", which IPv6 does not allow.
    let at = if transport == Transport::Udp { 6 } else { 16 };
    let sum = match checksum(hop.src, hop.dst, protocol, &segment, length) {
        0 => 0xffff,
        sum => sum,
    };
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let mut bytes = ip(hop.src.ip(), hop.dst.ip(), event.ttl, protocol, length);
    let original = bytes.len() + length;
    bytes.extend(segment);
    (bytes, u32::try_from(original).unwrap_or(u32::MAX))
}

fn udp(hop: &Hop, payload: usize) -> Vec<u8> {
    let length = u16::try_from(8 + payload).unwrap_or(u16::MAX);
    [hop.src.port(), hop.dst.port(), length, 0].map(u16::to_be_bytes).concat()
}

fn tcp(hop: &Hop, event: &Event) -> Vec<u8> {
    let mut header = [hop.src.port(), hop.dst.port()].map(u16::to_be_bytes).concat();
    header.extend(event.sequence.map(u32::to_be_bytes).concat());
    header.extend([5 << 4, event.tcp_flags, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

fn ip(src: IpAddr, dst: IpAddr, ttl: u8, protocol: u8, length: usize) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let total = u16::try_from(20 + length).unwrap_or(u16::MAX).to_be_bytes();
            let mut header = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, ttl, protocol, 0, 0];
            header.extend(src.octets());
            header.extend(dst.octets());
            let sum = fold(sum(&header)).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            header
        }
        (src, dst) => {
            let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, length[0], length[1], protocol, ttl];
            for address in [src, dst] {
                header.extend(v6(address));
            }
            header
        }
    }
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// RFC 768 and 8200, section 8.1: over a pseudo header and the segment.
fn checksum(src: SocketAddr, dst: SocketAddr, protocol: u8, segment: &[u8], length: usize) -> u16 {
    let mut pseudo = Vec::with_capacity(40);
    match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => pseudo.extend([src.octets(), dst.octets()].concat()),
        (src, dst) => pseudo.extend([v6(src), v6(dst)].concat()),
    }
    pseudo.extend(u32::try_from(length).unwrap_or(0).to_be_bytes());
    pseudo.extend([0, 0, 0, protocol]);
    fold(sum(&pseudo) + sum(segment))
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0))).sum()
}

const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests;
