//! A model of the decisions that Cilium's datapath makes about packets to the node's own addresses, for the lab. It is
//! not Cilium: no services, no connection tracking, no tunnels. Program names and attach points are Cilium's.
#![no_std]
#![no_main]
#![expect(unreachable_pub, reason = "the classifier macro wants its programs public")]

mod deliver;
mod drops;
mod from_container;
mod nat;
mod netdev;
mod packet;
mod quoted;
mod tables;

use aya_ebpf::{bindings::TC_ACT_OK, macros::classifier, programs::TcContext};

use crate::packet::{ETH_P_IP, ETH_P_IPV6, protocol};

/// lxc ingress: what a pod sends.
#[classifier]
pub fn cil_from_container(ctx: TcContext) -> i32 {
    match protocol(&ctx) {
        ETH_P_IP => from_container::ipv4(&ctx),
        ETH_P_IPV6 => from_container::ipv6(&ctx),
        _ => Ok(TC_ACT_OK),
    }
    .unwrap_or_else(|drop| drop.count(&ctx, drops::BPF_LXC))
}

/// lxc egress, with endpoint routes only: what a pod gets. Ingress policy is not modelled.
#[classifier]
pub fn cil_to_container(_ctx: TcContext) -> i32 {
    TC_ACT_OK
}

/// External device, ingress.
#[classifier]
pub fn cil_from_netdev(ctx: TcContext) -> i32 {
    match protocol(&ctx) {
        ETH_P_IP => netdev::from_ipv4(&ctx),
        ETH_P_IPV6 => netdev::from_ipv6(&ctx),
        _ => Ok(TC_ACT_OK),
    }
    .unwrap_or_else(|drop| drop.count(&ctx, drops::BPF_HOST))
}

/// External device, egress.
#[classifier]
pub fn cil_to_netdev(ctx: TcContext) -> i32 {
    match protocol(&ctx) {
        ETH_P_IP => netdev::to_ipv4(&ctx),
        _ => Ok(TC_ACT_OK),
    }
    .unwrap_or_else(|drop| drop.count(&ctx, drops::BPF_HOST))
}

/// cilium_host egress: what the node sends to its pods.
#[classifier]
pub fn cil_from_host(ctx: TcContext) -> i32 {
    match protocol(&ctx) {
        ETH_P_IP => deliver::from_host_ipv4(&ctx),
        ETH_P_IPV6 => deliver::from_host_ipv6(&ctx),
        _ => Ok(TC_ACT_OK),
    }
    .unwrap_or_else(|drop| drop.count(&ctx, drops::BPF_HOST))
}

/// cilium_host and cilium_net ingress. The host firewall is not modelled.
#[classifier]
pub fn cil_to_host(_ctx: TcContext) -> i32 {
    TC_ACT_OK
}

/// cilium_vxlan ingress. There is no other node to hear from.
#[classifier]
pub fn cil_from_overlay(_ctx: TcContext) -> i32 {
    TC_ACT_OK
}

/// cilium_vxlan egress.
#[classifier]
pub fn cil_to_overlay(_ctx: TcContext) -> i32 {
    TC_ACT_OK
}

/// Unreachable by construction: a call to it does not verify.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
