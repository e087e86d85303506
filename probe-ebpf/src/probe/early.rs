//! The first look: is it worth parsing at all? Most packets of a node are none of ours, and leave here after a handful
//! of loads straight from the packet. It may say yes too often, never no too often: the parser decides.

use core::ptr::read_volatile;

use aya_ebpf::bindings::__sk_buff;
use hostdns_probe_ebpf::MAX_TARGETS;

use crate::{
    parse::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, ICMP, ICMPV6},
    settings::{TARGETS_V4, TARGETS_V6},
};

/// Where the network header may begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the data (cgroup_skb: `__cgroup_bpf_run_filter_skb` sees to it).
    Data,
    /// Behind an Ethernet header, or with the data where the device has none.
    Device,
}

const ETHERNET: usize = 14;

/// Header fields, aligned as they are behind an Ethernet header at least; addresses in network byte order.
#[repr(C, packed(2))]
struct V4 {
    version_and_length: u8,
    _tos: u8,
    _len_id_fragment: [u16; 3],
    _ttl: u8,
    protocol: u8,
    _checksum: u16,
    src: u32,
    dst: u32,
}

#[repr(C, packed(2))]
struct V6 {
    version: u8,
    _class_and_label: [u8; 3],
    _len: u16,
    next: u8,
    _hop_limit: u8,
    src: [u32; 4],
    dst: [u32; 4],
}

/// False: certainly none of ours. What cannot be told from here (a header outside the linear part, a tag) may be.
#[inline(always)]
pub(crate) fn worth_parsing(skb: *mut __sk_buff, start: Start) -> bool {
    // SAFETY: the context of a program that takes an skb; the verifier makes packet pointers of the two.
    let (protocol, data, end) =
        unsafe { (u16::from_be((*skb).protocol as u16), (*skb).data as usize, (*skb).data_end as usize) };
    match protocol {
        ETH_P_IP => either(data, end, start, protocol, size_of::<V4>(), v4),
        ETH_P_IPV6 => either(data, end, start, protocol, size_of::<V6>(), v6),
        ETH_P_8021Q | ETH_P_8021AD => true,
        _ => false,
    }
}

/// A frame can look like a packet without an Ethernet header, and such a packet like a frame: whatever it may be read
/// as counts.
#[inline(always)]
fn either(data: usize, end: usize, start: Start, protocol: u16, len: usize, ours: fn(usize) -> (bool, bool)) -> bool {
    if start == Start::Data {
        if data + len > end {
            return true;
        }
        let (ip, ours) = ours(data);
        return !ip || ours;
    }
    if data + ETHERNET + len > end {
        return true;
    }
    // SAFETY: within the packet, as just compared; the data of a frame are aligned to two bytes.
    let ether_type = u16::from_be(unsafe { read_volatile((data + 12) as *const u16) });
    let (bare, bare_ours) = ours(data);
    let framed = ether_type == protocol;
    if !framed && !bare || bare && bare_ours {
        return true;
    }
    framed && ours(data + ETHERNET).1
}

/// Whether it is an IPv4 header by its first byte, and if so: may it be ours?
#[inline(always)]
fn v4(at: usize) -> (bool, bool) {
    let head = at as *const V4;
    // SAFETY: the caller has compared with the end of the packet; packed to what the packet is aligned to.
    let (version, protocol, src, dst) =
        unsafe { ((*head).version_and_length >> 4, (*head).protocol, (*head).src, (*head).dst) };
    let mut ours = protocol == ICMP;
    for target in &TARGETS_V4 {
        let target = target.load();
        // To the verifier a constant: an unused slot costs nothing.
        if target != 0 {
            ours |= src == target || dst == target;
        }
    }
    (version == 4, ours)
}

/// The same for IPv6. The last half of an address tells more than its first.
#[inline(always)]
fn v6(at: usize) -> (bool, bool) {
    let head = at as *const V6;
    // SAFETY: as above.
    let (version, next, src, dst) = unsafe { ((*head).version >> 4, (*head).next, (*head).src, (*head).dst) };
    let mut ours = next == ICMPV6;
    for slot in 0..MAX_TARGETS {
        let last = TARGETS_V6[2 * slot + 1].load();
        if last != 0 {
            let last = [last as u32, (last >> 32) as u32];
            let last = if cfg!(target_endian = "little") { last } else { [last[1], last[0]] };
            ours |= [src[2], src[3]] == last || [dst[2], dst[3]] == last;
        }
    }
    (version == 6, ours)
}
