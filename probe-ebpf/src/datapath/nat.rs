//! BPF masquerade for IPv4 (bpf/lib/nat.h): both entries in `cilium_snat_v4_external`, the source port kept unless taken.
//! Later fragments pass untouched: there is no fragment tracking here.

use aya_ebpf::{
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns},
    maps::lpm_trie::Key,
    programs::TcContext,
};
use hostdns_probe_ebpf::datapath_abi::{EndpointKey, SNAT_IN, SNAT_OUT, SnatEntry, SnatKey};

use crate::{
    drops::Drop,
    packet::{IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, Ipv4, read, write},
    tables::{IPMASQ_V4, SNAT_V4, config, endpoint},
};

const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;
const BPF_F_PSEUDO_HDR: u64 = 1 << 4;
const BPF_F_MARK_MANGLED_0: u64 = 1 << 5;

const ICMP_ECHO_REPLY: u8 = 0;
const ICMP_ECHO: u8 = 8;

/// How many other ports are tried when the source port is taken.
const PORT_TRIES: u32 = 16;

pub(crate) const SRC_OFFSET: usize = 12;
pub(crate) const DST_OFFSET: usize = 16;

/// Ports of a packet as the NAT tuples name them.
struct Ports {
    src: [u8; 2],
    dst: [u8; 2],
}

#[inline(always)]
fn ports(ctx: &TcContext, ip: &Ipv4, echo: u8) -> Result<Option<Ports>, Drop> {
    if ip.later_fragment {
        return Ok(None);
    }
    Ok(match ip.protocol {
        IPPROTO_TCP | IPPROTO_UDP => {
            let [a, b, c, d] = read(ctx, ip.l4)?;
            Some(Ports { src: [a, b], dst: [c, d] })
        }
        IPPROTO_ICMP => {
            let [kind, _, _, _, a, b] = read(ctx, ip.l4)?;
            // The identifier is the port of whoever sent the echo.
            match kind {
                ICMP_ECHO if echo == ICMP_ECHO => Some(Ports { src: [a, b], dst: [0, 0] }),
                ICMP_ECHO_REPLY if echo == ICMP_ECHO_REPLY => Some(Ports { src: [0, 0], dst: [a, b] }),
                _ => None,
            }
        }
        _ => None,
    })
}

#[inline(always)]
fn entry(to_address: [u8; 4], to_port: [u8; 2]) -> SnatEntry {
    // SAFETY: a plain helper call.
    let created = unsafe { bpf_ktime_get_ns() } / 1_000_000_000;
    SnatEntry { created, needs_ct: 0, pad1: [0; 2], to_address, to_port, pad2: [0; 2] }
}

/// Whether a packet is to leave under the node's address (`snat_v4_needs_masquerade`).
#[inline(always)]
fn wanted(ip: &Ipv4) -> bool {
    let cidr = config!(pod_cidr);
    let mask = config!(pod_cidr_mask);
    let dst = u32::from_ne_bytes(ip.dst);
    if dst & u32::from_ne_bytes(mask) == u32::from_ne_bytes(cidr) {
        return false;
    }
    if endpoint(&EndpointKey::v4(ip.src)).is_none() {
        return false;
    }
    IPMASQ_V4.get(&Key::new(32, ip.dst)).is_none()
}

/// The address of the device that the packet leaves by.
#[inline(always)]
fn node_address(ctx: &TcContext) -> [u8; 4] {
    // SAFETY: the context is valid for the program's life.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    if config!(external[1].ifindex) == ifindex { config!(external[1].ipv4) } else { config!(external[0].ipv4) }
}

#[inline(always)]
pub(crate) fn masquerade(ctx: &TcContext, ip: &Ipv4) -> Result<(), Drop> {
    if !wanted(ip) {
        return Ok(());
    }
    let Some(Ports { src: sport, dst: dport }) = ports(ctx, ip, ICMP_ECHO)? else {
        return Ok(());
    };
    let node = node_address(ctx);
    let out = SnatKey { daddr: ip.dst, saddr: ip.src, dport, sport, protocol: ip.protocol, flags: SNAT_OUT };
    // SAFETY: the value is copied at once; a recycled entry gives another flow's port, which Cilium accepts as well.
    let found = unsafe { SNAT_V4.get(&out) }.map(|entry| (entry.to_address, entry.to_port));
    let (to_address, to_port) = match found {
        Some((address, port)) if address == node => {
            // The LRU may have lost the way back alone.
            let back = SnatKey {
                daddr: node,
                saddr: ip.dst,
                dport: port,
                sport: dport,
                protocol: ip.protocol,
                flags: SNAT_IN,
            };
            let _present = SNAT_V4.insert(&back, &entry(ip.src, sport), BPF_NOEXIST);
            (address, port)
        }
        _ => (node, allocate(ip, node, sport, dport, &out)?),
    };
    rewrite(ctx, ip, SRC_OFFSET, ip.src, to_address, 0, sport, to_port)
}

/// Takes a port by inserting the way back; that fails where another flow has it.
#[inline(always)]
fn allocate(ip: &Ipv4, node: [u8; 4], sport: [u8; 2], dport: [u8; 2], out: &SnatKey) -> Result<[u8; 2], Drop> {
    let mut port = sport;
    for _ in 0..PORT_TRIES {
        let back =
            SnatKey { daddr: node, saddr: ip.dst, dport: port, sport: dport, protocol: ip.protocol, flags: SNAT_IN };
        if SNAT_V4.insert(&back, &entry(ip.src, sport), BPF_NOEXIST).is_ok() {
            SNAT_V4.insert(out, &entry(node, port), BPF_ANY).map_err(|_full| Drop::NAT_NO_MAPPING)?;
            return Ok(port);
        }
        // Above Cilium's NodePort range (30000 to 32767).
        // SAFETY: a plain helper call.
        port = (unsafe { bpf_get_prandom_u32() } as u16 | 0x8000).to_be_bytes();
    }
    Err(Drop::NAT_NO_MAPPING)
}

/// Undoes the masquerade of an answer; says which pod it is for.
#[inline(always)]
pub(crate) fn reverse(ctx: &TcContext, ip: &Ipv4) -> Result<Option<[u8; 4]>, Drop> {
    let Some(Ports { src: sport, dst: dport }) = ports(ctx, ip, ICMP_ECHO_REPLY)? else {
        return Ok(None);
    };
    let key = SnatKey { daddr: ip.dst, saddr: ip.src, dport, sport, protocol: ip.protocol, flags: SNAT_IN };
    // SAFETY: the value is copied at once.
    let Some((address, port)) = unsafe { SNAT_V4.get(&key) }.map(|entry| (entry.to_address, entry.to_port)) else {
        return Ok(None);
    };
    rewrite(ctx, ip, DST_OFFSET, ip.dst, address, 2, dport, port)?;
    Ok(Some(address))
}

/// Puts another address and port in, and the checksums right. `port_offset` is 0 for the source, 2 for the destination
/// port; of an ICMP echo it is the identifier either way.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "what is replaced by what: a struct would only name it twice")]
fn rewrite(
    ctx: &TcContext,
    ip: &Ipv4,
    address_offset: usize,
    from: [u8; 4],
    to: [u8; 4],
    port_offset: usize,
    from_port: [u8; 2],
    to_port: [u8; 2],
) -> Result<(), Drop> {
    let (sum, port, pseudo, flags) = match ip.protocol {
        IPPROTO_TCP => (ip.l4 + 16, ip.l4 + port_offset, true, 0),
        IPPROTO_UDP => (ip.l4 + 6, ip.l4 + port_offset, true, BPF_F_MARK_MANGLED_0),
        _ => (ip.l4 + 2, ip.l4 + 4, false, 0),
    };
    if pseudo {
        l4(ctx, sum, u32::from_ne_bytes(from).into(), u32::from_ne_bytes(to).into(), flags | BPF_F_PSEUDO_HDR | 4)?;
    }
    if from_port != to_port {
        l4(ctx, sum, u16::from_ne_bytes(from_port).into(), u16::from_ne_bytes(to_port).into(), flags | 2)?;
        write(ctx, port, to_port)?;
    }
    address(ctx, ip.l3, address_offset, from, to)
}

#[inline(always)]
pub(crate) fn l4(ctx: &TcContext, offset: usize, from: u64, to: u64, flags: u64) -> Result<(), Drop> {
    ctx.l4_csum_replace(offset, from, to, flags).map_err(|_short| Drop::INVALID)
}

/// Another address in an IPv4 header, and its checksum.
#[inline(always)]
pub(crate) fn address(ctx: &TcContext, l3: usize, offset: usize, from: [u8; 4], to: [u8; 4]) -> Result<(), Drop> {
    ctx.l3_csum_replace(l3 + 10, u32::from_ne_bytes(from).into(), u32::from_ne_bytes(to).into(), 4)
        .map_err(|_short| Drop::INVALID)?;
    write(ctx, l3 + offset, to)
}
