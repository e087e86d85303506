//! What userspace sets before loading. The map behind these is frozen, so to the verifier they are constants: an
//! offset may be added to a BTF-typed pointer, and a branch on a zero flag is dead code.

use aya_ebpf::Global;
use hostdns_probe_ebpf::MAX_TARGETS;

/// Target addresses as they stand in the header (network byte order); unused slots are 0.
#[unsafe(no_mangle)]
pub(crate) static TARGETS_V4: [Global<u32>; MAX_TARGETS] = [const { Global::new(0) }; MAX_TARGETS];

/// Two words per address, as they stand in the header.
#[unsafe(no_mangle)]
pub(crate) static TARGETS_V6: [Global<u64>; 2 * MAX_TARGETS] = [const { Global::new(0) }; 2 * MAX_TARGETS];

/// Target port, host byte order.
#[unsafe(no_mangle)]
pub(crate) static TARGET_PORT: Global<u16> = Global::new(53);

/// Cookie of the namespace whose devices we attach to.
#[unsafe(no_mangle)]
pub(crate) static OWN_NETNS: Global<u64> = Global::new(0);

/// 1: cgroup_skb programs may call `bpf_get_netns_cookie` (Linux 6.15).
#[unsafe(no_mangle)]
pub(crate) static HAVE_NETNS_COOKIE: Global<u8> = Global::new(0);

/// Events of other flows than the check's own that a CPU may emit in a window of the rate limit.
#[unsafe(no_mangle)]
pub(crate) static ADMITTED: Global<u64> = Global::new(0);

/// Of those, with the packet's bytes (8 µs each).
#[unsafe(no_mangle)]
pub(crate) static ADMITTED_COSTLY: Global<u64> = Global::new(0);

/// 1: of other flows' UDP packets, only the first sighting carries the payload.
#[unsafe(no_mangle)]
pub(crate) static ONCE: Global<u8> = Global::new(0);

/// Of other flows, one in so many; 0 and 1: all.
#[unsafe(no_mangle)]
pub(crate) static SAMPLE: Global<u32> = Global::new(0);

/// 1: what clients send and receive in namespaces that are not listed counts too; userspace finds out whose they are.
#[unsafe(no_mangle)]
pub(crate) static STRANGERS: Global<u8> = Global::new(0);

/// Bytes in the ring of other flows' events from which on no further query is let in: the rest is for what belongs to
/// those under way.
#[unsafe(no_mangle)]
pub(crate) static ROOM: Global<u64> = Global::new(0);

// Offsets in bytes, from the running kernel's BTF.
#[unsafe(no_mangle)]
pub(crate) static SKB_DEV: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static SKB_LEN: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static DEV_IFINDEX: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static DEV_NET: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static NET_COOKIE: Global<u32> = Global::new(0);
