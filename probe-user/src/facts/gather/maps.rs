//! Cilium's pinned maps. They are looked into, never written to; one whose sizes are not the measured ones is not
//! guessed at.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError, PerCpuHashMap, lpm_trie::Key};

use super::batch::Batches;
use super::drops::Drops;
use super::layout::{self, IPCACHE_KEY, IPCACHE_VALUE_V1, IPCACHE_VALUE_V2, LXC_KEY, LXC_VALUE};
use super::layout::{METRICS_KEY, METRICS_VALUE, SNAT_KEY, SNAT_VALUE};
use crate::{
    facts::{Cilium, Fact},
    trace::Flow,
};

/// How long a table is walked: half a million translations must not stall the probe.
const WALK_LIMIT: Duration = Duration::from_millis(200);
const WALK_MAX: usize = 1 << 20;

/// Why a map could not be looked into.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no such map; mount the node's bpffs here, or name it with --bpf-root")]
    Missing,
    #[error("{0}; CAP_BPF or CAP_SYS_ADMIN is needed")]
    Denied(io::Error),
    #[error("unknown layout: key {key}, value {value} bytes (known: key {}, value {})", .known.0, .known.1)]
    Layout { key: u32, value: u32, known: (usize, usize) },
    #[error("{0}")]
    Other(String),
}

impl From<MapError> for Error {
    fn from(error: MapError) -> Self {
        let (mut text, mut cause) = (error.to_string(), std::error::Error::source(&error));
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<io::Error>() {
                match io.kind() {
                    io::ErrorKind::NotFound => return Self::Missing,
                    io::ErrorKind::PermissionDenied => {
                        return Self::Denied(io::Error::from_raw_os_error(io.raw_os_error().unwrap_or(libc::EPERM)));
                    }
                    _ => {}
                }
            }
            let cause_text = error.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            cause = error.source();
        }
        Self::Other(text)
    }
}

/// Maps under `tc/globals` of a bpffs.
pub(super) struct Maps {
    globals: PathBuf,
}

impl Maps {
    pub(super) fn new(bpf_root: &Path) -> Self {
        Self { globals: bpf_root.join("tc/globals") }
    }

    fn source(&self, name: &str) -> String {
        self.globals.join(name).display().to_string()
    }

    /// Opens a map whose key and value have `known` sizes in bytes.
    fn open(&self, name: &str, known: (usize, usize)) -> Result<Map, Error> {
        self.open_with_id(name, known).map(|(map, _)| map)
    }

    /// The same with the kernel's id of the map.
    fn open_with_id(&self, name: &str, known: (usize, usize)) -> Result<(Map, u32), Error> {
        let data = MapData::from_pin(self.globals.join(name))?;
        let info = data.info()?;
        let sizes = (info.key_size(), info.value_size());
        if (usize::try_from(sizes.0), usize::try_from(sizes.1)) != (Ok(known.0), Ok(known.1)) {
            return Err(Error::Layout { key: sizes.0, value: sizes.1, known });
        }
        Ok((Map::from_map_data(data)?, info.id()))
    }

    /// Fills what the maps know of the targets.
    pub(super) fn read(&self, targets: &[IpAddr], cilium: &mut Cilium) {
        cilium.lxc = self.lxc(targets);
        cilium.ipcache = self.ipcache(targets);
        cilium.not_masqueraded = self.not_masqueraded(targets);
        cilium.snat_entries = self.snat_entries(targets);
        let drops = self.drops();
        (cilium.drops_before, cilium.drops_map) = (drops.counts, drops.map);
    }

    fn lxc(&self, targets: &[IpAddr]) -> BTreeMap<IpAddr, Fact<Option<crate::facts::LxcEntry>>> {
        type Lxc = HashMap<MapData, [u8; LXC_KEY], [u8; LXC_VALUE]>;
        let map = self.open("cilium_lxc", (LXC_KEY, LXC_VALUE)).and_then(|map| Ok(Lxc::try_from(map)?));
        each(targets, &map, &self.source("cilium_lxc"), |map, address| {
            found(map.get(&layout::lxc_key(address), 0)).map(|value| value.and_then(|v| layout::lxc_entry(&v)))
        })
    }

    fn ipcache(&self, targets: &[IpAddr]) -> BTreeMap<IpAddr, Fact<Option<u32>>> {
        type Ipcache<const N: usize> = LpmTrie<MapData, [u8; IPCACHE_KEY], [u8; N]>;
        let lookup = |address| {
            let (bits, key) = layout::ipcache_key(address);
            Key::new(bits, key)
        };
        let name = "cilium_ipcache_v2";
        match self.open(name, (IPCACHE_KEY + 4, IPCACHE_VALUE_V2)) {
            // Up to 1.17.
            Err(Error::Missing) => {
                let name = "cilium_ipcache";
                let map = self.open(name, (IPCACHE_KEY + 4, IPCACHE_VALUE_V1));
                let map = map.and_then(|map| Ok(Ipcache::<IPCACHE_VALUE_V1>::try_from(map)?));
                each(targets, &map, &self.source(name), |map, address| {
                    found(map.get(&lookup(address), 0)).map(|v| v.and_then(|v| layout::identity(&v)))
                })
            }
            map => {
                let map = map.and_then(|map| Ok(Ipcache::<IPCACHE_VALUE_V2>::try_from(map)?));
                each(targets, &map, &self.source(name), |map, address| {
                    found(map.get(&lookup(address), 0)).map(|v| v.and_then(|v| layout::identity(&v)))
                })
            }
        }
    }

    fn not_masqueraded(&self, targets: &[IpAddr]) -> BTreeMap<IpAddr, Fact<bool>> {
        type IpMasq = LpmTrie<MapData, [u8; 4], [u8; 1]>;
        let name = "cilium_ipmasq_v4";
        let map = self.open(name, (8, 1)).and_then(|map| Ok(IpMasq::try_from(map)?));
        // The agent makes this map only for ip-masq-agent: no map beside its others means no exemption.
        if matches!(map, Err(Error::Missing)) && self.globals.join("cilium_lxc").exists() {
            let source = format!("{} is not there", self.source(name));
            return targets.iter().map(|&address| (address, Fact::known(false, source.clone()))).collect();
        }
        each(targets, &map, &self.source(name), |map, address| {
            let key = Key::new(32, v4(address)?.octets());
            Ok(found(map.get(&key, 0))?.is_some())
        })
    }

    fn snat_entries(&self, targets: &[IpAddr]) -> BTreeMap<IpAddr, Fact<u32>> {
        let name = "cilium_snat_v4_external";
        let map = self.open(name, (SNAT_KEY, SNAT_VALUE));
        let mut counts = BTreeMap::<Ipv4Addr, u32>::new();
        let walked = map.as_ref().ok().map(|map| {
            walk_batches(map, |key| {
                if let Some(address) = layout::snat_towards(key)
                    && targets.contains(&IpAddr::V4(address))
                {
                    *counts.entry(address).or_default() += 1;
                }
            })
        });
        each(targets, &map, &self.source(name), |_, address| {
            let count = counts.get(&v4(address)?).copied().unwrap_or(0);
            match walked {
                Some(Err(seen)) if count == 0 => Err(Error::Other(format!(
                    "none among the {seen} entries read within {WALK_LIMIT:?}; there are more"
                ))),
                _ => Ok(count),
            }
        })
    }

    /// As whom a flow leaves the node, where Cilium's NAT knows it.
    pub(super) fn translated_source(&self, flow: Flow) -> Option<SocketAddr> {
        let (SocketAddr::V4(src), SocketAddr::V4(dst)) = (flow.src, flow.dst) else { return None };
        let map = self.open("cilium_snat_v4_external", (SNAT_KEY, SNAT_VALUE)).ok()?;
        let map = HashMap::<_, [u8; SNAT_KEY], [u8; SNAT_VALUE]>::try_from(map).ok()?;
        let value = map.get(&layout::snat_key(src, dst, flow.transport), 0).ok()?;
        layout::snat_source(&value).map(SocketAddr::V4)
    }

    /// Drops so far, as Cilium counts them.
    pub(super) fn drops(&self) -> Drops {
        type Metrics = PerCpuHashMap<MapData, [u8; METRICS_KEY], [u8; METRICS_VALUE]>;
        let name = "cilium_metrics";
        let opened = self.open_with_id(name, (METRICS_KEY, METRICS_VALUE));
        let (map, id) = match opened.and_then(|(map, id)| Ok((Metrics::try_from(map)?, id))) {
            Ok(opened) => opened,
            Err(e) => return Drops { counts: Fact::unavailable(e, self.source(name)), map: None },
        };
        let mut entries = Vec::new();
        let walked = walk(map.keys(), |key| {
            if let Ok(values) = map.get(&key, 0) {
                entries.push((key, values.to_vec()));
            }
        });
        let counts = match walked {
            Ok(()) => {
                let entries = entries.iter().map(|(key, values)| (&key[..], values.as_slice()));
                Fact::known(layout::drops(entries), self.source(name))
            }
            Err(seen) => {
                Fact::unavailable(format!("only {seen} entries were read in {WALK_LIMIT:?}"), self.source(name))
            }
        };
        Drops { counts, map: Some(id) }
    }
}

/// One lookup for each target, or the same reason for all of them.
fn each<M, T>(
    targets: &[IpAddr],
    map: &Result<M, Error>,
    source: &str,
    lookup: impl Fn(&M, IpAddr) -> Result<T, Error>,
) -> BTreeMap<IpAddr, Fact<T>> {
    let fact = |address| match map.as_ref().map(|map| lookup(map, address)) {
        Ok(Ok(value)) => Fact::known(value, source),
        Ok(Err(e)) => Fact::unavailable(e, source),
        Err(e) => Fact::unavailable(e, source),
    };
    targets.iter().map(|&address| (address, fact(address))).collect()
}

fn found<V>(value: Result<V, MapError>) -> Result<Option<V>, Error> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn v4(address: IpAddr) -> Result<Ipv4Addr, Error> {
    match address {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(_) => Err(Error::Other("Cilium's map for IPv6 is not read".into())),
    }
}

/// Walks keys for a bounded time; how many were seen, when it was cut short. A key that goes away during the walk
/// makes the kernel start again, so the number is bounded too.
fn walk<K>(keys: impl Iterator<Item = Result<K, MapError>>, mut visit: impl FnMut(K)) -> Result<(), usize> {
    let started = Instant::now();
    for (seen, key) in keys.enumerate() {
        if seen >= WALK_MAX || started.elapsed() > WALK_LIMIT {
            return Err(seen);
        }
        match key {
            Ok(key) => visit(key),
            Err(_) => return Err(seen),
        }
    }
    Ok(())
}

/// The same with many keys to a call, where the kernel can do that.
fn walk_batches(map: &Map, mut visit: impl FnMut(&[u8; SNAT_KEY])) -> Result<(), usize> {
    let (Map::HashMap(data) | Map::LruHashMap(data)) = map else { return Err(0) };
    let started = Instant::now();
    let mut batches = Batches::<SNAT_KEY, SNAT_VALUE>::new(data.fd().as_fd());
    let mut seen = 0;
    loop {
        match batches.next() {
            Ok(Some(keys)) => {
                keys.iter().for_each(&mut visit);
                seen += keys.len();
            }
            Ok(None) => return Ok(()),
            Err(_) if seen == 0 => {
                let keys = HashMap::<_, [u8; SNAT_KEY], [u8; SNAT_VALUE]>::try_from(map).map_err(|_| 0_usize)?;
                return walk(keys.keys(), |key| visit(&key));
            }
            Err(_) => return Err(seen),
        }
        if seen >= WALK_MAX || started.elapsed() > WALK_LIMIT {
            return Err(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{HOST_DNS_V4, HOST_DNS_V6};

    #[test]
    fn without_cilium_every_map_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let mut cilium = Cilium::default();
        Maps::new(dir.path()).read(&[HOST_DNS_V4], &mut cilium);
        for why in [cilium.lxc[&HOST_DNS_V4].why(), cilium.ipcache[&HOST_DNS_V4].why(), cilium.drops_before.why()] {
            assert!(why.is_some_and(|why| why.contains("--bpf-root") || why.contains("CAP_BPF")), "{why:?}");
        }
    }

    #[test]
    fn another_size_is_an_unknown_layout() {
        let text = Error::Layout { key: 20, value: 56, known: (20, 48) }.to_string();
        assert!(text.starts_with("unknown layout: key 20, value 56"), "{text}");
    }

    #[test]
    fn a_walk_that_is_cut_short_says_so() {
        assert_eq!(walk((0..10).map(Ok), |_: u32| {}), Ok(()));
        assert_eq!(walk(std::iter::repeat(()).map(Ok), |()| {}).map_err(|seen| seen > 0), Err(true));
        assert!(v4(HOST_DNS_V6).is_err());
    }
}
