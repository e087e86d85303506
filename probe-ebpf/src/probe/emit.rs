//! The one place that emits events, and the maps that they go through.
//!
//! The rate is bounded twice: a ring buffer holds what it holds (userspace empties it every few milliseconds), and
//! for flows that are not the check's own each CPU admits so many events per 67 ms, fewer of those that
//! `bpf_skb_output` makes costly (8 µs). What does not fit is counted.

use aya_ebpf::{
    EbpfContext,
    bindings::{__sk_buff, BPF_F_CURRENT_CPU, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_skb_load_bytes, bpf_skb_load_bytes_relative, bpf_skb_output},
    macros::map,
    maps::{HashMap, LruHashMap, PerCpuArray, PerfEventByteArray, RingBuf},
};
use aya_log_ebpf::warn;
use hostdns_probe_ebpf::{
    Counts, PACKET_BYTES, PAYLOAD, RATE_WINDOW_SHIFT, Record, Seen, Sighting, hook, own_port_key,
};

use crate::parse::Found;

/// The check's own flows: userspace is woken for each.
#[map]
static OWN_EVENTS: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

/// Everything else: userspace looks every few milliseconds.
#[map]
static OTHER_EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Events with the packet's bytes, by `bpf_skb_output`.
#[map]
static PACKETS: PerfEventByteArray = PerfEventByteArray::new(0);

/// skbs that our hooks saw, by address.
#[map]
pub(crate) static SEEN: LruHashMap<u64, Seen> = LruHashMap::with_max_entries(16384, 0);

/// Client ports of the check's own flows.
#[map]
static OWN_PORTS: HashMap<u32, u8> = HashMap::with_max_entries(1024, 0);

/// Cookies of the namespaces whose events count.
#[map]
pub(crate) static NAMESPACES: HashMap<u64, u8> = HashMap::with_max_entries(4096, 0);

/// Devices of the node behind which a packet has left it.
#[map]
pub(crate) static EXITS: HashMap<u32, u8> = HashMap::with_max_entries(1024, 0);

#[map]
static COUNTS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(1, 0);

/// Events of other flows per CPU and window: 30 000 a second.
const ADMITTED: u64 = 2000;

/// Of those with packet bytes: 1500 a second, about 1.2 % of a CPU.
const ADMITTED_COSTLY: u64 = 100;

/// How a ring entry of each kind is handed over.
const WAKE: u64 = 0;
const NO_WAKE: u64 = BPF_RB_NO_WAKEUP as u64;

/// A sighting by a hook that has the skb as its context. `found.seen.netns` is set.
#[inline(always)]
pub(crate) fn sighting(skb: *mut __sk_buff, hook: u8, found: &mut Found, socket: u64) {
    let own = is_own(found);
    found.seen.packet.own = own;
    // SAFETY: no arguments; and the context's field is always there.
    let (time_ns, ifindex) = unsafe { (bpf_ktime_get_boot_ns(), (*skb).ifindex) };
    found.seen.time_ns = time_ns;
    found.seen.ifindex = ifindex;
    let at_socket = matches!(hook, hook::SOCKET_OUT | hook::SOCKET_IN);
    let key = skb as u64;
    // Most packets are seen more than once, and writing in place is cheaper than an update.
    if let Some(known) = SEEN.get_ptr_mut(&key) {
        // SAFETY: a live map value; a torn write by another CPU could only mix two sightings of one skb.
        unsafe { copy(&found.seen, &mut *known) };
    } else {
        // Where it fails the sighting still counts; only what later hooks would add to it is lost.
        let _ = SEEN.insert(&key, &found.seen, 0);
    }
    let Some(counts) = counts() else { return };
    if own == 0 && !admit(counts, time_ns, false) {
        counts.other_lost += 1;
        return;
    }
    let Some(mut entry) = ring(own).reserve::<Sighting>(0) else {
        lost(counts, own, time_ns);
        return;
    };
    let sighting = entry.as_mut_ptr();
    // SAFETY: the reserved entry has a `Sighting`'s size and alignment; every field of the record is written, and of
    // the payload as much as `captured` says.
    unsafe {
        let record = &mut (*sighting).record;
        record.time_ns = time_ns;
        record.skb = key;
        record.netns = found.seen.netns;
        record.socket = socket;
        record.ifindex = ifindex;
        record.drop_reason = 0;
        record.hook = hook;
        record.recalled = 0;
        record.captured = 0;
        record.payload_len = found.payload_len;
        copy(&found.seen.packet, &mut record.packet);
        // Through the ring's memory, where the verifier loses track of it: a size it must know exactly would make it
        // tell apart every way that the parser may have taken to it (millions), instead of merging them.
        //
        // One less, so that nothing at all is out of range: before Linux 6.8 the verifier does not conclude from
        // `!= 0` that a length is at least 1, and it refuses a load of perhaps nothing. In 32 bits, or the compiler
        // would add in 16 and mask, and the least value would be 0 again.
        let length = found.payload_len;
        let length = if length > PAYLOAD as u32 { PAYLOAD as u32 } else { length };
        let scratch = &raw mut (*sighting).record.payload_len;
        scratch.write_volatile(length.wrapping_sub(1));
        let one_less = scratch.read_volatile();
        scratch.write_volatile(found.payload_len);
        if one_less < PAYLOAD as u32 {
            let captured = &raw mut (*sighting).record.captured;
            let length = one_less + 1;
            captured.write_volatile(length as u16);
            let to = (&raw mut (*sighting).payload).cast();
            // What TCP carries is seldom in the linear part, and only there does the relative helper look
            // (net/core/filter.c). At a socket the data begin with the network header, so the other one will do.
            if bpf_skb_load_bytes_relative(skb.cast(), found.payload, to, length, found.base) != 0
                && !(at_socket && bpf_skb_load_bytes(skb.cast(), found.payload, to, length) == 0)
            {
                captured.write_volatile(0);
            }
        }
    }
    submit(counts, own, entry);
}

/// An event about an skb that another hook saw before, with the packet's bytes as they are now.
///
/// # Safety
/// `skb` is the BTF-typed `sk_buff` that a tracing program got as its argument, and `len` is its `len`.
#[inline(always)]
pub(crate) unsafe fn recalled(skb: *mut core::ffi::c_void, len: u32, record: &mut Record) {
    let Some(counts) = counts() else { return };
    let own = record.packet.own;
    if own == 0 && !admit(counts, record.time_ns, true) {
        counts.other_lost += 1;
        return;
    }
    let captured = if len > PACKET_BYTES { PACKET_BYTES } else { len };
    record.recalled = 1;
    record.captured = captured as u16;
    // BPF_F_CTXLEN: the upper half says how much of the packet to append.
    let flags = BPF_F_CURRENT_CPU | u64::from(captured) << 32;
    // SAFETY: the caller vouches for `skb`; the map is an array of perf events, and begins with its definition, which
    // is what the loader relocates; the record has no padding.
    let status = unsafe {
        bpf_skb_output(
            skb,
            (&raw const PACKETS).cast_mut().cast(),
            flags,
            (&raw mut *record).cast(),
            size_of::<Record>() as u64,
        )
    };
    if status == 0 {
        count(counts, own);
        return;
    }
    // Without its bytes it is still an event.
    record.captured = 0;
    let flags = if own == 0 { NO_WAKE } else { WAKE };
    if ring(own).output::<Record>(&*record, flags).is_ok() {
        count(counts, own);
    } else {
        lost(counts, own, record.time_ns);
    }
}

/// Copies a type whose size and place are multiples of eight: in the wire types all are. The compiler's own `memmove`
/// goes byte by byte.
#[inline(always)]
fn copy<T: Copy>(from: &T, to: &mut T) {
    let (from, to) = ((&raw const *from).cast::<u64>(), (&raw mut *to).cast::<u64>());
    for long in 0..size_of::<T>() / size_of::<u64>() {
        // SAFETY: within both, and aligned as said.
        unsafe { to.add(long).write_volatile(from.add(long).read_volatile()) };
    }
}

#[inline(always)]
fn submit(counts: &mut Counts, own: u8, entry: aya_ebpf::maps::ring_buf::RingBufEntry<Sighting>) {
    count(counts, own);
    entry.submit(if own == 0 { NO_WAKE } else { WAKE });
}

#[inline(always)]
fn count(counts: &mut Counts, own: u8) {
    if own == 0 {
        counts.other_seen += 1;
    } else {
        counts.own_seen += 1;
    }
}

#[inline(always)]
fn lost(counts: &mut Counts, own: u8, time_ns: u64) {
    if own == 0 {
        counts.other_lost += 1;
    } else {
        counts.own_lost += 1;
    }
    // One line a second and CPU at most.
    if counts.logged != time_ns >> 30 {
        counts.logged = time_ns >> 30;
        say_lost(counts.own_lost, counts.other_lost);
    }
}

/// A call of its own: logging wants more stack than the programs have left.
#[inline(never)]
fn say_lost(own: u64, other: u64) {
    warn!(
        &Log,
        "a ring buffer is full: {} events of the check's own flows lost so far on this CPU, {} of others", own, other
    );
}

#[inline(always)]
fn ring(own: u8) -> &'static RingBuf {
    if own == 0 { &OTHER_EVENTS } else { &OWN_EVENTS }
}

/// Whether this CPU may emit one more event of a foreign flow in this window.
#[inline(always)]
fn admit(counts: &mut Counts, time_ns: u64, costly: bool) -> bool {
    let window = time_ns >> RATE_WINDOW_SHIFT;
    if counts.window != window {
        counts.window = window;
        counts.admitted = 0;
        counts.admitted_costly = 0;
    }
    let (admitted, limit) =
        if costly { (&mut counts.admitted_costly, ADMITTED_COSTLY) } else { (&mut counts.admitted, ADMITTED) };
    if *admitted >= limit {
        return false;
    }
    *admitted += 1;
    true
}

/// The check has announced the client's port.
#[inline(always)]
fn is_own(found: &Found) -> u8 {
    let key = own_port_key(found.seen.packet.transport, found.client_port as u16);
    u8::from(OWN_PORTS.get_ptr(&key).is_some())
}

#[inline(always)]
fn counts() -> Option<&'static mut Counts> {
    let counts = COUNTS.get_ptr_mut(0)?;
    // SAFETY: a per-CPU value. A program that interrupts another on this CPU could make a count miss one; the kernel
    // keeps the same program from nesting.
    Some(unsafe { &mut *counts })
}

/// aya-log asks for a context, and makes no use of it.
struct Log;

impl EbpfContext for Log {
    fn as_ptr(&self) -> *mut core::ffi::c_void {
        core::ptr::null_mut()
    }
}
