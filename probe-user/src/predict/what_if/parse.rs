//! `KEY=VALUE`, as it is typed.

use std::str::FromStr;

use super::{Change, masquerade_name, routing_name};
use crate::{
    facts::{HostRouting, Masquerade, RoutingMode, scope_of},
    predict::version::Version,
};

/// Every key a user may type, with what it takes.
pub const KEYS: &[(&str, &str)] = &[
    ("cilium-version", "a release, as 1.18.1"),
    ("host-routing", "bpf or legacy"),
    ("masquerade", "bpf, iptables or disabled"),
    ("routing-mode", "native or tunnel"),
    ("devices", "how many, or their names with commas"),
    ("endpoint-routes", "true or false"),
    ("kube-proxy-replacement", "true or false"),
    ("ipsec", "true or false"),
    ("local-max-addr-scope", "0 to 255, or global, site, link, host"),
    ("exclude-local-address", "prefixes with commas, or nothing"),
    ("lo-scope", "global, site, link, host, a number, or absent"),
    ("forward", "true or false: Talos' forwardKubeDNSToHost"),
];

/// Why a text is no change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a change is KEY=VALUE, and {0:?} is not; the keys are {keys}", keys = names())]
    NotAPair(String),
    #[error("there is no key {0:?}; the keys are {keys}", keys = names())]
    UnknownKey(String),
    #[error("{key} takes {takes}, not {value:?}")]
    Value { key: &'static str, takes: &'static str, value: String },
}

fn names() -> String {
    KEYS.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", ")
}

impl FromStr for Change {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (key, value) = text.split_once('=').ok_or_else(|| Error::NotAPair(text.into()))?;
        let (key, value) = (key.trim(), value.trim());
        let &(key, takes) =
            KEYS.iter().find(|(known, _)| *known == key).ok_or_else(|| Error::UnknownKey(key.into()))?;
        read(key, value).ok_or_else(|| Error::Value { key, takes, value: value.into() })
    }
}

fn read(key: &str, value: &str) -> Option<Change> {
    let word = value.to_ascii_lowercase();
    Some(match key {
        "cilium-version" => Change::CiliumVersion(Version::parse(value)?.to_string()),
        "host-routing" => Change::HostRouting(match word.as_str() {
            "bpf" => HostRouting::Bpf,
            "legacy" => HostRouting::Legacy,
            _ => return None,
        }),
        "masquerade" => {
            let all = [Masquerade::Bpf, Masquerade::Iptables, Masquerade::Disabled];
            Change::Masquerade(all.into_iter().find(|mode| masquerade_name(*mode) == word)?)
        }
        "routing-mode" => {
            let all = [RoutingMode::Native, RoutingMode::Tunnel];
            Change::RoutingMode(all.into_iter().find(|mode| routing_name(*mode) == word)?)
        }
        "devices" => Change::Devices(devices(value)?),
        "endpoint-routes" => Change::EndpointRoutes(flag(&word)?),
        "kube-proxy-replacement" => Change::KubeProxyReplacement(flag(&word)?),
        "ipsec" => Change::Ipsec(flag(&word)?),
        "local-max-addr-scope" => Change::AddressScopeMax(scope_of(&word)?),
        "exclude-local-address" => Change::ExcludeLocalAddress(list(value)),
        "lo-scope" if word == "absent" => Change::LoScope(None),
        "lo-scope" => Change::LoScope(Some(scope_of(&word)?)),
        "forward" => Change::Forward(flag(&word)?),
        _ => return None,
    })
}

/// As Cilium's settings and Talos' take it, and as people type it.
fn flag(word: &str) -> Option<bool> {
    match word {
        "true" | "on" | "yes" => Some(true),
        "false" | "off" | "no" => Some(false),
        _ => None,
    }
}

/// A number of devices, whose names do not matter, or the names. At most as many as a node has.
fn devices(value: &str) -> Option<Vec<String>> {
    const MOST: u8 = 64;
    match value.parse::<u8>() {
        Ok(count) if count <= MOST => Some((1..=count).map(|n| format!("device{n}")).collect()),
        Ok(_) => None,
        Err(_) => Some(list(value)).filter(|names| !names.is_empty()),
    }
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}
