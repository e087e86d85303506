//! What the lab's datapath and its loader share: the settings compiled in as a global, and Cilium's map layouts.
//!
//! Layouts follow cilium `bpf/lib/{common,eps,nat,metrics}.h` and were checked against dumps of real maps. Addresses and
//! ports are in network byte order, as byte arrays; all else is in host byte order (little-endian on what Cilium runs).
//! Every byte of padding is named: the kernel compares whole keys, and the verifier wants them initialised.

/// Settings of one lab, constant for the verifier.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Effective BPF host routing; 0 is Legacy: everything goes up the stack.
    pub bpf_host_routing: u32,
    /// Unknown addresses go up the stack: tunnel mode up to 1.16.4.
    pub unknown_to_stack: u32,
    /// A FIB lookup that says "not forwarded" goes up the stack: 1.19.
    pub fib_miss_to_stack: u32,
    /// The one device of ENABLE_SKIP_FIB; 0: look the route up.
    pub shortcut_ifindex: u32,
    /// That device has no Ethernet header.
    pub shortcut_layer3: u32,
    /// BPF masquerade is on.
    pub masquerade: u32,
    /// Destinations that keep the pod's address.
    pub pod_cidr: [u8; 4],
    pub pod_cidr_mask: [u8; 4],
    /// Line in bpf_lxc.c that Cilium's metrics name for a failed FIB lookup; 0: not measured for that version.
    pub fib_drop_line: u32,
    pub external: [External; 2],
}

/// One of Cilium's `devices`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct External {
    /// 0: not used.
    pub ifindex: u32,
    /// No Ethernet header.
    pub layer3: u32,
    /// What pods are masqueraded to.
    pub ipv4: [u8; 4],
}

impl Config {
    pub const ZERO: Self = Self {
        bpf_host_routing: 0,
        unknown_to_stack: 0,
        fib_miss_to_stack: 0,
        shortcut_ifindex: 0,
        shortcut_layer3: 0,
        masquerade: 0,
        pod_cidr: [0; 4],
        pod_cidr_mask: [0; 4],
        fib_drop_line: 0,
        external: [External { ifindex: 0, layer3: 0, ipv4: [0; 4] }; 2],
    };
}

/// `ENDPOINT_KEY_IPV4`.
pub const FAMILY_V4: u8 = 1;
/// `ENDPOINT_KEY_IPV6`.
pub const FAMILY_V6: u8 = 2;

/// Key of `cilium_lxc` (`struct endpoint_key`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey {
    /// IPv4 in the first four bytes, or IPv6.
    pub ip: [u8; 16],
    pub family: u8,
    pub key: u8,
    pub cluster_id: u16,
}

impl EndpointKey {
    #[inline(always)]
    pub const fn v4(ip: [u8; 4]) -> Self {
        let mut bytes = [0; 16];
        bytes[0] = ip[0];
        bytes[1] = ip[1];
        bytes[2] = ip[2];
        bytes[3] = ip[3];
        Self { ip: bytes, family: FAMILY_V4, key: 0, cluster_id: 0 }
    }

    #[inline(always)]
    pub const fn v6(ip: [u8; 16]) -> Self {
        Self { ip, family: FAMILY_V6, key: 0, cluster_id: 0 }
    }
}

/// The address is the node's own.
pub const ENDPOINT_F_HOST: u32 = 1;
/// The endpoint is in the host's namespace (1.16.4+).
pub const ENDPOINT_F_ATHOSTNS: u32 = 2;

/// Value of `cilium_lxc` (`struct endpoint_info`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointInfo {
    pub ifindex: u32,
    pub unused: u16,
    pub lxc_id: u16,
    pub flags: u32,
    pub pad1: u32,
    /// MAC in the pod, in the first six bytes.
    pub mac: [u8; 8],
    /// MAC of the device on the node's side, in the first six bytes.
    pub node_mac: [u8; 8],
    pub sec_id: u32,
    /// 1.17 and later.
    pub parent_ifindex: u32,
    pub pad2: [u32; 2],
}

/// Key of the ipcache, the LPM's prefix length apart (`struct ipcache_key`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpcacheKey {
    pub cluster_id: u16,
    pub pad: u8,
    pub family: u8,
    pub ip: [u8; 16],
}

/// Bits in front of the address that every ipcache prefix covers: cluster, padding and family.
pub const IPCACHE_STATIC_PREFIX: u32 = 32;

/// Value of `cilium_ipcache`, up to 1.17 (`struct remote_endpoint_info`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpcacheInfo {
    pub sec_identity: u32,
    pub tunnel_endpoint: [u8; 4],
    pub pad: u16,
    pub key: u8,
    pub flags: u8,
}

/// Value of `cilium_ipcache_v2`, from 1.18.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpcacheInfoV2 {
    pub sec_identity: u32,
    pub tunnel_endpoint: [u8; 16],
    pub pad: u16,
    pub key: u8,
    pub flags: u8,
}

/// Key of `cilium_metrics` (`struct metrics_key`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsKey {
    pub reason: u8,
    /// 1 ingress, 2 egress; the low two bits.
    pub direction: u8,
    pub line: u16,
    /// 1 bpf_host.c, 2 bpf_lxc.c.
    pub file: u8,
    pub reserved: [u8; 3],
}

/// Value of `cilium_metrics`, one per CPU (`struct metrics_value`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsValue {
    pub packets: u64,
    pub bytes: u64,
}

/// The entry is for packets on their way out.
pub const SNAT_OUT: u8 = 0;
/// The entry is for answers coming in.
pub const SNAT_IN: u8 = 1;

/// Key of `cilium_snat_v4_external` (`struct ipv4_ct_tuple`). Out: `daddr` the remote, `saddr` the pod. In: `daddr` the
/// node, `saddr` the remote. An ICMP echo's identifier stands for the local port; the remote port is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnatKey {
    pub daddr: [u8; 4],
    pub saddr: [u8; 4],
    pub dport: [u8; 2],
    pub sport: [u8; 2],
    pub protocol: u8,
    pub flags: u8,
}

/// Value of `cilium_snat_v4_external` (`struct ipv4_nat_entry`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnatEntry {
    /// Seconds of the monotonic clock.
    pub created: u64,
    /// The node's own traffic, kept only to reserve its port.
    pub needs_ct: u64,
    pub pad1: [u64; 2],
    pub to_address: [u8; 4],
    pub to_port: [u8; 2],
    pub pad2: [u8; 2],
}

const _: () = {
    assert!(size_of::<EndpointKey>() == 20);
    assert!(size_of::<EndpointInfo>() == 48);
    assert!(size_of::<IpcacheKey>() == 20);
    assert!(size_of::<IpcacheInfo>() == 12);
    assert!(size_of::<IpcacheInfoV2>() == 24);
    assert!(size_of::<MetricsKey>() == 8);
    assert!(size_of::<MetricsValue>() == 16);
    assert!(size_of::<SnatKey>() == 14);
    assert!(size_of::<SnatEntry>() == 40);
    assert!(size_of::<Config>() == 9 * 4 + 2 * 12);
};

#[cfg(feature = "user")]
mod pod {
    macro_rules! pod {
        ($($type:ident)*) => {
            $(
                // SAFETY: repr(C), plain integers, no implicit padding (sizes asserted above).
                unsafe impl aya::Pod for super::$type {}
            )*
        };
    }
    pod!(Config EndpointKey EndpointInfo IpcacheKey IpcacheInfo IpcacheInfoV2 MetricsKey MetricsValue SnatKey SnatEntry);
}
