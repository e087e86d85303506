//! Sockets: one attachment at the root of cgroup v2 sees every pod's sends and receives, and the node's DNS socket's.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use hostdns_probe_ebpf::hook;

use crate::{
    early::{Start, worth_parsing},
    emit::{self, NAMESPACES},
    parse::{Found, parse},
    settings::{HAVE_NETNS_COOKIE, STRANGERS},
};

/// The packet may pass: always.
const ALLOW: i32 = 1;

#[cgroup_skb(egress)]
pub(crate) fn hostdns_sockout(ctx: SkBuffContext) -> i32 {
    observe(ctx.skb.skb, hook::SOCKET_OUT);
    ALLOW
}

#[cgroup_skb(ingress)]
pub(crate) fn hostdns_sockin(ctx: SkBuffContext) -> i32 {
    observe(ctx.skb.skb, hook::SOCKET_IN);
    ALLOW
}

/// A client's end of it: its question out, its answer in. What a server elsewhere does is none of the node's matters.
#[inline(always)]
fn is_clients(found: &Found, hook: u8) -> bool {
    (found.to != 0) == (hook == hook::SOCKET_OUT)
}

#[inline(always)]
fn observe(skb: *mut __sk_buff, hook: u8) {
    if !worth_parsing(skb, Start::Data) {
        return;
    }
    let mut place = MaybeUninit::uninit();
    let found = Found::zeroed(&mut place);
    if !parse(skb, found) {
        return;
    }
    if HAVE_NETNS_COOKIE.load() != 0 {
        // SAFETY: the program's own context.
        let netns = unsafe { bpf_get_netns_cookie(skb.cast()) };
        if NAMESPACES.get_ptr(&netns).is_none() && !(STRANGERS.load() != 0 && is_clients(found, hook)) {
            return;
        }
        found.seen.netns = netns;
    }
    // SAFETY: the program's own context.
    let socket = unsafe { bpf_get_socket_cookie(skb.cast()) };
    emit::sighting(skb, hook, found, socket);
}
