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

/// Why a packet ends here: Cilium's `DROP_*`, positive.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Drop {
    Policy = 133,
    /// The packet is shorter than its headers say.
    Invalid = 134,
    NatNoMapping = 167,
    NoFib = 169,
    TtlExceeded = 196,
}

impl Drop {
    /// Counts the drop and says the verdict. What pods send counts as egress, the rest as ingress.
    #[inline(never)]
    pub(crate) fn count(self, ctx: &TcContext, file: u8) -> i32 {
        let line = match self {
            Self::NoFib => config!(fib_drop_line) as u16,
            _ => 0,
        };
        let direction = if file == BPF_LXC { EGRESS } else { INGRESS };
        let key = MetricsKey { reason: self as u8, direction, line, file, reserved: [0; 3] };
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
