//! What Talos says of itself, in files with the output of `talosctl get`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fact;

/// Resources of this node (siderolabs/talos pkg/machinery/resources/network).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Talos {
    /// `node:` of the resources: whom talosctl asked.
    pub node: Fact<String>,
    /// Whom the resources are of, where this node is none of them: they say nothing of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_nodes: Vec<String>,
    /// Files that could not be read, or have no resources in them, each with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// HostDNSConfigs.
    pub host_dns: Fact<TalosHostDns>,
    /// AddressStatuses of the addresses under test: what is on the links.
    pub addresses: Fact<Vec<TalosAddress>>,
    /// AddressSpecs of the same: what is asked for, in each layer and merged.
    pub address_specs: Fact<Vec<TalosAddress>>,
    /// ResolverStatuses: the upstreams; `DoT 1.1.1.1 (name)` where they are not asked in plain DNS.
    pub resolvers: Fact<Vec<String>>,
    /// DNSUpstreams: the same, with how they are.
    pub upstreams: Fact<Vec<TalosUpstream>>,
    /// DNSResolveCaches: the listeners of host DNS, and their state.
    pub caches: Fact<Vec<TalosCache>>,
}

impl Talos {
    /// Nothing is known, for one reason.
    #[must_use]
    pub fn unknown(why: &str, source: &str) -> Self {
        Self {
            node: Fact::unavailable(why, source),
            host_dns: Fact::unavailable(why, source),
            addresses: Fact::unavailable(why, source),
            address_specs: Fact::unavailable(why, source),
            resolvers: Fact::unavailable(why, source),
            upstreams: Fact::unavailable(why, source),
            caches: Fact::unavailable(why, source),
            ..Self::default()
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TalosHostDns {
    pub enabled: bool,
    pub listen_addresses: Vec<String>,
    /// Where pods reach it; empty: forwarding to it is off.
    pub service_addresses: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TalosAddress {
    pub link: String,
    /// `address/len`.
    pub address: String,
    /// `global`, `site`, `link`, `host`, `nowhere`.
    pub scope: String,
    /// Of a spec: `default`, `cmdline`, `platform`, `operator`, `configuration`; the later of them wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// Of a spec: it is what came out of the layers, not one of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub merged: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TalosUpstream {
    pub address: String,
    pub healthy: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TalosCache {
    /// `udp-169.254.116.108:53`.
    pub id: String,
    /// `running`.
    pub status: String,
}
