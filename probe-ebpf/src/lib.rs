//! The wire contract between the eBPF programs and userspace. Native byte order unless a field says otherwise; every
//! type is `repr(C)`, without padding, and valid for any bytes. Sizes are asserted here, so on both sides.
#![no_std]

pub mod datapath_abi;

/// Target addresses per family: the globals `TARGETS_V4` and `TARGETS_V6` hold as many.
pub const MAX_TARGETS: usize = 4;

/// Bytes of the DNS message that a sighting carries: the header and the first question, unless its name is very long.
pub const PAYLOAD: usize = 160;

/// Bytes of the packet that follow a record which came through `bpf_skb_output`, at most.
pub const PACKET_BYTES: u32 = 192;

/// `Record::hook`.
pub mod hook {
    pub const SOCKET_OUT: u8 = 1;
    pub const SOCKET_IN: u8 = 2;
    pub const INGRESS: u8 = 3;
    pub const EGRESS: u8 = 4;
    pub const TRANSMIT: u8 = 5;
    pub const DROP: u8 = 6;
}

/// IP protocol numbers of `Packet::transport`.
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// What a packet says of itself. For an ICMP error: the packet that it quotes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// The bytes as they stand in the header; IPv4 in the first word.
    pub src: [u32; 4],
    pub dst: [u32; 4],
    /// Host byte order.
    pub src_port: u16,
    pub dst_port: u16,
    /// 4 or 6.
    pub family: u8,
    /// [`UDP`] or [`TCP`].
    pub transport: u8,
    /// FIN 1, SYN 2, RST 4, PSH 8, ACK 16; 0 for UDP.
    pub tcp_flags: u8,
    /// TTL or hop limit (of the quoted packet, in an ICMP error).
    pub ttl: u8,
    /// Type and code of the ICMP error that quotes this packet; both 0: it is no such error.
    pub icmp_type: u8,
    pub icmp_code: u8,
    /// 1: one of the check's own flows.
    pub own: u8,
    pub _reserved: u8,
    /// First four payload bytes as they are (UDP: DNS id and flags); zeros where there are none.
    pub head: [u8; 4],
}

/// What is remembered of an skb while it may still live, keyed by its address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Boot clock, nanoseconds, of the latest sighting.
    pub time_ns: u64,
    /// Cookie of the namespace it was last seen in; 0: not known.
    pub netns: u64,
    /// Device it was last seen on.
    pub ifindex: u32,
    /// 1: its first sighting was lost. Then the others are not worth having: they would tell half a story, and without
    /// its question.
    pub muted: u32,
    pub packet: Packet,
}

/// The head of every event. In the ring buffers [`PAYLOAD`] bytes follow, `captured` of them valid: they begin behind
/// the UDP or TCP header; or none at all, where an earlier sighting of the same skb had them. In the perf buffers
/// `captured` bytes of the packet follow, from wherever `skb->data` points.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Boot clock, nanoseconds.
    pub time_ns: u64,
    /// Kernel address of the `sk_buff`.
    pub skb: u64,
    /// `SO_NETNS_COOKIE` of the namespace; 0: not known to the kernel side.
    pub netns: u64,
    /// Socket cookie (cgroup_skb hooks); 0: none.
    pub socket: u64,
    /// 0: none.
    pub ifindex: u32,
    /// Of a drop: `enum skb_drop_reason` of the running kernel. At a socket's ingress and a device's egress: the device
    /// by which it came into this namespace (`skb_iif`); 0: by none.
    pub detail: u32,
    /// One of [`hook`].
    pub hook: u8,
    /// 1: `packet` is what an earlier hook saw; what the packet looks like here is in the bytes that follow, if any.
    pub recalled: u8,
    pub captured: u16,
    /// Bytes behind the UDP or TCP header, whether captured or not; 0: not known (the packet was recalled).
    pub payload_len: u32,
    /// Sequence and acknowledgement number of a TCP segment, host byte order; of what was recalled 0.
    pub sequence: [u32; 2],
    pub packet: Packet,
}

/// A ring buffer entry.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sighting {
    pub record: Record,
    pub payload: [u8; PAYLOAD],
}

/// Exact counters, one set per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events of the check's own flows that were handed over, and those that did not fit.
    pub own_seen: u64,
    pub own_lost: u64,
    /// The same for every other flow; lost includes what the rate limit held back.
    pub other_seen: u64,
    pub other_lost: u64,
    /// Window of the rate limits (boot clock >> [`RATE_WINDOW_SHIFT`]) and what was admitted in it.
    pub window: u64,
    pub admitted: u64,
    pub admitted_costly: u64,
    /// Second (boot clock >> 30) in which the last line was logged.
    pub logged: u64,
    /// Packets to the target that a socket sent over UDP, other flows' only: what was asked. And those of them whose
    /// event was lost.
    pub queries: u64,
    pub queries_lost: u64,
}

/// The rate limit's window is 2^26 ns: 67 ms.
pub const RATE_WINDOW_SHIFT: u64 = 26;

/// Key of the map `OWN_PORTS`: transport and the client's port.
#[must_use]
#[inline(always)]
pub const fn own_port_key(transport: u8, port: u16) -> u32 {
    (transport as u32) << 16 | port as u32
}

const _: () = {
    assert!(size_of::<Packet>() == 48);
    assert!(size_of::<Seen>() == 72);
    assert!(size_of::<Record>() == 104);
    assert!(size_of::<Sighting>() == 104 + PAYLOAD);
    assert!(size_of::<Counts>() == 80);
};

/// The client's port and, over UDP, the DNS id, well mixed: what stays the same on every hop of a query and its
/// answer, whatever is done to its addresses. Samples are taken by it.
#[must_use]
#[inline(always)]
pub const fn sample_hash(transport: u8, client_port: u16, head: [u8; 4]) -> u32 {
    let id = if transport == UDP { (head[0] as u32) << 8 | head[1] as u32 } else { 0 };
    // The finalizer of MurmurHash3: each bit of the input moves half of the output's.
    let mut hash = (client_port as u32) << 16 | id;
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

impl Packet {
    /// Source and destination in network byte order; an IPv4 address fills the first four bytes.
    #[must_use]
    pub fn addresses(&self) -> [[u8; 16]; 2] {
        [self.src, self.dst].map(|words| {
            let mut bytes = [0; 16];
            for (four, word) in bytes.chunks_exact_mut(4).zip(words) {
                four.copy_from_slice(&word.to_ne_bytes());
            }
            bytes
        })
    }
}

impl Record {
    /// Splits bytes off the kernel into the record and the `captured` bytes behind it; none if there are too few.
    #[must_use]
    pub fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, tail) = bytes.split_at_checked(size_of::<Self>())?;
        // SAFETY: `head` has the size of a `Record`, which is valid for any bytes; the read asks no alignment.
        let record = unsafe { head.as_ptr().cast::<Self>().read_unaligned() };
        let captured = usize::from(record.captured).min(tail.len());
        Some((record, &tail[..captured]))
    }
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: `repr(C)`, `Copy`, 'static, no padding (asserted above by size), valid for any bytes.
    unsafe impl aya::Pod for super::Seen {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Counts {}
}
