//! External devices: masquerade on the way out, its reverse and delivery on the way in (bpf/bpf_host.c).

use aya_ebpf::{bindings::TC_ACT_OK, programs::TcContext};
use hostdns_probe_ebpf::datapath_abi::EndpointKey;

use crate::{
    deliver::{Family, Way, to_endpoint},
    drops::Drop,
    nat,
    packet::{self, IPPROTO_ICMP, l3_offset},
    quoted,
    tables::{config, endpoint},
};

#[inline(always)]
pub(crate) fn to_ipv4(ctx: &TcContext) -> Result<i32, Drop> {
    if config!(masquerade) == 0 {
        return Ok(TC_ACT_OK);
    }
    let ip = packet::ipv4(ctx, l3_offset(ctx))?;
    nat::masquerade(ctx, &ip)?;
    Ok(TC_ACT_OK)
}

#[inline(always)]
pub(crate) fn from_ipv4(ctx: &TcContext) -> Result<i32, Drop> {
    let l3 = l3_offset(ctx);
    let ip = packet::ipv4(ctx, l3)?;
    let mut dst = ip.dst;
    if config!(masquerade) != 0 && !ip.later_fragment {
        let translated = if ip.protocol == IPPROTO_ICMP { quoted::reverse(ctx, &ip)? } else { None };
        let translated = match translated {
            Some(pod) => Some(pod),
            None => nat::reverse(ctx, &ip)?,
        };
        if let Some(pod) = translated {
            dst = pod;
        }
    }
    deliver(ctx, l3, &EndpointKey::v4(dst), Family::V4)
}

#[inline(always)]
pub(crate) fn from_ipv6(ctx: &TcContext) -> Result<i32, Drop> {
    let l3 = l3_offset(ctx);
    let (_, dst, _) = packet::ipv6(ctx, l3)?;
    deliver(ctx, l3, &EndpointKey::v6(dst), Family::V6)
}

#[inline(always)]
fn deliver(ctx: &TcContext, l3: usize, dst: &EndpointKey, family: Family) -> Result<i32, Drop> {
    // With Legacy routing the stack forwards, through cilium_host or the endpoint's route.
    if config!(bpf_host_routing) == 0 {
        return Ok(TC_ACT_OK);
    }
    match endpoint(dst) {
        Some(endpoint) => to_endpoint(ctx, l3, family, endpoint, Way::Peer),
        None => Ok(TC_ACT_OK),
    }
}
