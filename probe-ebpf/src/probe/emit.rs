//! The one place that emits events, and the maps that they go through.
//!
//! The rate is bounded twice: a ring buffer holds what it holds (userspace empties it every few milliseconds), and
//! for flows that are not the check's own each CPU admits so many events per 67 ms, fewer of those that
//! `bpf_skb_output` makes costly (8 µs). What does not fit is counted, queries apart: one whose first sighting was lost
//! is muted, so that it is either told or counted, never both.

use aya_ebpf::{
    EbpfContext,
    bindings::{__sk_buff, BPF_F_CURRENT_CPU, BPF_RB_AVAIL_DATA, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_skb_load_bytes, bpf_skb_load_bytes_relative, bpf_skb_output},
    macros::map,
    maps::{HashMap, LruHashMap, PerCpuArray, PerfEventByteArray, RingBuf},
};
use aya_log_ebpf::warn;
use hostdns_probe_ebpf::{
    Counts, PACKET_BYTES, PAYLOAD, RATE_WINDOW_SHIFT, Record, Seen, Sighting, UDP, hook, own_port_key, sample_hash,
};

use crate::{
    parse::Found,
    settings::{ADMITTED, ADMITTED_COSTLY, ONCE, ROOM, SAMPLE},
    tracing::LIFETIME,
};

/// The check's own flows: userspace is woken for each.
#[map]
static OWN_EVENTS: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

/// Everything else: userspace looks every few milliseconds, and says how large it is.
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
    let key = skb as u64;
    let Some(counts) = counts() else { return };
    let mut again = false;
    // Most packets are seen more than once, and writing in place is cheaper than an update.
    if let Some(known) = SEEN.get_ptr_mut(&key) {
        // SAFETY: a live map value; a torn write by another CPU could only mix two sightings of one skb.
        let known = unsafe { &mut *known };
        if own == 0 && !is_sampled(found) {
            known.muted = 1; // the address is another packet's now
            return;
        }
        again = own == 0 && is_again(known, found, hook);
        if again && known.muted != 0 {
            add(&raw mut counts.other_lost);
            return;
        }
        copy(&found.seen, known);
    } else {
        if own == 0 && !is_sampled(found) {
            return;
        }
        // Where it fails the sighting still counts; only what later hooks would add to it is lost.
        let _ = SEEN.insert(&key, &found.seen, 0);
    }
    let asks = own == 0 && hook == hook::SOCKET_OUT && is_query(found);
    if asks {
        add(&raw mut counts.queries);
    }
    if own == 0 && (asks && is_crowded() || !admit(counts, time_ns, false)) {
        unheard(counts, key, asks, again);
        return;
    }
    if again {
        let Some(mut entry) = OTHER_EVENTS.reserve::<Record>(0) else {
            lost(counts, own, time_ns);
            return;
        };
        // SAFETY: the reserved entry has a `Record`'s size and alignment; every field is written.
        unsafe { fill(&mut *entry.as_mut_ptr(), skb, hook, found, socket) };
        count(counts, own);
        entry.submit(NO_WAKE);
        return;
    }
    let Some(mut entry) = ring(own).reserve::<Sighting>(0) else {
        lost(counts, own, time_ns);
        if own == 0 {
            mute(counts, key, asks);
        }
        return;
    };
    let at_socket = matches!(hook, hook::SOCKET_OUT | hook::SOCKET_IN);
    let sighting = entry.as_mut_ptr();
    // SAFETY: the reserved entry has a `Sighting`'s size and alignment; every field of the record is written, and of
    // the payload as much as `captured` says.
    unsafe {
        fill(&mut (*sighting).record, skb, hook, found, socket);
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

/// Everything but what is captured.
#[inline(always)]
fn fill(record: &mut Record, skb: *mut __sk_buff, hook: u8, found: &Found, socket: u64) {
    record.time_ns = found.seen.time_ns;
    record.skb = skb as u64;
    record.netns = found.seen.netns;
    record.socket = socket;
    record.ifindex = found.seen.ifindex;
    // SAFETY: the program's own context; the field is always there.
    record.detail = match hook {
        hook::SOCKET_IN | hook::EGRESS => unsafe { (*skb).ingress_ifindex },
        _ => 0,
    };
    record.hook = hook;
    record.recalled = 0;
    record.captured = 0;
    record.payload_len = found.payload_len;
    record.sequence = found.sequence;
    copy(&found.seen.packet, &mut record.packet);
}

/// The packet that an earlier hook told all of: the same message in the same skb, not long ago. A socket sends new ones
/// only, and a segment of TCP need not begin like the last one did.
#[inline(always)]
fn is_again(known: &Seen, found: &Found, hook: u8) -> bool {
    let (before, now) = (&known.packet, &found.seen.packet);
    ONCE.load() != 0
        && hook != hook::SOCKET_OUT
        && now.transport == UDP
        && before.transport == UDP
        && now.icmp_type == 0
        && before.icmp_type == 0
        && found.payload_len >= 4
        && u32::from_ne_bytes(now.head) != 0
        && u32::from_ne_bytes(now.head) == u32::from_ne_bytes(before.head)
        && found.seen.time_ns.wrapping_sub(known.time_ns) < LIFETIME
}

/// In the sample. An ICMP error that quotes too little to tell belongs to whatever it quotes.
#[inline(always)]
fn is_sampled(found: &Found) -> bool {
    let one_in = SAMPLE.load();
    let packet = &found.seen.packet;
    one_in < 2
        || packet.icmp_type != 0 && u32::from_ne_bytes(packet.head) == 0
        || sample_hash(packet.transport, found.client_port, packet.head) % one_in == 0
}

/// A message to the target over UDP, whatever is in it.
#[inline(always)]
fn is_query(found: &Found) -> bool {
    found.to != 0 && found.seen.packet.transport == UDP && found.seen.packet.icmp_type == 0
}

/// What is under way needs the rest of the ring.
#[inline(always)]
fn is_crowded() -> bool {
    let room = ROOM.load();
    room != 0 && OTHER_EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) > room
}

/// A sighting that was not let in.
#[inline(always)]
fn unheard(counts: &mut Counts, key: u64, asks: bool, again: bool) {
    add(&raw mut counts.other_lost);
    if !again {
        mute(counts, key, asks);
    }
}

/// The first sighting of a packet was lost.
#[inline(always)]
fn mute(counts: &mut Counts, key: u64, asks: bool) {
    if asks {
        add(&raw mut counts.queries_lost);
    }
    if ONCE.load() != 0
        && let Some(known) = SEEN.get_ptr_mut(&key)
    {
        // SAFETY: a live map value.
        unsafe { (*known).muted = 1 };
    }
}

/// Counts one. Atomic: a program can be preempted by another one on the same CPU. In `core` this target has no atomic
/// addition, for it has no compare-and-swap; the instruction is there since the first eBPF.
#[inline(always)]
fn add(counter: *mut u64) {
    // SAFETY: a live and aligned map value.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1_u64) };
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
        add(&raw mut counts.other_lost);
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
    add(if own == 0 { &raw mut counts.other_seen } else { &raw mut counts.own_seen });
}

#[inline(always)]
fn lost(counts: &mut Counts, own: u8, time_ns: u64) {
    add(if own == 0 { &raw mut counts.other_lost } else { &raw mut counts.own_lost });
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
        if costly { (&mut counts.admitted_costly, &ADMITTED_COSTLY) } else { (&mut counts.admitted, &ADMITTED) };
    if *admitted >= limit.load() {
        return false;
    }
    *admitted += 1;
    true
}

/// The check has announced the client's port.
#[inline(always)]
fn is_own(found: &Found) -> u8 {
    let key = own_port_key(found.seen.packet.transport, found.client_port);
    u8::from(OWN_PORTS.get_ptr(&key).is_some())
}

#[inline(always)]
fn counts() -> Option<&'static mut Counts> {
    let counts = COUNTS.get_ptr_mut(0)?;
    // SAFETY: a per-CPU value. What must be exact is counted atomically: a program can be preempted by another one.
    Some(unsafe { &mut *counts })
}

/// aya-log asks for a context, and makes no use of it.
struct Log;

impl EbpfContext for Log {
    fn as_ptr(&self) -> *mut core::ffi::c_void {
        core::ptr::null_mut()
    }
}
