//! Cilium's maps, written as the agent writes them. The encoding is pure and tested against recorded bytes.

use std::net::IpAddr;

use aya::maps::{HashMap, LpmTrie, MapData, lpm_trie::Key};
use hostdns_probe_ebpf::datapath_abi::{
    ENDPOINT_F_HOST, EndpointInfo, EndpointKey, FAMILY_V4, FAMILY_V6, IPCACHE_STATIC_PREFIX, IpcacheInfo,
    IpcacheInfoV2, IpcacheKey,
};

use super::Error;
use crate::lab::spec::{DatapathConfig, Endpoint};

/// Reserved identities (cilium pkg/identity/numericidentity.go).
const IDENTITY_HOST: u32 = 1;
const IDENTITY_WORLD: u32 = 2;
const IDENTITY_WORLD_IPV4: u32 = 9;
const IDENTITY_WORLD_IPV6: u32 = 10;

/// `BPF_ANY`.
const ANY: u64 = 0;

pub(super) type Lxc = HashMap<MapData, EndpointKey, EndpointInfo>;

/// The ipcache, in the layout of the version.
#[derive(Debug)]
pub(super) enum Ipcache {
    /// Up to 1.17: `cilium_ipcache`.
    V1(LpmTrie<MapData, IpcacheKey, IpcacheInfo>),
    /// From 1.18: `cilium_ipcache_v2`.
    V2(LpmTrie<MapData, IpcacheKey, IpcacheInfoV2>),
}

impl Ipcache {
    const fn name(&self) -> &'static str {
        match self {
            Self::V1(_) => "cilium_ipcache",
            Self::V2(_) => "cilium_ipcache_v2",
        }
    }

    fn insert(&mut self, key: &Key<IpcacheKey>, sec_identity: u32) -> Result<(), Error> {
        let name = self.name();
        match self {
            Self::V1(map) => map.insert(key, IpcacheInfo { sec_identity, ..IpcacheInfo::default() }, ANY),
            Self::V2(map) => map.insert(key, IpcacheInfoV2 { sec_identity, ..IpcacheInfoV2::default() }, ANY),
        }
        .map_err(|source| Error::Map { name, source })
    }

    fn remove(&mut self, key: &Key<IpcacheKey>) -> Result<(), Error> {
        let name = self.name();
        match self {
            Self::V1(map) => map.remove(key),
            Self::V2(map) => map.remove(key),
        }
        .map_err(|source| Error::Map { name, source })
    }
}

#[derive(Debug)]
pub(super) struct Tables {
    lxc: Lxc,
    ipcache: Ipcache,
}

impl Tables {
    /// Endpoints and the defaults; the node's addresses come later, by [`Self::add_host`].
    pub(super) fn fill(lxc: Lxc, ipcache: Ipcache, config: &DatapathConfig) -> Result<Self, Error> {
        let mut tables = Self { lxc, ipcache };
        let dual_stack = config.node_ipv6.is_some();
        tables
            .ipcache
            .insert(&default_route(FAMILY_V4), if dual_stack { IDENTITY_WORLD_IPV4 } else { IDENTITY_WORLD })?;
        if dual_stack {
            tables.ipcache.insert(&default_route(FAMILY_V6), IDENTITY_WORLD_IPV6)?;
        }
        for endpoint in &config.endpoints {
            let ips = endpoint.ipv4.map(IpAddr::from).into_iter().chain(endpoint.ipv6.map(IpAddr::from));
            for ip in ips {
                tables.insert(ip, endpoint_info(endpoint), endpoint.identity)?;
            }
        }
        Ok(tables)
    }

    pub(super) fn add_host(&mut self, ip: IpAddr) -> Result<(), Error> {
        self.insert(ip, host_info(), IDENTITY_HOST)
    }

    pub(super) fn remove_host(&mut self, ip: IpAddr) -> Result<(), Error> {
        self.lxc.remove(&endpoint_key(ip)).map_err(|source| Error::Map { name: "cilium_lxc", source })?;
        self.ipcache.remove(&ipcache_key(ip))
    }

    fn insert(&mut self, ip: IpAddr, info: EndpointInfo, identity: u32) -> Result<(), Error> {
        self.lxc.insert(endpoint_key(ip), info, ANY).map_err(|source| Error::Map { name: "cilium_lxc", source })?;
        self.ipcache.insert(&ipcache_key(ip), identity)
    }
}

pub(super) fn endpoint_key(ip: IpAddr) -> EndpointKey {
    match ip {
        IpAddr::V4(ip) => EndpointKey::v4(ip.octets()),
        IpAddr::V6(ip) => EndpointKey::v6(ip.octets()),
    }
}

fn ipcache_key(ip: IpAddr) -> Key<IpcacheKey> {
    let EndpointKey { ip: bytes, family, .. } = endpoint_key(ip);
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    Key::new(IPCACHE_STATIC_PREFIX + bits, IpcacheKey { cluster_id: 0, pad: 0, family, ip: bytes })
}

fn default_route(family: u8) -> Key<IpcacheKey> {
    Key::new(IPCACHE_STATIC_PREFIX, IpcacheKey { cluster_id: 0, pad: 0, family, ip: [0; 16] })
}

fn host_info() -> EndpointInfo {
    EndpointInfo { flags: ENDPOINT_F_HOST, ..EndpointInfo::default() }
}

fn endpoint_info(endpoint: &Endpoint) -> EndpointInfo {
    EndpointInfo {
        ifindex: endpoint.device.index,
        lxc_id: endpoint.id,
        mac: mac(endpoint.mac),
        node_mac: mac(endpoint.device.mac),
        sec_id: endpoint.identity,
        ..EndpointInfo::default()
    }
}

fn mac([a, b, c, d, e, f]: [u8; 6]) -> [u8; 8] {
    [a, b, c, d, e, f, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::spec::Device;

    fn bytes<T: aya::Pod>(value: &T) -> String {
        // SAFETY: Pod types are plain bytes.
        let bytes = unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) };
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    // The hex below is from dumps of real maps, Cilium 1.18.1 (lxc, ipcache_v2) and 1.16.5 (ipcache).

    #[test]
    fn host_entries_are_those_of_a_real_agent() {
        let ip = "192.168.77.2".parse().expect("an address");
        assert_eq!(bytes(&endpoint_key(ip)), "c0a84d0200000000000000000000000001000000");
        assert_eq!(bytes(&host_info()), format!("{}{}{}", "00".repeat(8), "01000000", "00".repeat(36)));
        assert_eq!(bytes(&ipcache_key(ip)), "4000000000000001c0a84d02000000000000000000000000");
        assert_eq!(bytes(&default_route(FAMILY_V4)), "200000000000000100000000000000000000000000000000");
    }

    #[test]
    fn an_endpoint_is_written_as_a_real_agent_does() {
        let endpoint = Endpoint {
            id: 0x07cf,
            device: Device {
                name: "lxc014991a937be".into(),
                index: 7,
                mac: [0x8a, 0xdc, 0xe2, 0x9b, 0x43, 0xe5],
                layer3: false,
            },
            mac: [0x86, 0x0a, 0x0c, 0x08, 0xd8, 0x58],
            ipv4: "10.244.1.198".parse().ok(),
            ipv6: None,
            identity: 31982,
        };
        assert_eq!(
            bytes(&endpoint_info(&endpoint)),
            "070000000000cf070000000000000000860a0c08d85800008adce29b43e50000ee7c0000000000000000000000000000"
        );
    }

    #[test]
    fn identities_are_where_each_layout_has_them() {
        let old = IpcacheInfo { sec_identity: 0x5b67, ..IpcacheInfo::default() };
        assert_eq!(bytes(&old), "675b00000000000000000000");
        let new = IpcacheInfoV2 { sec_identity: 0x7cee, ..IpcacheInfoV2::default() };
        assert_eq!(bytes(&new), "ee7c00000000000000000000000000000000000000000000");
    }
}
