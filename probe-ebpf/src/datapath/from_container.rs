//! What happens to a packet that a pod sends: the tail of Cilium's `handle_ipv4_from_lxc` (bpf/bpf_lxc.c).

use core::mem::zeroed;

use aya_ebpf::{
    bindings::{TC_ACT_OK, bpf_fib_lookup, bpf_redir_neigh},
    helpers::{bpf_fib_lookup as fib_lookup, bpf_redirect, bpf_redirect_neigh},
    programs::TcContext,
};
use hostdns_probe_ebpf::datapath_abi::EndpointKey;

use crate::{
    deliver::{self, Family, Way},
    drops::Drop,
    packet::{self, ETH_HLEN},
    tables::{DENIED, config, is_host, lookup},
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

// enum in linux/bpf.h.
const FIB_SUCCESS: i64 = 0;
const FIB_NOT_FWDED: i64 = 4;
const FIB_NO_NEIGH: i64 = 7;

#[inline(always)]
pub(crate) fn ipv4(ctx: &TcContext) -> Result<i32, Drop> {
    let ip = packet::ipv4(ctx, ETH_HLEN)?;
    // Multicast and broadcast are the stack's.
    if ip.dst[0] >= 224 {
        return Ok(TC_ACT_OK);
    }
    if let Some(verdict) = without_route(ctx, &EndpointKey::v4(ip.dst), Family::V4)? {
        return Ok(verdict);
    }
    // SAFETY: a plain C struct; all zero is a valid value of it.
    let mut params: bpf_fib_lookup = unsafe { zeroed() };
    params.family = AF_INET;
    params.l4_protocol = ip.protocol;
    params.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(ip.src);
    params.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(ip.dst);
    route(ctx, &mut params, Family::V4)
}

#[inline(always)]
pub(crate) fn ipv6(ctx: &TcContext) -> Result<i32, Drop> {
    let (src, dst, next) = packet::ipv6(ctx, ETH_HLEN)?;
    // Multicast, link-local and neighbour discovery (RFC 4861, types 133 to 137) are the stack's.
    if dst[0] == 0xff || (dst[0] == 0xfe && dst[1] & 0xc0 == 0x80) {
        return Ok(TC_ACT_OK);
    }
    if next == packet::IPPROTO_ICMPV6 && matches!(packet::read::<1>(ctx, ETH_HLEN + 40)?[0], 133..=137) {
        return Ok(TC_ACT_OK);
    }
    if let Some(verdict) = without_route(ctx, &EndpointKey::v6(dst), Family::V6)? {
        return Ok(verdict);
    }
    // SAFETY: as above.
    let mut params: bpf_fib_lookup = unsafe { zeroed() };
    params.family = AF_INET6;
    params.l4_protocol = next;
    params.__bindgen_anon_3.ipv6_src = words(src);
    params.__bindgen_anon_4.ipv6_dst = words(dst);
    route(ctx, &mut params, Family::V6)
}

#[inline(always)]
fn words(ip: [u8; 16]) -> [u32; 4] {
    // SAFETY: same size, no invalid values.
    unsafe { core::mem::transmute(ip) }
}

/// The verdict, where no route has to be looked up for it.
#[inline(always)]
fn without_route(ctx: &TcContext, dst: &EndpointKey, family: Family) -> Result<Option<i32>, Drop> {
    // SAFETY: only presence is looked at.
    if unsafe { DENIED.get(dst) }.is_some() {
        return Err(Drop::POLICY);
    }
    if config!(bpf_host_routing) == 0 {
        return Ok(Some(TC_ACT_OK));
    }
    if let Some(known) = lookup(dst) {
        if is_host(known) {
            return Ok(Some(TC_ACT_OK));
        }
        return deliver::to_endpoint(ctx, ETH_HLEN, family, known, Way::Peer).map(Some);
    }
    if config!(unknown_to_stack) != 0 {
        return Ok(Some(TC_ACT_OK));
    }
    if config!(shortcut_ifindex) != 0 {
        return shortcut(ctx, family).map(Some);
    }
    Ok(None)
}

/// ENABLE_SKIP_FIB (bpf/lib/fib.h `redirect_direct_v4`): the kernel looks the route up bound to the device, so that a
/// local address is not found to be local, and the packet leaves.
#[inline(always)]
fn shortcut(ctx: &TcContext, family: Family) -> Result<i32, Drop> {
    deliver::decrement(ctx, ETH_HLEN, family)?;
    let ifindex = config!(shortcut_ifindex);
    if config!(shortcut_layer3) != 0 {
        // SAFETY: a plain helper call.
        return Ok(unsafe { bpf_redirect(ifindex, 0) } as i32);
    }
    // SAFETY: as above; without a neighbour the kernel finds the next hop.
    Ok(unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) } as i32)
}

#[inline(always)]
fn route(ctx: &TcContext, params: &mut bpf_fib_lookup, family: Family) -> Result<i32, Drop> {
    // SAFETY: the context is valid for the program's life.
    params.ifindex = unsafe { (*ctx.skb.skb).ifindex };
    // SAFETY: the struct outlives the call, its size is given.
    let found = unsafe { fib_lookup(ctx.skb.skb.cast(), params, size_of::<bpf_fib_lookup>() as i32, 0) };
    match found {
        FIB_SUCCESS | FIB_NO_NEIGH => {
            deliver::decrement(ctx, ETH_HLEN, family)?;
            let ifindex = params.ifindex;
            if config!(external[0].ifindex) == ifindex && config!(external[0].layer3) != 0
                || config!(external[1].ifindex) == ifindex && config!(external[1].layer3) != 0
            {
                // SAFETY: a plain helper call.
                return Ok(unsafe { bpf_redirect(ifindex, 0) } as i32);
            }
            // SAFETY: a plain C struct; all zero is a valid value of it.
            let mut next_hop: bpf_redir_neigh = unsafe { zeroed() };
            next_hop.nh_family = u32::from(params.family);
            // The lookup has put the gateway, or the destination itself, where the destination was.
            // SAFETY: both unions are plain integers of the same size.
            next_hop.__bindgen_anon_1.ipv6_nh = unsafe { params.__bindgen_anon_4.ipv6_dst };
            // SAFETY: as above.
            Ok(unsafe { bpf_redirect_neigh(ifindex, &raw mut next_hop, size_of::<bpf_redir_neigh>() as i32, 0) } as i32)
        }
        FIB_NOT_FWDED if config!(fib_miss_to_stack) != 0 => Ok(TC_ACT_OK),
        _ => Err(Drop::NO_FIB),
    }
}
