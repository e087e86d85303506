//! The settings, and the maps under Cilium's names. Sizes are modest: a lab has a handful of pods.

use aya_ebpf::{
    macros::map,
    maps::{HashMap, LpmTrie, LruHashMap, PerCpuHashMap},
};
use hostdns_probe_ebpf::datapath_abi::{
    Config, ENDPOINT_F_HOST, EndpointInfo, EndpointKey, IpcacheInfo, IpcacheInfoV2, IpcacheKey, MetricsKey,
    MetricsValue, SnatEntry, SnatKey,
};

const BPF_F_NO_PREALLOC: u32 = 1;

/// Filled in by the loader before the program is verified.
#[unsafe(no_mangle)]
static CONFIG: Config = Config::ZERO;

/// One field of the settings. Volatile: the compiler must not take the zeros above for the truth.
macro_rules! config {
    ($($field:tt)+) => {{
        let config = $crate::tables::settings();
        // SAFETY: a field of a static, always readable.
        unsafe { core::ptr::read_volatile(&raw const (*config).$($field)+) }
    }};
}
pub(crate) use config;

#[inline(always)]
pub(crate) fn settings() -> *const Config {
    &raw const CONFIG
}

/// Endpoints and the node's own addresses: "known" is an entry with the host flag.
#[map(name = "cilium_lxc")]
pub(crate) static LXC: HashMap<EndpointKey, EndpointInfo> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// Up to 1.17. Kept by the loader; no decision here depends on an identity.
#[map(name = "cilium_ipcache")]
pub(crate) static IPCACHE: LpmTrie<IpcacheKey, IpcacheInfo> = LpmTrie::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// From 1.18.
#[map(name = "cilium_ipcache_v2")]
pub(crate) static IPCACHE_V2: LpmTrie<IpcacheKey, IpcacheInfoV2> = LpmTrie::with_max_entries(1024, BPF_F_NO_PREALLOC);

#[map(name = "cilium_metrics")]
pub(crate) static METRICS: PerCpuHashMap<MetricsKey, MetricsValue> =
    PerCpuHashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// Destinations that are not masqueraded.
#[map(name = "cilium_ipmasq_v4")]
pub(crate) static IPMASQ_V4: LpmTrie<[u8; 4], u8> = LpmTrie::with_max_entries(64, BPF_F_NO_PREALLOC);

#[map(name = "cilium_snat_v4_external")]
pub(crate) static SNAT_V4: LruHashMap<SnatKey, SnatEntry> = LruHashMap::with_max_entries(8192, 0);

/// Destinations that a network policy denies. Cilium keeps one map per endpoint; the lab has one rule.
#[map(name = "lab_policy_deny")]
pub(crate) static DENIED: HashMap<EndpointKey, u8> = HashMap::with_max_entries(16, BPF_F_NO_PREALLOC);

/// What Cilium knows of an address: the node's own ([`is_host`]), a local endpoint, or nothing.
#[inline(always)]
pub(crate) fn lookup(key: &EndpointKey) -> Option<&'static EndpointInfo> {
    // SAFETY: the map is not preallocated: a removed entry is freed after a grace period, and the program
    // ends before that.
    unsafe { LXC.get(key) }
}

#[inline(always)]
pub(crate) fn is_host(info: &EndpointInfo) -> bool {
    info.flags & ENDPOINT_F_HOST != 0
}

/// A pod on this node.
#[inline(always)]
pub(crate) fn endpoint(key: &EndpointKey) -> Option<&'static EndpointInfo> {
    lookup(key).filter(|info| !is_host(info))
}
