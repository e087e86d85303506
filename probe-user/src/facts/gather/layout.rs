//! Byte layouts of Cilium's maps, from cilium bpf/lib/{common,eps,nat}.h and pkg/maps, checked against recordings of
//! 1.16.4 to 1.19.0-pre.0. Addresses and ports are in network order, all else in the node's (little-endian where
//! recorded).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
};

use super::bytes::{array, byte, u16_at, u32_at};
use crate::facts::{DropCount, LxcEntry, Transport};

/// `struct endpoint_key`.
pub(super) const LXC_KEY: usize = 20;
/// `struct endpoint_info`.
pub(super) const LXC_VALUE: usize = 48;
/// `struct ipcache_key` without the prefix length in front.
pub(super) const IPCACHE_KEY: usize = 20;
/// `struct remote_endpoint_info` of `cilium_ipcache` (up to 1.17).
pub(super) const IPCACHE_VALUE_V1: usize = 12;
/// The same of `cilium_ipcache_v2` (from 1.18).
pub(super) const IPCACHE_VALUE_V2: usize = 24;
/// `struct metrics_key`.
pub(super) const METRICS_KEY: usize = 8;
/// `struct metrics_value`, one for each CPU.
pub(super) const METRICS_VALUE: usize = 16;
/// `struct ipv4_ct_tuple`.
pub(super) const SNAT_KEY: usize = 14;
/// `struct ipv4_nat_entry`.
pub(super) const SNAT_VALUE: usize = 40;

/// Family of an address in Cilium's keys (`ENDPOINT_KEY_IPV4`, `ENDPOINT_KEY_IPV6`), and its bytes in a field of 16.
fn family_and_field(address: IpAddr) -> (u8, [u8; 16]) {
    match address {
        IpAddr::V4(ip) => {
            let mut field = [0; 16];
            field[..4].copy_from_slice(&ip.octets());
            (1, field)
        }
        IpAddr::V6(ip) => (2, ip.octets()),
    }
}

/// Key of `cilium_lxc`: ip 0:16, family 16:1, key 17:1, cluster_id 18:2.
pub(super) fn lxc_key(address: IpAddr) -> [u8; LXC_KEY] {
    let (family, field) = family_and_field(address);
    let mut key = [0; LXC_KEY];
    key[..16].copy_from_slice(&field);
    key[16] = family;
    key
}

/// Value of `cilium_lxc`: ifindex 0:4, lxc_id 6:2, flags 8:4.
pub(super) fn lxc_entry(value: &[u8]) -> Option<LxcEntry> {
    Some(LxcEntry { ifindex: u32_at(value, 0)?, lxc_id: u16_at(value, 6)?, flags: u32_at(value, 8)? })
}

/// Key of the ipcache for a lookup of one address: the prefix length in bits (32 for cluster_id, pad and family, then
/// the address), and cluster_id 0:2, pad 2:1, family 3:1, ip 4:16.
pub(super) fn ipcache_key(address: IpAddr) -> (u32, [u8; IPCACHE_KEY]) {
    let (family, field) = family_and_field(address);
    let mut key = [0; IPCACHE_KEY];
    key[3] = family;
    key[4..].copy_from_slice(&field);
    (if address.is_ipv4() { 64 } else { 160 }, key)
}

/// Value of the ipcache, both versions: sec_identity 0:4.
pub(super) fn identity(value: &[u8]) -> Option<u32> {
    u32_at(value, 0)
}

/// Drops by reason and direction. Key of `cilium_metrics`: reason 0:1, direction in the low two bits of 1:1, then line
/// and file since 1.16, summed over here. Value: count 0:8, bytes 8:8.
pub(super) fn drops<'a, V: AsRef<[u8]> + 'a>(entries: impl IntoIterator<Item = (&'a [u8], &'a [V])>) -> Vec<DropCount> {
    const DROP_MIN: u8 = 130; // cilium pkg/monitor/api/drop.go; below are forwarded packets
    let mut sums = BTreeMap::<_, u64>::new();
    for (key, cpus) in entries {
        let (Some(reason @ DROP_MIN..), Some(direction)) = (byte(key, 0), byte(key, 1)) else { continue };
        let counts = cpus.iter().filter_map(|value| array(value.as_ref(), 0).map(u64::from_ne_bytes));
        let sum = sums.entry((reason, direction & 3)).or_default();
        *sum = counts.fold(*sum, u64::saturating_add);
    }
    sums.into_iter().map(|((reason, direction), packets)| DropCount { reason, direction, packets }).collect()
}

/// Whom an entry of `cilium_snat_v4_external` translates towards. Key: daddr 0:4, saddr 4:4, dport 8:2, sport 10:2,
/// proto 12:1, flags 13:1. `None` for the entries of the way back (`NAT_DIR_INGRESS` in the flags).
pub(super) fn snat_towards(key: &[u8]) -> Option<Ipv4Addr> {
    const TUPLE_F_IN: u8 = 1;
    (byte(key, 13)? & TUPLE_F_IN == 0).then_some(())?;
    array::<4>(key, 0).map(Ipv4Addr::from)
}

/// Key of the entry of `cilium_snat_v4_external` that translates a flow on its way out.
pub(super) fn snat_key(src: SocketAddrV4, dst: SocketAddrV4, transport: Transport) -> [u8; SNAT_KEY] {
    let mut key = [0; SNAT_KEY]; // flags 0: NAT_DIR_EGRESS
    key[..4].copy_from_slice(&dst.ip().octets());
    key[4..8].copy_from_slice(&src.ip().octets());
    key[8..10].copy_from_slice(&dst.port().to_be_bytes());
    key[10..12].copy_from_slice(&src.port().to_be_bytes());
    key[12] = match transport {
        Transport::Udp => 17,
        Transport::Tcp => 6,
    };
    key
}

/// What an entry translates the source to. Value: to_addr 32:4, to_port 36:2, both in network byte order.
pub(super) fn snat_source(value: &[u8]) -> Option<SocketAddrV4> {
    let address = array::<4>(value, 32).map(Ipv4Addr::from)?;
    Some(SocketAddrV4::new(address, u16::from_be_bytes(array(value, 36)?)))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::target::{HOST_DNS_V4, HOST_DNS_V6};

    /// As `bpftool map dump --json` writes it.
    #[derive(Deserialize)]
    struct Entry {
        key: Vec<String>,
        #[serde(default)]
        value: Vec<String>,
        #[serde(default)]
        values: Vec<Cpu>,
    }

    #[derive(Deserialize)]
    struct Cpu {
        value: Vec<String>,
    }

    fn bytes(text: &[String]) -> Vec<u8> {
        text.iter().map(|byte| u8::from_str_radix(byte.trim_start_matches("0x"), 16).unwrap()).collect()
    }

    fn dump(json: &str) -> Vec<(Vec<u8>, Vec<Vec<u8>>)> {
        let entries: Vec<Entry> = serde_json::from_str(json).unwrap();
        let values = |e: &Entry| match e.values.as_slice() {
            [] => vec![bytes(&e.value)],
            cpus => cpus.iter().map(|cpu| bytes(&cpu.value)).collect(),
        };
        entries.iter().map(|e| (bytes(&e.key), values(e))).collect()
    }

    macro_rules! fixture {
        ($name:literal) => {
            dump(include_str!(concat!("../../../../tests/fixtures/recorded/", $name)))
        };
    }

    #[test]
    fn a_known_address_is_the_hosts() {
        let lxc = fixture!("cilium-1.18.1/native-bpf-global-1dev/maps/cilium_lxc.dump.json");
        let (_, values) = lxc.iter().find(|(key, _)| *key == lxc_key(HOST_DNS_V4)).expect("the address is there");
        assert_eq!(lxc_entry(&values[0]), Some(LxcEntry { ifindex: 0, lxc_id: 0, flags: 1 }));
        assert!(lxc.iter().all(|(key, values)| key.len() == LXC_KEY && values[0].len() == LXC_VALUE));
    }

    #[test]
    fn a_pod_is_not_the_host() {
        let lxc = fixture!("cilium-1.18.1/native-bpf-global-1dev/maps/cilium_lxc.dump.json");
        let pods = lxc.iter().filter_map(|(_, values)| lxc_entry(&values[0])).filter(|entry| !entry.is_host());
        let pods: Vec<_> = pods.collect();
        assert_eq!(pods.len(), 1);
        assert!(pods[0].ifindex != 0 && pods[0].lxc_id != 0);
    }

    #[test]
    fn an_unknown_address_has_no_entry() {
        let lxc = fixture!("cilium-1.18.1/native-bpf-host-2dev/maps/cilium_lxc.dump.json");
        assert!(!lxc.is_empty() && lxc.iter().all(|(key, _)| *key != lxc_key(HOST_DNS_V4)));
    }

    #[test]
    fn the_ipcache_key_is_the_recorded_one() {
        let (bits, key) = ipcache_key(HOST_DNS_V4);
        let whole = [&bits.to_ne_bytes()[..], &key].concat();
        for (entries, size) in [
            (fixture!("cilium-1.18.1/native-bpf-global-1dev/maps/cilium_ipcache_v2.dump.json"), IPCACHE_VALUE_V2),
            (fixture!("cilium-1.16.4/vxlan-bpf-host-1dev/maps/cilium_ipcache.dump.json"), IPCACHE_VALUE_V1),
        ] {
            assert!(entries.iter().all(|(key, values)| key.len() == whole.len() && values[0].len() == size));
        }
        let entries = fixture!("cilium-1.18.1/native-bpf-global-1dev/maps/cilium_ipcache_v2.dump.json");
        let (_, values) = entries.iter().find(|(key, _)| *key == whole).expect("the address is there");
        assert_eq!(identity(&values[0]), Some(1));
    }

    #[test]
    fn ipv6_keys_say_so() {
        assert_eq!(lxc_key(HOST_DNS_V6)[16], 2);
        let (bits, key) = ipcache_key(HOST_DNS_V6);
        assert_eq!((bits, key[3], key[4], key[19]), (160, 2, 0xfd, 0x31));
    }

    #[test]
    fn drops_are_summed_over_lines_and_cpus() {
        let metrics = fixture!("cilium-1.18.1/native-bpf-host-2dev/maps/cilium_metrics.dump.json");
        assert!(metrics.iter().all(|(k, v)| k.len() == METRICS_KEY && v.iter().all(|v| v.len() == METRICS_VALUE)));
        let found = drops(metrics.iter().map(|(key, values)| (key.as_slice(), values.as_slice())));
        let fib = found.iter().find(|d| (d.reason, d.direction) == (169, 2)).expect("the FIB drop was counted");
        let key = [0xa9, 2, 0x51, 5, 2, 0, 0, 0];
        let (_, cpus) = metrics.iter().find(|(k, _)| *k == key).unwrap();
        let counted: u64 = cpus.iter().map(|v| u64::from(v[0])).sum();
        assert!(counted > 0);
        assert_eq!(fib.packets, counted);
        assert!(found.iter().all(|d| d.reason >= 130), "forwarded packets are no drops");
    }

    #[test]
    fn the_trace_of_a_leak_is_an_entry_towards_the_address() {
        let snat = fixture!("cilium-1.18.1/native-bpf-host-1dev/maps/cilium_snat_v4_external.dump.json");
        assert!(snat.iter().all(|(key, values)| key.len() == SNAT_KEY && values[0].len() == SNAT_VALUE));
        let towards = snat.iter().filter_map(|(key, _)| snat_towards(key)).filter(|ip| IpAddr::V4(*ip) == HOST_DNS_V4);
        assert_eq!(towards.count(), 3, "UDP, TCP and ping");
    }

    #[test]
    fn a_flows_entry_says_as_whom_it_left() {
        let snat = fixture!("cilium-1.18.1/native-bpf-host-1dev/maps/cilium_snat_v4_external.dump.json");
        let (key, values) = snat.iter().find(|(key, _)| key[12] == 17 && key[13] == 0).unwrap();
        let port = |at: usize| u16::from_be_bytes([key[at], key[at + 1]]);
        let src = SocketAddrV4::new(Ipv4Addr::new(key[4], key[5], key[6], key[7]), port(10));
        let dst = SocketAddrV4::new(Ipv4Addr::new(key[0], key[1], key[2], key[3]), port(8));
        assert_eq!(snat_key(src, dst, Transport::Udp).as_slice(), key.as_slice());
        assert_eq!(snat_source(&values[0]).map(|source| source.ip().to_string()).as_deref(), Some("192.168.77.2"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _lxc = lxc_entry(&bytes);
            let _identity = identity(&bytes);
            let _towards = snat_towards(&bytes);
            let _source = snat_source(&bytes);
            let values = [bytes.as_slice()];
            let _drops = drops([(bytes.as_slice(), &values[..])]);
        }
    }
}
