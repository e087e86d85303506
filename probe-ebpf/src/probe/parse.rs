//! From an skb to the flow that it carries, if that is one of ours.
//!
//! Everything is read relative to the network header (`bpf_skb_load_bytes_relative`, Linux 4.18), which the kernel
//! sets before each of our hooks: so one parser serves sockets, Ethernet devices and devices without any link header.
//! A VLAN tag taken off by the card is not in the packet at all. One that is still in it makes `protocol` say so; then
//! the Ethernet header is walked.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{
        __sk_buff,
        bpf_hdr_start_off::{BPF_HDR_START_MAC, BPF_HDR_START_NET},
    },
    helpers::generated::bpf_skb_load_bytes_relative,
};
use hostdns_probe_ebpf::{MAX_TARGETS, Seen, TCP, UDP};

use crate::settings::{TARGET_PORT, TARGETS_V4, TARGETS_V6};

pub(crate) const ETH_P_IP: u16 = 0x0800;
pub(crate) const ETH_P_IPV6: u16 = 0x86dd;
pub(crate) const ETH_P_8021Q: u16 = 0x8100;
pub(crate) const ETH_P_8021AD: u16 = 0x88a8;

pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// A packet of ours, and where its payload lies. `repr(C)`: no padding. It is filled in place: the stack has 512 bytes, for all calls together.
#[repr(C)]
pub(crate) struct Found {
    pub(crate) seen: Seen,
    pub(crate) base: u32,
    pub(crate) payload: u32,
    pub(crate) payload_len: u32,
    /// The end that is not the target's.
    pub(crate) client_port: u16,
    /// 1: it goes to the target.
    pub(crate) to: u16,
    /// TCP: sequence and acknowledgement number.
    pub(crate) sequence: [u32; 2],
}

impl Found {
    /// All zeros. Volatile, and in the caller's place: the compiler would otherwise call `memset`, which on this target
    /// goes byte by byte, for every packet.
    #[inline(always)]
    pub(crate) fn zeroed(place: &mut MaybeUninit<Self>) -> &mut Self {
        let longs = place.as_mut_ptr().cast::<u64>();
        // SAFETY: all of it is written, and zeros are a valid `Found`.
        unsafe {
            for long in 0..size_of::<Self>() / size_of::<u64>() {
                longs.add(long).write_volatile(0);
            }
            place.assume_init_mut()
        }
    }
}

const _: () = assert!(size_of::<Found>() % size_of::<u64>() == 0);

/// What the IP header says of the rest.
#[derive(Clone, Copy)]
struct Ip {
    protocol: u8,
    /// Offset of the header behind it.
    l4: u32,
    /// Offset behind the last byte.
    end: u32,
    /// The source is a target.
    from: bool,
    to: bool,
}

/// What a call of the parser comes to.
const NOT_OURS: u64 = 0;
const OURS: u64 = 1;
/// An ICMP error, whose header is at `found.payload`.
const ERROR_V4: u64 = 2;
const ERROR_V6: u64 = 3;

/// The full parse is calls of its own, one after the other: within each other they would need more than the 512 bytes of
/// stack that there are (Linux 6.1 rounds each up to 32 bytes).
#[inline(always)]
pub(crate) fn parse(skb: *mut __sk_buff, found: &mut Found) -> bool {
    // SAFETY: the context of a program that takes an skb; the field is always there.
    let protocol = u16::from_be(unsafe { (*skb).protocol } as u16);
    let parsed = match protocol {
        ETH_P_IP | ETH_P_IPV6 => {
            found.base = BPF_HDR_START_NET;
            parse_at(skb, found, u64::from(protocol == ETH_P_IPV6))
        }
        ETH_P_8021Q | ETH_P_8021AD => tagged(skb, found),
        _ => NOT_OURS,
    };
    match parsed {
        ERROR_V4 => quoted(skb, found, 0) != 0,
        ERROR_V6 => quoted(skb, found, 1) != 0,
        parsed => parsed == OURS,
    }
}

/// The network header lies behind up to three VLAN tags.
#[inline(never)]
fn tagged(skb: *mut __sk_buff, found: &mut Found) -> u64 {
    found.base = BPF_HDR_START_MAC;
    let mut offset = 12;
    for _ in 0..4 {
        let Some(protocol) = load(skb, found.base, offset) else { return NOT_OURS };
        offset += 2;
        match u16::from_be(protocol) {
            ETH_P_8021Q | ETH_P_8021AD => offset += 2,
            ETH_P_IP => break,
            ETH_P_IPV6 => {
                found.payload = offset;
                return parse_at(skb, found, 1);
            }
            _ => return NOT_OURS,
        }
    }
    found.payload = offset;
    parse_at(skb, found, 0)
}

/// `found.payload` says where the IP header begins.
#[inline(never)]
fn parse_at(skb: *mut __sk_buff, found: &mut Found, v6: u64) -> u64 {
    let Some(outer) = ip(skb, found, v6 != 0) else { return NOT_OURS };
    match outer.protocol {
        UDP | TCP if outer.from || outer.to => return u64::from(transport(skb, found, outer, false)),
        ICMP if v6 == 0 => {}
        ICMPV6 if v6 != 0 => {}
        _ => return NOT_OURS,
    }
    found.payload = outer.l4;
    if v6 == 0 { ERROR_V4 } else { ERROR_V6 }
}

#[inline(always)]
fn ip(skb: *mut __sk_buff, found: &mut Found, v6: bool) -> Option<Ip> {
    if v6 { ipv6(skb, found) } else { ipv4(skb, found) }
}

#[inline(always)]
fn ipv4(skb: *mut __sk_buff, found: &mut Found) -> Option<Ip> {
    let start = found.payload;
    let head: Ipv4Head = load(skb, found.base, start)?;
    let (mut from, mut to) = ([0; MAX_TARGETS], [0; MAX_TARGETS]);
    for (slot, target) in TARGETS_V4.iter().enumerate() {
        let target = target.load();
        // An unused slot is no address 0.0.0.0.
        (from[slot], to[slot]) = if target == 0 { (1, 1) } else { (head.src ^ target, head.dst ^ target) };
    }
    let (from, to) = (any_is_zero(from), any_is_zero(to));
    if !(from || to || head.protocol == ICMP) || !matches!(head.version_and_length, 0x45..=0x4f) {
        return None;
    }
    // Only the first fragment has the ports.
    if u16::from_be(head.fragment) & 0x1fff != 0 {
        return None;
    }
    let packet = &mut found.seen.packet;
    packet.family = 4;
    packet.transport = head.protocol;
    packet.ttl = head.ttl;
    packet.src[0] = head.src;
    packet.dst[0] = head.dst;
    let end = start + u32::from(u16::from_be(head.total_len));
    let l4 = start + u32::from(head.version_and_length & 15) * 4;
    Some(Ip { protocol: head.protocol, l4, end, from, to })
}

#[inline(always)]
fn ipv6(skb: *mut __sk_buff, found: &mut Found) -> Option<Ip> {
    let (base, start) = (found.base, found.payload);
    let head: Ipv6Head = load(skb, base, start)?;
    let (mut from, mut to) = ([0; MAX_TARGETS], [0; MAX_TARGETS]);
    for (slot, target) in TARGETS_V6.chunks_exact(2).enumerate() {
        let target = [target[0].load(), target[1].load()];
        (from[slot], to[slot]) = if target[0] | target[1] == 0 {
            (1, 1)
        } else {
            (
                fold(head.src[0] ^ target[0] | head.src[1] ^ target[1]),
                fold(head.dst[0] ^ target[0] | head.dst[1] ^ target[1]),
            )
        };
    }
    let (from, to) = (any_is_zero(from), any_is_zero(to));
    let mut protocol = head.next;
    // Behind extension headers there could be an ICMPv6 error, but hosts send those without any.
    if !(from || to || protocol == ICMPV6) || head.version >> 4 != 6 {
        return None;
    }
    let packet = &mut found.seen.packet;
    packet.family = 6;
    packet.ttl = head.hop_limit;
    packet.src = words(head.src);
    packet.dst = words(head.dst);
    let end = start + 40 + u32::from(u16::from_be(head.payload_len));
    let mut l4 = start + 40;
    for _ in 0..6 {
        if !matches!(protocol, 0 | 43 | 44 | 51 | 60) {
            break;
        }
        let ext: Extension = load(skb, base, l4)?;
        l4 += match protocol {
            // Fragment: only the first has the ports.
            44 if u16::from_be(ext.fragment) & 0xfff8 != 0 => return None,
            44 => 8,
            // Authentication header: units of 4 bytes beyond the first two.
            51 => (u32::from(ext.length) + 2) * 4,
            // Hop by hop, routing, destination options: units of 8 bytes beyond the first.
            _ => (u32::from(ext.length) + 1) * 8,
        };
        l4 = forget(l4);
        protocol = ext.next;
    }
    found.seen.packet.transport = protocol;
    Some(Ip { protocol, l4, end, from, to })
}

/// One comparison for all: a product is 0 where a factor is. Four comparisons would be two to the fourth paths to the
/// verifier, which walks every one of them.
#[inline(always)]
fn any_is_zero(words: [u32; MAX_TARGETS]) -> bool {
    let [a, b, c, d] = words.map(u64::from);
    u64::from(fold(a * b)) * u64::from(fold(c * d)) == 0
}

/// The same offset, of which the verifier knows nothing any more. It would otherwise follow every chain of extension
/// headers by itself, with an offset of its own: millions. What is written in bytes and read as a word is unknown to it.
#[inline(always)]
fn forget(offset: u32) -> u32 {
    let mut word = MaybeUninit::<u16>::uninit();
    let [first, second] = (offset as u16).to_ne_bytes();
    // SAFETY: both bytes of the word are written before it is read.
    unsafe {
        let bytes = word.as_mut_ptr().cast::<u8>();
        bytes.write_volatile(first);
        bytes.add(1).write_volatile(second);
        u32::from(word.as_ptr().read_volatile())
    }
}

/// 0 where `long` is, and nowhere else.
#[inline(always)]
const fn fold(long: u64) -> u32 {
    (long >> 32) as u32 | long as u32
}

#[inline(always)]
const fn words(longs: [u64; 2]) -> [u32; 4] {
    // Back to memory order, whatever that is.
    let (first, second) = if cfg!(target_endian = "little") { (0, 32) } else { (32, 0) };
    [(longs[0] >> first) as u32, (longs[0] >> second) as u32, (longs[1] >> first) as u32, (longs[1] >> second) as u32]
}

/// RFC 791, without options. Fields of several bytes are in network byte order, here and below.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4Head {
    version_and_length: u8,
    _tos: u8,
    total_len: u16,
    _id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    _checksum: u16,
    src: u32,
    dst: u32,
}

/// RFC 8200.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv6Head {
    version: u8,
    _class_and_label: [u8; 3],
    payload_len: u16,
    next: u8,
    hop_limit: u8,
    src: [u64; 2],
    dst: [u64; 2],
}

/// The first four bytes of an IPv6 extension header.
#[repr(C)]
#[derive(Clone, Copy)]
struct Extension {
    next: u8,
    length: u8,
    fragment: u16,
}

/// RFC 9293, from behind the ports to the flags.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct TcpTail {
    sequence: [u32; 2],
    /// Words in the header, in the upper half.
    offset: u8,
    flags: u8,
}

/// The ports decide: the target's address on the target's port.
#[inline(always)]
fn transport(skb: *mut __sk_buff, found: &mut Found, ip: Ip, quoted: bool) -> bool {
    let Ip { protocol, l4, end, from, to } = ip;
    // Ports behind the datagram's own end are nobody's. A quoted one may be cut short, but says how long it was, and
    // the first eight bytes are always quoted (RFC 792): a whole UDP header.
    if end < l4 + 8 {
        return false;
    }
    let Some(ports) = load::<[u16; 4]>(skb, found.base, l4) else { return false };
    let packet = &mut found.seen.packet;
    packet.src_port = u16::from_be(ports[0]);
    packet.dst_port = u16::from_be(ports[1]);
    let port = TARGET_PORT.load();
    let to = to && packet.dst_port == port;
    if !(to || from && packet.src_port == port) {
        return false;
    }
    found.client_port = if to { packet.src_port } else { packet.dst_port };
    found.to = u16::from(to);
    let payload = if protocol == UDP {
        l4 + 8
    } else if quoted {
        end // An ICMP error need not quote more of TCP than its first eight bytes.
    } else {
        let Some(tcp) = load::<TcpTail>(skb, found.base, l4 + 4) else { return false };
        packet.tcp_flags = tcp.flags;
        found.sequence = tcp.sequence.map(u32::from_be);
        // A header that ends within itself carries nothing.
        if tcp.offset < 0x50 { end } else { l4 + u32::from(tcp.offset >> 4) * 4 }
    };
    found.payload = payload;
    found.payload_len = if end > payload { end - payload } else { 0 };
    if found.payload_len >= 4
        && let Some(head) = load(skb, found.base, payload)
    {
        found.seen.packet.head = head;
    }
    true
}

/// An ICMP error about a packet of ours, at `found.payload`; the IP header that it quotes lies behind its own eight bytes.
#[inline(never)]
fn quoted(skb: *mut __sk_buff, found: &mut Found, v6: u64) -> u64 {
    let l4 = found.payload;
    let Some(icmp) = load::<[u8; 2]>(skb, found.base, l4) else { return 0 };
    let error = if v6 != 0 { matches!(icmp[0], 1..=4) } else { matches!(icmp[0], 3 | 4 | 5 | 11 | 12) };
    if !error {
        return 0;
    }
    found.payload = l4 + 8;
    let Some(inner) = ip(skb, found, v6 != 0) else { return 0 };
    if !matches!(inner.protocol, UDP | TCP) || !(inner.from || inner.to) || !transport(skb, found, inner, true) {
        return 0;
    }
    found.seen.packet.icmp_type = icmp[0];
    found.seen.packet.icmp_code = icmp[1];
    1
}

/// A header type: whole numbers only, so any bytes will do.
trait Header: Copy {}
impl Header for Ipv4Head {}
impl Header for Ipv6Head {}
impl Header for Extension {}
impl Header for TcpTail {}
impl Header for u16 {}
impl Header for [u8; 2] {}
impl Header for [u8; 4] {}
impl Header for [u16; 4] {}

#[inline(always)]
fn load<T: Header>(skb: *mut __sk_buff, base: u32, offset: u32) -> Option<T> {
    let mut header = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes all of it, or fails; any bytes are a valid `Header`.
    unsafe {
        let len = size_of::<T>() as u32;
        let status = bpf_skb_load_bytes_relative(skb.cast(), offset, header.as_mut_ptr().cast(), len, base);
        if status == 0 { Some(header.assume_init()) } else { None }
    }
}
