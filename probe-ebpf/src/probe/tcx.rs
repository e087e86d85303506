//! Devices: the head of ingress and egress, before Cilium's programs.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};
use hostdns_probe_ebpf::hook;

use crate::{
    early::{Start, worth_parsing},
    emit,
    parse::{Found, parse},
    settings::OWN_NETNS,
};

/// `TCX_NEXT`, which is `TC_ACT_UNSPEC` to clsact: the next program decides.
const NEXT: i32 = -1;

#[classifier]
pub(crate) fn hostdns_ingress(ctx: TcContext) -> i32 {
    observe(ctx.skb.skb, hook::INGRESS)
}

#[classifier]
pub(crate) fn hostdns_egress(ctx: TcContext) -> i32 {
    observe(ctx.skb.skb, hook::EGRESS)
}

#[inline(always)]
fn observe(skb: *mut __sk_buff, hook: u8) -> i32 {
    if !worth_parsing(skb, Start::Device) {
        return NEXT;
    }
    let mut place = MaybeUninit::uninit();
    let found = Found::zeroed(&mut place);
    if parse(skb, found) {
        // An event belongs to the namespace that it was attached in.
        found.seen.netns = OWN_NETNS.load();
        emit::sighting(skb, hook, found, 0);
    }
    NEXT
}
