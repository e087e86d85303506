//! From the bytes off the kernel to an [`Event`]. Pure; no byte is trusted.

pub mod dns;
pub mod packet;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use hostdns_probe_ebpf::{Packet, Record, TCP, UDP, hook};

use super::{
    Flow, HookKind,
    event::{DnsHead, Event},
};
use crate::facts::Transport;

/// Why a record is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the record is shorter than its type")]
    Short,
    #[error("the record's hook, family or transport is unknown")]
    Unknown,
    /// Not lost, and not ours: nothing to count.
    #[error("the skb's address was used again by another packet")]
    Recycled,
}

/// Decodes one record with what follows it.
///
/// # Errors
/// It is malformed, or about another packet than the one remembered under its address.
pub fn event(bytes: &[u8], drop_reasons: &BTreeMap<u32, String>) -> Result<Event, Error> {
    let (record, tail) = Record::split(bytes).ok_or(Error::Short)?;
    let hook = hook_kind(record.hook).ok_or(Error::Unknown)?;
    let remembered = flow(&record.packet).ok_or(Error::Unknown)?;
    let packet = &record.packet;
    let mut event = Event {
        time_ns: record.time_ns,
        hook,
        netns: record.netns,
        ifindex: record.ifindex,
        skb: record.skb,
        came_by: if matches!(hook, HookKind::SocketIn | HookKind::Egress) { record.detail } else { 0 },
        socket: record.socket,
        flow: Some(remembered),
        dns: None,
        tcp_flags: packet.tcp_flags,
        sequence: record.sequence,
        ttl: packet.ttl,
        drop_reason: (hook == HookKind::Drop).then(|| drop_reason(record.detail, drop_reasons)),
        icmp_error: (packet.icmp_type != 0).then_some((packet.icmp_type, packet.icmp_code)),
        payload: None,
        payload_len: record.payload_len,
    };
    if record.recalled == 0 {
        event.take(tail, remembered.transport);
        if tail.is_empty() {
            event.dns = message_seen_before(&record);
        }
        return Ok(event);
    }
    if tail.is_empty() {
        // `bpf_skb_output` failed: without bytes only the remembered flow names it. For a packet on its way out that
        // flow is the one before address translation, which must not pass for the one on the wire.
        if hook == HookKind::Transmit {
            event.flow = None;
        }
        return Ok(event);
    }
    match packet::same(tail, packet, remembered) {
        packet::Same::Whole(now) => {
            event.ttl = now.ttl;
            event.flow = Some(now.flow);
            event.take(now.payload, remembered.transport);
            if remembered.transport == Transport::Tcp {
                (event.tcp_flags, event.sequence) = (now.tcp_flags, now.sequence);
            }
        }
        packet::Same::Payload(payload) => event.take(payload, remembered.transport),
        packet::Same::Tunnelled => {}
        packet::Same::No => return Err(Error::Recycled),
    }
    Ok(event)
}

/// A sighting without its bytes, which an earlier one had: id and flags stand in its first four.
fn message_seen_before(record: &Record) -> Option<DnsHead> {
    let [a, b, c, d] = record.packet.head;
    let whole = record.packet.transport == UDP && record.payload_len >= 12 && record.packet.head != [0; 4];
    let word = |high, low| u16::from_be_bytes([high, low]);
    whole.then(|| DnsHead { id: word(a, b), flags: word(c, d), qname: None, qtype: None })
}

impl Event {
    fn take(&mut self, payload: &[u8], transport: Transport) {
        self.dns = dns::head(payload, transport);
        self.payload = (!payload.is_empty()).then(|| payload.into());
    }
}

fn hook_kind(hook: u8) -> Option<HookKind> {
    Some(match hook {
        hook::SOCKET_OUT => HookKind::SocketOut,
        hook::SOCKET_IN => HookKind::SocketIn,
        hook::INGRESS => HookKind::Ingress,
        hook::EGRESS => HookKind::Egress,
        hook::TRANSMIT => HookKind::Transmit,
        hook::DROP => HookKind::Drop,
        _ => return None,
    })
}

fn flow(packet: &Packet) -> Option<Flow> {
    let address = |bytes: [u8; 16]| match packet.family {
        4 => Some(IpAddr::from(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))),
        6 => Some(IpAddr::from(Ipv6Addr::from(bytes))),
        _ => None,
    };
    let [src, dst] = packet.addresses();
    let transport = match packet.transport {
        UDP => Transport::Udp,
        TCP => Transport::Tcp,
        _ => return None,
    };
    Some(Flow {
        src: SocketAddr::new(address(src)?, packet.src_port),
        dst: SocketAddr::new(address(dst)?, packet.dst_port),
        transport,
    })
}

/// The name that the running kernel gives it. Upper half: the subsystem (`SKB_DROP_REASON_SUBSYS_SHIFT`, Linux 6.4),
/// whose reasons are not in the main enum.
fn drop_reason(reason: u32, names: &BTreeMap<u32, String>) -> String {
    names.get(&reason).cloned().unwrap_or_else(|| match reason >> 16 {
        0 => format!("REASON_{reason}"),
        subsystem => format!("SUBSYSTEM_{subsystem}_REASON_{}", reason & 0xffff),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Packet {
        let mut packet = Packet {
            src_port: 40000,
            dst_port: 53,
            family: 4,
            transport: UDP,
            ttl: 64,
            head: [0x12, 0x34, 1, 0],
            ..Packet::default()
        };
        packet.src[0] = u32::from_ne_bytes([10, 0, 0, 2]);
        packet.dst[0] = u32::from_ne_bytes([169, 254, 116, 108]);
        packet
    }

    fn bytes(record: Record, tail: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<Record>()];
        // SAFETY: the buffer has a record's size; a record has no padding.
        unsafe { bytes.as_mut_ptr().cast::<Record>().write_unaligned(record) };
        bytes.extend(tail);
        bytes
    }

    fn dropped(tail: &[u8]) -> Result<Event, Error> {
        let record = Record {
            hook: hook::DROP,
            recalled: 1,
            detail: 3,
            captured: tail.len() as u16,
            packet: packet(),
            ..Record::default()
        };
        event(&bytes(record, tail), &BTreeMap::from([(3, "NO_SOCKET".to_owned())]))
    }

    const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01";

    #[test]
    fn a_sighting_carries_the_question() {
        let record = Record { hook: hook::INGRESS, captured: 19, packet: packet(), ..Record::default() };
        let event = event(&bytes(record, QUERY), &BTreeMap::new()).unwrap();
        assert_eq!(event.flow.unwrap().dst, "169.254.116.108:53".parse().unwrap());
        let dns = event.dns.unwrap();
        assert_eq!((dns.id, dns.qname.as_deref(), dns.qtype), (0x1234, Some("a."), Some(1)));
    }

    #[test]
    fn a_socket_drop_begins_at_the_udp_header() {
        let mut tail = vec![0x9c, 0x40, 0, 53, 0, 27, 0, 0];
        tail.extend(QUERY);
        let event = dropped(&tail).unwrap();
        assert_eq!(event.drop_reason.as_deref(), Some("NO_SOCKET"));
        assert_eq!(event.dns.unwrap().id, 0x1234);
    }

    #[test]
    fn a_full_socket_drops_the_bare_message() {
        assert_eq!(dropped(QUERY).unwrap().dns.unwrap().id, 0x1234);
    }

    #[test]
    fn another_packet_at_the_same_address_is_not_ours() {
        let mut other = QUERY.to_vec();
        other[0] = 0x99;
        assert_eq!(dropped(&other), Err(Error::Recycled));
        let mut other = vec![0x9c, 0x41, 0, 80, 0, 27, 0, 0];
        other.extend(QUERY);
        assert_eq!(dropped(&other), Err(Error::Recycled));
    }

    #[test]
    fn unknown_reasons_keep_their_number() {
        assert_eq!(drop_reason(77, &BTreeMap::new()), "REASON_77");
        assert_eq!(drop_reason(3 << 16 | 5, &BTreeMap::new()), "SUBSYSTEM_3_REASON_5");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let _ = event(&bytes, &BTreeMap::new());
        }

        #[test]
        fn no_tail_makes_it_panic(tail in proptest::collection::vec(proptest::num::u8::ANY, 0..192)) {
            let _ = dropped(&tail);
        }
    }
}
