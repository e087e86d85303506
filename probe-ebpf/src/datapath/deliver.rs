//! Delivery to a local endpoint: TTL, MAC addresses, redirect (bpf/lib/l3.h `ipv4_local_delivery`).

use aya_ebpf::{
    bindings::TC_ACT_OK,
    helpers::{bpf_redirect, bpf_redirect_peer, bpf_skb_change_head},
    programs::TcContext,
};
use hostdns_probe_ebpf::datapath_abi::{EndpointInfo, EndpointKey};

use crate::{
    drops::Drop,
    packet::{self, ETH_HLEN, ETH_P_IP, ETH_P_IPV6, read, write},
    tables::endpoint,
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// How the packet gets to the endpoint's device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Straight into the pod's namespace; the host side's egress does not see it. At ingress hooks only.
    Peer,
    /// Through the egress of the device on the node's side.
    Egress,
}

/// Takes one from the TTL or hop limit, as a router does (bpf/lib/ipv4.h `ipv4_dec_ttl`).
#[inline(always)]
pub(crate) fn decrement(ctx: &TcContext, l3: usize, family: Family) -> Result<(), Drop> {
    match family {
        Family::V4 => {
            let [ttl, protocol] = read(ctx, l3 + 8)?;
            if ttl <= 1 {
                return Err(Drop::TTL_EXCEEDED);
            }
            let from = u16::from_ne_bytes([ttl, protocol]);
            let to = u16::from_ne_bytes([ttl - 1, protocol]);
            ctx.l3_csum_replace(l3 + 10, from.into(), to.into(), 2).map_err(|_short| Drop::INVALID)?;
            write(ctx, l3 + 8, [ttl - 1])
        }
        Family::V6 => {
            let [hops] = read(ctx, l3 + 7)?;
            if hops <= 1 {
                return Err(Drop::TTL_EXCEEDED);
            }
            write(ctx, l3 + 7, [hops - 1])
        }
    }
}

#[inline(always)]
pub(crate) fn to_endpoint(
    ctx: &TcContext,
    l3: usize,
    family: Family,
    endpoint: &EndpointInfo,
    way: Way,
) -> Result<i32, Drop> {
    decrement(ctx, l3, family)?;
    if l3 == 0 {
        // From a device without an Ethernet header: the pod's device has one.
        // SAFETY: a plain helper call.
        if unsafe { bpf_skb_change_head(ctx.skb.skb, ETH_HLEN as u32, 0) } != 0 {
            return Err(Drop::INVALID);
        }
        let ethertype = match family {
            Family::V4 => ETH_P_IP,
            Family::V6 => ETH_P_IPV6,
        };
        write(ctx, 12, ethertype.to_be_bytes())?;
    }
    let m = endpoint.mac;
    let n = endpoint.node_mac;
    write(ctx, 0, [m[0], m[1], m[2], m[3], m[4], m[5], n[0], n[1], n[2], n[3], n[4], n[5]])?;
    // SAFETY: plain helper calls.
    Ok(unsafe {
        match way {
            Way::Peer => bpf_redirect_peer(endpoint.ifindex, 0),
            Way::Egress => bpf_redirect(endpoint.ifindex, 0),
        }
    } as i32)
}

#[inline(always)]
pub(crate) fn from_host_ipv4(ctx: &TcContext) -> Result<i32, Drop> {
    let ip = packet::ipv4(ctx, ETH_HLEN)?;
    from_host(ctx, &EndpointKey::v4(ip.dst), Family::V4)
}

#[inline(always)]
pub(crate) fn from_host_ipv6(ctx: &TcContext) -> Result<i32, Drop> {
    let (_, dst, _) = packet::ipv6(ctx, ETH_HLEN)?;
    from_host(ctx, &EndpointKey::v6(dst), Family::V6)
}

#[inline(always)]
fn from_host(ctx: &TcContext, dst: &EndpointKey, family: Family) -> Result<i32, Drop> {
    match endpoint(dst) {
        Some(endpoint) => to_endpoint(ctx, ETH_HLEN, family, endpoint, Way::Egress),
        None => Ok(TC_ACT_OK),
    }
}
