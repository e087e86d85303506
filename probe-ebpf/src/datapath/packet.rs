//! Reading headers. Offsets come from the packet: IP options count, and devices without an Ethernet header start at IP.

use aya_ebpf::programs::TcContext;

use crate::{drops::Drop, tables::config};

pub(crate) const ETH_HLEN: usize = 14;
pub(crate) const ETH_P_IP: u16 = 0x0800;
pub(crate) const ETH_P_IPV6: u16 = 0x86dd;

pub(crate) const IPPROTO_ICMP: u8 = 1;
pub(crate) const IPPROTO_TCP: u8 = 6;
pub(crate) const IPPROTO_UDP: u8 = 17;
pub(crate) const IPPROTO_ICMPV6: u8 = 58;

/// EtherType, from the kernel's own view of the packet: there may be no Ethernet header to read it from.
#[inline(always)]
pub(crate) fn protocol(ctx: &TcContext) -> u16 {
    // SAFETY: the context is valid for the program's life.
    u16::from_be(unsafe { (*ctx.skb.skb).protocol } as u16)
}

/// A fixed number of bytes at an offset.
#[inline(always)]
pub(crate) fn read<const N: usize>(ctx: &TcContext, offset: usize) -> Result<[u8; N], Drop> {
    ctx.load::<[u8; N]>(offset).map_err(|_short| Drop::INVALID)
}

#[inline(always)]
pub(crate) fn write<const N: usize>(ctx: &TcContext, offset: usize, bytes: [u8; N]) -> Result<(), Drop> {
    ctx.store(offset, &bytes, 0).map_err(|_short| Drop::INVALID)
}

/// Where the IP header starts on the device that the packet is at.
#[inline(always)]
pub(crate) fn l3_offset(ctx: &TcContext) -> usize {
    // SAFETY: as above.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    let first = config!(external[0].ifindex) == ifindex && config!(external[0].layer3) != 0;
    let second = config!(external[1].ifindex) == ifindex && config!(external[1].layer3) != 0;
    if first || second { 0 } else { ETH_HLEN }
}

/// The part of an IPv4 header that decisions need.
#[derive(Clone, Copy)]
pub(crate) struct Ipv4 {
    /// Offset of the IP header.
    pub(crate) l3: usize,
    /// Offset of what follows it.
    pub(crate) l4: usize,
    pub(crate) protocol: u8,
    pub(crate) src: [u8; 4],
    pub(crate) dst: [u8; 4],
    /// Not the first fragment: no ports in it.
    pub(crate) later_fragment: bool,
}

#[inline(always)]
pub(crate) fn ipv4(ctx: &TcContext, l3: usize) -> Result<Ipv4, Drop> {
    let h: [u8; 20] = read(ctx, l3)?;
    let header_len = usize::from(h[0] & 0x0f) * 4;
    if h[0] >> 4 != 4 || header_len < 20 {
        return Err(Drop::INVALID);
    }
    Ok(Ipv4 {
        l3,
        l4: l3 + header_len,
        protocol: h[9],
        src: [h[12], h[13], h[14], h[15]],
        dst: [h[16], h[17], h[18], h[19]],
        later_fragment: (h[6] & 0x1f) != 0 || h[7] != 0,
    })
}

/// Source and destination of an IPv6 packet, and its first next-header value.
#[inline(always)]
pub(crate) fn ipv6(ctx: &TcContext, l3: usize) -> Result<([u8; 16], [u8; 16], u8), Drop> {
    Ok((read(ctx, l3 + 8)?, read(ctx, l3 + 24)?, read::<1>(ctx, l3 + 6)?[0]))
}
