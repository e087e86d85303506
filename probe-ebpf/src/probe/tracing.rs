//! Tracepoints, for skbs that the other hooks saw: what leaves a device after address translation, and what dies.
//!
//! Addresses of skbs are recycled, and freeing one in peace (`consume_skb`) is not watched, it is too frequent. So an
//! entry counts only for a while, and userspace compares the packet's bytes with what was remembered.

use core::ffi::c_void;

use aya_ebpf::{
    Global, helpers::generated::bpf_ktime_get_boot_ns, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use hostdns_probe_ebpf::{Record, Seen, hook};

use crate::{
    emit::{self, EXITS, NAMESPACES, SEEN},
    settings::{DEV_IFINDEX, DEV_NET, NET_COOKIE, OWN_NETNS, SKB_DEV, SKB_LEN, STRANGERS},
};

/// A packet does not travel longer than this through one node (nanoseconds).
pub(crate) const LIFETIME: u64 = 3_000_000_000;

/// `net_dev_start_xmit(skb, dev)`: the packet as the device gets it, after Cilium's masquerading.
#[btf_tracepoint(function = "net_dev_start_xmit")]
pub(crate) fn hostdns_xmit(ctx: BtfTracePointContext) -> i32 {
    let skb: *mut c_void = ctx.arg(0);
    let key = skb as u64;
    let Some(seen) = SEEN.get_ptr(&key) else { return 0 };
    let dev: *const c_void = ctx.arg(1);
    // SAFETY: BTF-typed pointers at offsets of the running kernel's own BTF; the kernel turns a bad one into 0.
    let (ifindex, netns, len) = unsafe { (ifindex(dev), netns(dev), field::<u32>(skb, &SKB_LEN)) };
    if netns != OWN_NETNS.load() || EXITS.get_ptr(&ifindex).is_none() {
        return 0;
    }
    // SAFETY: a live map value.
    let Some(mut record) = (unsafe { remember(seen, key) }) else { return 0 };
    record.hook = hook::TRANSMIT;
    record.netns = netns;
    record.ifindex = ifindex;
    // SAFETY: the tracepoint's own argument.
    unsafe { emit::recalled(skb, len, &mut record) };
    0
}

/// `kfree_skb(skb, location, reason)`: a packet dies, and not because it arrived.
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn hostdns_drop(ctx: BtfTracePointContext) -> i32 {
    let skb: *mut c_void = ctx.arg(0);
    let key = skb as u64;
    let Some(seen) = SEEN.get_ptr(&key) else { return 0 };
    // SAFETY: a live map value.
    let record = unsafe { remember(seen, key) };
    let Some(mut record) = record else {
        let _ = SEEN.remove(&key);
        return 0;
    };
    record.hook = hook::DROP;
    record.detail = ctx.arg::<u64>(2) as u32;
    // SAFETY: as above. There may be no device, and UDP keeps something else in its place while the packet sits in a
    // socket's queue: then the loads give 0, and what was remembered stands.
    let (ifindex, netns, len) = unsafe {
        let dev: *const c_void = field::<*const c_void>(skb, &SKB_DEV);
        (ifindex(dev), netns(dev), field::<u32>(skb, &SKB_LEN))
    };
    if netns != 0 {
        record.ifindex = ifindex;
        record.netns = netns;
    }
    if record.netns == 0 || STRANGERS.load() != 0 || NAMESPACES.get_ptr(&record.netns).is_some() {
        // SAFETY: the tracepoint's own argument.
        unsafe { emit::recalled(skb, len, &mut record) };
    }
    let _ = SEEN.remove(&key);
    0
}

/// A record of what an earlier hook saw, unless that is too long ago to be the same packet.
///
/// # Safety
/// `seen` is a live value of [`SEEN`].
#[inline(always)]
unsafe fn remember(seen: *const Seen, key: u64) -> Option<Record> {
    // SAFETY: the caller vouches for `seen`; the helper takes nothing.
    let (seen, time_ns) = unsafe { (&*seen, bpf_ktime_get_boot_ns()) };
    if time_ns.wrapping_sub(seen.time_ns) > LIFETIME || seen.muted != 0 {
        return None;
    }
    Some(Record {
        time_ns,
        skb: key,
        netns: seen.netns,
        socket: 0,
        ifindex: seen.ifindex,
        detail: 0,
        hook: 0,
        recalled: 1,
        captured: 0,
        payload_len: 0,
        sequence: [0; 2],
        packet: seen.packet,
    })
}

#[inline(always)]
unsafe fn ifindex(dev: *const c_void) -> u32 {
    // SAFETY: the caller's `dev` is BTF-typed.
    unsafe { field(dev, &DEV_IFINDEX) }
}

/// `dev->nd_net.net->net_cookie`.
#[inline(always)]
unsafe fn netns(dev: *const c_void) -> u64 {
    // SAFETY: the caller's `dev` is BTF-typed, and so is what it points to.
    unsafe {
        let net: *const c_void = field(dev, &DEV_NET);
        field(net, &NET_COOKIE)
    }
}

/// # Safety
/// `object` is a BTF-typed pointer, and `offset` that of a `T` in it.
#[inline(always)]
unsafe fn field<T>(object: *const c_void, offset: &Global<u32>) -> T {
    // SAFETY: the caller vouches for both; volatile, or the compiler would merge and widen loads of what it takes for
    // plain memory.
    unsafe { object.byte_add(offset.load() as usize).cast::<T>().read_volatile() }
}
