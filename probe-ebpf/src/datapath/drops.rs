//! Drops, counted in `cilium_metrics` as Cilium does (bpf/lib/drop.h, metrics.h).

use aya_ebpf::{bindings::TC_ACT_SHOT, programs::TcContext};
use hostdns_probe_ebpf::datapath_abi::{MetricsKey, MetricsValue};

use crate::tables::{METRICS, config};

/// File numbers of the metrics key (cilium bpf/lib/source_info.h).
pub(crate) const BPF_HOST: u8 = 1;
pub(crate) const BPF_LXC: u8 = 2;

const INGRESS: u8 = 1;
const EGRESS: u8 = 2;

const BPF_ANY: u64 = 0;

/// Why a packet ends here: Cilium's `DROP_*`, positive. Of the type of a verdict, and no enum: the compiler then never
/// merges an initialised with an uninitialised value, which the verifier refuses to see read.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Drop(i32);

impl Drop {
    pub(crate) const POLICY: Self = Self(133);
    /// The packet is shorter than its headers say.
    pub(crate) const INVALID: Self = Self(134);
    pub(crate) const NAT_NO_MAPPING: Self = Self(167);
    pub(crate) const NO_FIB: Self = Self(169);
    pub(crate) const TTL_EXCEEDED: Self = Self(196);

    /// Counts the drop and says the verdict. What pods send counts as egress, the rest as ingress.
    #[inline(never)]
    pub(crate) fn count(self, ctx: &TcContext, file: u8) -> i32 {
        let line = if self.0 == Self::NO_FIB.0 { config!(fib_drop_line) as u16 } else { 0 };
        let direction = if file == BPF_LXC { EGRESS } else { INGRESS };
        let key = MetricsKey { reason: self.0 as u8, direction, line, file, reserved: [0; 3] };
        let bytes = u64::from(ctx.len());
        match METRICS.get_ptr_mut(&key) {
            // SAFETY: a per-CPU value; the program is not preempted by itself on this CPU.
            Some(value) => unsafe {
                (*value).packets += 1;
                (*value).bytes += bytes;
            },
            None => {
                // A full map loses a count, not the packet.
                let _full = METRICS.insert(&key, &MetricsValue { packets: 1, bytes }, BPF_ANY);
            }
        }
        TC_ACT_SHOT
    }
}
