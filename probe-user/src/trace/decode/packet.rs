//! Packet bytes as `bpf_skb_output` hands them over: from wherever `skb->data` pointed. At a device that is the
//! Ethernet header, or the IP header; in a socket's path the UDP or TCP header, or the bare payload.
//!
//! Addresses of skbs are recycled, so the bytes must show the packet that is remembered under the address. Address
//! translation may have changed one end since, so the target's end and one more thing (the other port, or the payload)
//! must agree.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hostdns_probe_ebpf::{Packet, TCP, UDP};

use crate::{facts::Transport, trace::Flow};

/// A packet read from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<'a> {
    pub flow: Flow,
    pub ttl: u8,
    pub tcp_flags: u8,
    /// Sequence and acknowledgement number; 0 for UDP.
    pub sequence: [u32; 2],
    /// Behind the UDP or TCP header.
    pub payload: &'a [u8],
}

/// How the bytes relate to the packet that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Same<'a> {
    /// The same, read from its IP header on.
    Whole(Whole<'a>),
    /// The same, without an IP header.
    Payload(&'a [u8]),
    /// The same inside another packet: the outer addresses are a tunnel's.
    Tunnelled,
    No,
}

/// Compares.
#[must_use]
pub fn same<'a>(bytes: &'a [u8], remembered: &Packet, flow: Flow) -> Same<'a> {
    if let Some(payload) = error_payload(bytes, remembered) {
        return Same::Payload(payload);
    }
    for ip in starts(bytes) {
        let Some(now) = whole(ip, remembered.family) else { continue };
        let one_end = now.flow.dst == flow.dst || now.flow.src == flow.src;
        let ports = (now.flow.src.port(), now.flow.dst.port());
        let more = ports == (flow.src.port(), flow.dst.port())
            || payload_agrees(now.payload, remembered)
            || (now.flow.dst == flow.dst && is_same_syn(&now, remembered));
        if now.flow.transport == flow.transport && one_end && more {
            return Same::Whole(now);
        }
    }
    if let Some((ports, payload, _flags)) = transport(bytes, remembered.transport)
        && ports == (flow.src.port(), flow.dst.port())
    {
        return Same::Payload(payload);
    }
    if payload_agrees(bytes, remembered) {
        return Same::Payload(bytes);
    }
    if tunnelled(bytes, remembered) { Same::Tunnelled } else { Same::No }
}

/// An ICMP error of ours carries the remembered packet; what it quotes is that packet's addresses.
fn error_payload<'a>(bytes: &'a [u8], remembered: &Packet) -> Option<&'a [u8]> {
    (remembered.icmp_type != 0 && tunnelled(bytes, remembered)).then_some(&[])
}

/// A SYN has no payload to know it by, and masquerading may have given it another port.
fn is_same_syn(now: &Whole<'_>, remembered: &Packet) -> bool {
    const SYN: u8 = 2;
    let bare = now.payload.is_empty() && remembered.head == [0; 4];
    bare && now.tcp_flags & SYN != 0 && now.tcp_flags == remembered.tcp_flags
}

fn payload_agrees(payload: &[u8], remembered: &Packet) -> bool {
    remembered.head != [0; 4] && payload.starts_with(&remembered.head)
}

/// Both addresses of the remembered packet stand in the bytes, next to each other, as in an IP header.
fn tunnelled(bytes: &[u8], remembered: &Packet) -> bool {
    let len = if remembered.family == 4 { 4 } else { 16 };
    let [src, dst] = remembered.addresses();
    let pair = [&src[..len], &dst[..len]].concat();
    bytes.windows(pair.len()).any(|window| window == pair)
}

/// Where an IP header may begin: at once, or behind Ethernet and its VLAN tags.
fn starts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 12;
    let mut behind = None;
    for _ in 0..4 {
        match bytes.get(at..at + 2) {
            Some([0x81, 0x00] | [0x88, 0xa8]) => at += 4,
            Some([0x08, 0x00] | [0x86, 0xdd]) => {
                behind = bytes.get(at + 2..);
                break;
            }
            _ => break,
        }
    }
    std::iter::once(bytes).chain(behind)
}

fn whole(bytes: &[u8], family: u8) -> Option<Whole<'_>> {
    let version = bytes.first()? >> 4;
    if version != family {
        return None;
    }
    let bytes = without_padding(bytes, version)?;
    let (src, dst, ttl, protocol, l4): (IpAddr, IpAddr, _, _, _) = if version == 4 {
        let head = bytes.get(..20)?;
        let address = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]).into();
        if u16::from_be_bytes([head[6], head[7]]) & 0x1fff != 0 {
            return None;
        }
        (address(12), address(16), head[8], head[9], usize::from(head[0] & 15) * 4)
    } else {
        let head = bytes.get(..40)?;
        let address = |at: usize| <[u8; 16]>::try_from(&head[at..at + 16]).map(Ipv6Addr::from);
        let (protocol, l4) = behind_extensions(bytes, head[6])?;
        (address(8).ok()?.into(), address(24).ok()?.into(), head[7], protocol, l4)
    };
    let segment = bytes.get(l4..)?;
    let ((src_port, dst_port), payload, tcp_flags) = transport(segment, protocol)?;
    let transport = if protocol == TCP { Transport::Tcp } else { Transport::Udp };
    let flow = Flow { src: SocketAddr::new(src, src_port), dst: SocketAddr::new(dst, dst_port), transport };
    let word = |at: usize| segment.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes);
    let sequence = if protocol == TCP { [word(4), word(8)] } else { [0; 2] };
    Some(Whole { flow, ttl, tcp_flags, sequence, payload })
}

/// As far as the IP header says that the packet goes: what Ethernet fills a short frame up with is in no packet. The
/// kernel writes a length of 0 where the field is too small for it (BIG TCP: include/linux/ip.h, `iph_totlen`).
fn without_padding(bytes: &[u8], version: u8) -> Option<&[u8]> {
    let (at, header) = if version == 4 { (2, 0) } else { (4, 40) };
    let said = u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?);
    let len = if said == 0 { bytes.len() } else { header + usize::from(said) };
    Some(&bytes[..len.min(bytes.len())])
}

/// Protocol and offset behind IPv6 extension headers (RFC 8200, section 4).
fn behind_extensions(bytes: &[u8], mut protocol: u8) -> Option<(u8, usize)> {
    let mut at = 40;
    for _ in 0..6 {
        let ext = match protocol {
            0 | 43 | 44 | 51 | 60 => bytes.get(at..at + 4)?,
            _ => break,
        };
        at += match protocol {
            44 if u16::from_be_bytes([ext[2], ext[3]]) & 0xfff8 != 0 => return None,
            44 => 8,
            51 => (usize::from(ext[1]) + 2) * 4,
            _ => (usize::from(ext[1]) + 1) * 8,
        };
        protocol = ext[0];
    }
    Some((protocol, at))
}

/// Ports, payload and TCP flags.
fn transport(bytes: &[u8], protocol: u8) -> Option<((u16, u16), &[u8], u8)> {
    let head = bytes.get(..8)?;
    let ports = (u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[2], head[3]]));
    match protocol {
        // The datagram's own length counts, where there is one (RFC 2675: 0 is that of a jumbogram).
        UDP => {
            let len = match u16::from_be_bytes([head[4], head[5]]) {
                0 => bytes.len(),
                said => bytes.len().min(usize::from(said)),
            };
            Some((ports, bytes.get(8..len).unwrap_or_default(), 0))
        }
        TCP => {
            let (offset, flags) = (*bytes.get(12)?, *bytes.get(13)?);
            Some((ports, bytes.get(usize::from(offset >> 4) * 4..).unwrap_or_default(), flags))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered() -> (Packet, Flow) {
        let mut packet = Packet { family: 4, transport: UDP, src_port: 40000, dst_port: 53, ..Packet::default() };
        packet.src[0] = u32::from_ne_bytes([10, 0, 0, 2]);
        packet.dst[0] = u32::from_ne_bytes([169, 254, 116, 108]);
        let flow = Flow {
            src: "10.0.0.2:40000".parse().unwrap(),
            dst: "169.254.116.108:53".parse().unwrap(),
            transport: Transport::Udp,
        };
        (packet, flow)
    }

    fn ip(src: [u8; 4], sport: u16) -> Vec<u8> {
        let mut bytes = vec![0x46, 0, 0, 36, 0, 0, 0x40, 0, 63, UDP, 0, 0];
        bytes.extend(src);
        bytes.extend([169, 254, 116, 108]);
        bytes.extend([1, 1, 1, 1]); // one word of options
        bytes.extend(sport.to_be_bytes());
        bytes.extend([0, 53, 0, 12, 0, 0, 0xab, 0xcd, 1, 0]);
        bytes
    }

    #[test]
    fn masqueraded_it_is_still_the_same() {
        let (mut packet, flow) = remembered();
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0, 0, 5, 8, 0]);
        frame.extend(ip([192, 0, 2, 1], 40000));
        let Same::Whole(now) = same(&frame, &packet, flow) else { panic!("not the same") };
        assert_eq!((now.flow.src, now.ttl), ("192.0.2.1:40000".parse().unwrap(), 63));

        let elsewhere = ip([192, 0, 2, 1], 61000);
        assert_eq!(same(&elsewhere, &packet, flow), Same::No);
        packet.head = [0xab, 0xcd, 1, 0];
        assert!(matches!(same(&elsewhere, &packet, flow), Same::Whole(_)), "the DNS id tells");
    }

    #[test]
    fn a_syn_that_leaves_with_another_port_is_still_the_same() {
        let (mut packet, mut flow) = remembered();
        (packet.transport, packet.tcp_flags, flow.transport) = (TCP, 2, Transport::Tcp);
        let segment = |flags: u8| {
            let mut bytes = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 63, TCP, 0, 0, 192, 0, 2, 1, 169, 254, 116, 108];
            bytes.extend(61000_u16.to_be_bytes());
            bytes.extend([0, 53, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0]);
            bytes
        };
        let syn = segment(2);
        let Same::Whole(now) = same(&syn, &packet, flow) else { panic!("not the same") };
        assert_eq!(now.flow.src, "192.0.2.1:61000".parse().unwrap());
        assert_eq!(same(&segment(16), &packet, flow), Same::No, "an acknowledgement of somebody else's");
        packet.tcp_flags = 16;
        assert_eq!(same(&segment(16), &packet, flow), Same::No);
    }

    #[test]
    fn inside_a_tunnel() {
        let (packet, flow) = remembered();
        let mut outer = ip([192, 0, 2, 1], 8472);
        outer[20] = 0;
        outer[16..20].copy_from_slice(&[192, 0, 2, 2]);
        outer.extend(ip([10, 0, 0, 2], 40000));
        assert_eq!(same(&outer, &packet, flow), Same::Tunnelled);
    }

    /// An Ethernet frame, filled up to a length with ones.
    fn padded(to: usize, family: u8, protocol: u8, l4: &[u8]) -> Vec<u8> {
        let len = u16::try_from(l4.len()).unwrap();
        let mut frame = vec![0; 12];
        if family == 4 {
            frame.extend([0x08, 0, 0x45, 0]);
            frame.extend((20 + len).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 63, protocol, 0, 0, 10, 0, 0, 2, 169, 254, 116, 108]);
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([protocol, 63]);
            frame.extend([[0; 15], [1; 15]].concat());
            frame.extend([2, 3]);
        }
        frame.extend(l4);
        frame.resize(to, 1);
        frame
    }

    fn udp(len: u16, payload: &[u8]) -> Vec<u8> {
        [&[0x9c, 0x40, 0, 53][..], &len.to_be_bytes(), &[0, 0], payload].concat()
    }

    fn payload_of(frame: &[u8], family: u8) -> &[u8] {
        whole(&frame[14..], family).unwrap().payload
    }

    const SHORT: &[u8] = b"\xab\xcd\x01\x00";

    /// Ethernet's shortest frame has 60 bytes without its checksum. A datagram over IPv6 is never that short, but nothing
    /// keeps a sender from filling up to more.
    #[test]
    fn padding_of_a_short_frame_is_no_payload() {
        let acknowledges = [&[0x9c, 0x40, 0, 53][..], &[0; 8], &[0x50, 16, 0, 0, 0, 0, 0, 0]].concat();
        for (family, len) in [(4, 60), (6, 80)] {
            assert_eq!(payload_of(&padded(len, family, UDP, &udp(12, SHORT)), family), SHORT);
            assert_eq!(payload_of(&padded(len, family, UDP, &udp(8, b"")), family), b"");
            assert_eq!(payload_of(&padded(len, family, TCP, &acknowledges), family), b"");
        }
        let (packet, flow) = remembered();
        let frame = padded(60, 4, UDP, &udp(12, SHORT));
        let Same::Whole(now) = same(&frame, &packet, flow) else { panic!("not the same") };
        assert_eq!(now.payload, SHORT);
    }

    #[test]
    fn what_a_datagram_does_not_count_is_no_payload() {
        let trailed = udp(12, b"\xab\xcd\x01\x00\x09\x09");
        for family in [4, 6] {
            assert_eq!(payload_of(&padded(80, family, UDP, &trailed), family), SHORT);
        }
        let (packet, flow) = remembered();
        assert_eq!(same(&trailed, &packet, flow), Same::Payload(SHORT), "a socket's drop begins at the UDP header");
    }

    #[test]
    fn lengths_that_lie_end_at_the_last_byte() {
        for family in [4, 6] {
            let said = if family == 4 { 14 + 2 } else { 14 + 4 };
            let frame = |ip: u16, udp_len: u16| {
                let mut frame = padded(80, family, UDP, &udp(udp_len, SHORT));
                frame[said..said + 2].copy_from_slice(&ip.to_be_bytes());
                frame
            };
            let behind = |frame: &[u8]| whole(&frame[14..], family).map(|now| now.payload.len());
            let l4 = if family == 4 { 20 } else { 40 };
            let rest = 80 - 14 - l4 - 8;
            let (header, all) = if family == 4 { (20, 32) } else { (0, 12) };
            assert_eq!(behind(&frame(0xffff, 0xffff)), Some(rest));
            assert_eq!(behind(&frame(0, 0)), Some(rest), "neither says anything");
            assert_eq!(behind(&frame(all, 0xffff)), Some(4), "the packet ends before");
            for less_than_its_header in [1, 7, 8] {
                assert_eq!(behind(&frame(all, less_than_its_header)), Some(0));
            }
            assert_eq!(behind(&frame(header + 7, 12)), None, "its ports would be nobody's");
            assert_eq!(behind(&frame(1, 12)), None);
        }
    }

    #[test]
    fn later_fragments_have_no_ports() {
        let mut later = ip([10, 0, 0, 2], 40000);
        later[6..8].copy_from_slice(&[0, 4]);
        assert_eq!(whole(&later, 4), None);
    }
}
