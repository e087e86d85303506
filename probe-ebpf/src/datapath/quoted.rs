//! ICMP errors about a masqueraded packet: the quoted header is translated back too, or the pod would not know it.

use aya_ebpf::programs::TcContext;
use hostdns_probe_ebpf::datapath_abi::{SNAT_IN, SnatKey};

use crate::{
    drops::Drop,
    nat::{self, DST_OFFSET, SRC_OFFSET},
    packet::{self, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, Ipv4, read, write},
    tables::SNAT_V4,
};

const DEST_UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// Length of the ICMP header before the quoted packet.
const ICMP_HLEN: usize = 8;

/// Translates an error back; says which pod it is for. None: not an error, or about no flow of ours.
#[inline(always)]
pub(crate) fn reverse(ctx: &TcContext, ip: &Ipv4) -> Result<Option<[u8; 4]>, Drop> {
    let [kind] = read(ctx, ip.l4)?;
    if !matches!(kind, DEST_UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM) {
        return Ok(None);
    }
    // A quote cut short is no reason to lose the error: let the stack see it.
    let Ok(quote) = packet::ipv4(ctx, ip.l4 + ICMP_HLEN) else {
        return Ok(None);
    };
    if quote.later_fragment {
        return Ok(None);
    }
    let Ok([a, b, c, d, e, f]) = read::<6>(ctx, quote.l4) else {
        return Ok(None);
    };
    // The quoted packet went out: its source is the answer's destination.
    let (local, remote, port) = match quote.protocol {
        IPPROTO_TCP | IPPROTO_UDP => ([a, b], [c, d], quote.l4),
        IPPROTO_ICMP => ([e, f], [0, 0], quote.l4 + 4),
        _ => return Ok(None),
    };
    let key = SnatKey {
        daddr: quote.src,
        saddr: quote.dst,
        dport: local,
        sport: remote,
        protocol: quote.protocol,
        flags: SNAT_IN,
    };
    // SAFETY: the value is copied at once.
    let Some((pod, pod_port)) = unsafe { SNAT_V4.get(&key) }.map(|entry| (entry.to_address, entry.to_port)) else {
        return Ok(None);
    };
    if local != pod_port {
        write(ctx, port, pod_port)?;
        let (from, to) = (u16::from_ne_bytes(local), u16::from_ne_bytes(pod_port));
        nat::l4(ctx, ip.l4 + 2, from.into(), to.into(), 2)?;
    }
    // The quoted address and the quoted header's checksum change by opposite amounts: the ICMP checksum stands.
    nat::address(ctx, quote.l3, SRC_OFFSET, quote.src, pod)?;
    nat::address(ctx, ip.l3, DST_OFFSET, ip.dst, pod)?;
    Ok(Some(pod))
}
