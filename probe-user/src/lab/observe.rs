//! What a lab shows to an eye that shares nothing with the probe: what leaked, and what Cilium's maps hold.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path};

use aya::maps::{Map, MapData, MapError, PerCpuHashMap};
use serde::{Deserialize, Serialize};

use super::{Error, standing::Standing};

/// A packet that arrived outside, for an address of the node's own DNS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leak {
    /// IP protocol number.
    pub protocol: u8,
    pub source: IpAddr,
    pub destination: IpAddr,
}

/// The packets that have leaked so far.
///
/// # Errors
/// The record cannot be read.
pub fn leaks(lab: &Standing) -> Result<Vec<Leak>, Error> {
    let path = lab.folder().join("leaks");
    let text = fs::read_to_string(&path).map_err(Error::io(format!("cannot read {}", path.display())))?;
    Ok(text.lines().filter_map(leak).collect())
}

fn leak(line: &str) -> Option<Leak> {
    let mut words = line.split(' ');
    Some(Leak {
        protocol: words.next()?.parse().ok()?,
        source: words.next()?.parse().ok()?,
        destination: words.next()?.parse().ok()?,
    })
}

/// What the pinned maps hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maps {
    /// `cilium_lxc` about the address: `host`, `endpoint` or `absent`.
    pub lxc: String,
    /// `cilium_metrics`: packets by reason, directions and lines summed up.
    pub metrics: BTreeMap<u8, u64>,
}

/// Reads the maps pinned under `globals` (of the mount namespace this runs in).
///
/// # Errors
/// A map is not there, or is not what it should be.
pub fn maps(globals: &Path, address: IpAddr) -> Result<Maps, Error> {
    let open = |name: &str| {
        let path = globals.join(name);
        MapData::from_pin(&path).map_err(|error| Error::Datapath(format!("cannot open {}: {error}", path.display())))
    };
    let failed = |error: MapError| Error::Datapath(format!("cannot read a map: {error}"));
    // struct endpoint_key and endpoint_info, cilium bpf/lib/eps.h: the family at 16, the flags at 8.
    let mut key = [0_u8; 20];
    match address {
        IpAddr::V4(address) => {
            key[..4].copy_from_slice(&address.octets());
            key[16] = 1;
        }
        IpAddr::V6(address) => {
            key[..16].copy_from_slice(&address.octets());
            key[16] = 2;
        }
    }
    let lxc: aya::maps::HashMap<_, [u8; 20], [u8; 48]> =
        Map::HashMap(open("cilium_lxc")?).try_into().map_err(failed)?;
    let lxc = match lxc.get(&key, 0) {
        Ok(value) if value[8] & 1 != 0 => "host",
        Ok(_) => "endpoint",
        Err(MapError::KeyNotFound) => "absent",
        Err(error) => return Err(failed(error)),
    };
    let counts: PerCpuHashMap<_, [u8; 8], [u64; 2]> =
        Map::PerCpuHashMap(open("cilium_metrics")?).try_into().map_err(failed)?;
    let mut metrics = BTreeMap::new();
    for entry in counts.iter() {
        let (key, values) = entry.map_err(failed)?;
        *metrics.entry(key[0]).or_default() += values.iter().map(|[packets, _bytes]| packets).sum::<u64>();
    }
    Ok(Maps { lxc: lxc.into(), metrics })
}
