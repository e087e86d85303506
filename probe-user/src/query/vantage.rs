//! Which places are worth asking from.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use super::{Vantage, VantageKind};
use crate::{
    facts::{Facts, NetnsId, Pod, PodRole},
    target::{HOST_DNS_V4, HOST_DNS_V6, NODE_RESOLVER, Targets},
};

/// CoreDNS pods asked from: a Deployment seldom has more on one node, and a third tells nothing new.
const MAX_COREDNS: usize = 2;

/// The identity of a namespace that nobody has looked at.
pub const UNKNOWN_NETNS: NetnsId = NetnsId { dev: 0, inode: 0, cookie: 0 };

/// A namespace given with `--vantage netns=PATH[,name=NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedVantage {
    pub path: PathBuf,
    /// The file's name where none was given.
    pub name: String,
    /// Who it is, once somebody has looked ([`Self::identify`]).
    pub netns: Option<NetnsId>,
}

/// `/run/netns/blue` is `blue`; `/proc/4711/ns/net` would be `net`, which says nothing, so that stays whole.
fn default_name(path: &Path) -> String {
    match path.file_name() {
        Some(name) if name != "net" => name.to_string_lossy().into_owned(),
        _ => path.display().to_string(),
    }
}

impl NamedVantage {
    #[must_use]
    pub fn new(path: PathBuf, name: Option<String>) -> Self {
        let name = name.unwrap_or_else(|| default_name(&path));
        Self { path, name, netns: None }
    }

    /// Learns which namespace the path leads to.
    ///
    /// # Errors
    /// The file cannot be opened, or its namespace not entered.
    #[cfg(all(feature = "probe", target_os = "linux"))]
    pub fn identify(&mut self) -> Result<NetnsId, crate::netns::Error> {
        let id = crate::netns::Netns::open(&self.path)?.id()?;
        self.netns = Some(id);
        Ok(id)
    }
}

/// Where to ask from, the most telling first: CoreDNS's own pods (two at most), the named ones, Cilium's health
/// endpoint, one other pod where there is neither CoreDNS nor a named one, CoreDNS on the host's network, the node, and
/// the node asking its own listener on 127.0.0.53.
///
/// That last one belongs to Talos: with another target (node-local-dns) it is asked only if something is known to
/// listen there, or its refusal would look like a fault.
#[must_use]
pub fn vantages(facts: &Facts, named: &[NamedVantage], targets: &Targets, proc_root: &Path) -> Vec<Vantage> {
    let node = facts.network.netns.get().copied();
    let pods = pods_by_netns(facts);
    let of = |role: PodRole| pods.iter().copied().filter(move |pod| pod.role == role && !on_host(pod, node));

    let mut chosen: Vec<Vantage> =
        of(PodRole::Coredns).take(MAX_COREDNS).map(|pod| from_pod(pod, VantageKind::Coredns, proc_root)).collect();
    chosen.extend(named.iter().map(|named| from_named(named, node, &pods)));
    let decided = chosen.iter().any(|vantage| vantage.kind.is_pod());
    chosen.extend(of(PodRole::Health).take(1).map(|pod| from_pod(pod, VantageKind::Health, proc_root)));
    if !decided {
        chosen.extend(of(PodRole::Other).take(1).map(|pod| from_pod(pod, VantageKind::Pod, proc_root)));
    }
    let coredns_on_host = pods_of(facts).iter().find(|pod| pod.role == PodRole::Coredns && on_host(pod, node));
    chosen.extend(coredns_on_host.map(|pod| from_pod(pod, VantageKind::CorednsOnHost, proc_root)));
    let here = |name: String, kind| Vantage {
        name,
        kind,
        netns_path: None,
        netns: node.unwrap_or(UNKNOWN_NETNS),
        interface: None,
    };
    chosen.push(here("node".into(), VantageKind::Node));
    if asks_loopback(facts, targets) {
        chosen.push(here(format!("node@{NODE_RESOLVER}"), VantageKind::NodeLoopback));
    }
    chosen
}

fn pods_of(facts: &Facts) -> &[Pod] {
    facts.pods.get().map_or(&[], Vec::as_slice)
}

/// One entry per namespace (a pod's containers share it), CoreDNS and the health endpoint before what else lives in it,
/// then by name, so that two runs ask from the same places.
fn pods_by_netns(facts: &Facts) -> Vec<&Pod> {
    let mut pods: Vec<&Pod> = pods_of(facts).iter().collect();
    let rank = |role| match role {
        PodRole::Coredns => 0,
        PodRole::Health => 1,
        PodRole::Other => 2,
    };
    pods.sort_by_key(|pod| (rank(pod.role), pod.namespace.as_deref(), pod.name.as_str(), pod.pid));
    let mut seen = Vec::new();
    pods.retain(|pod| {
        let id = (pod.netns.dev, pod.netns.inode);
        let new = !seen.contains(&id);
        seen.push(id);
        new
    });
    pods
}

fn same(left: NetnsId, right: NetnsId) -> bool {
    left.inode != 0 && (left.dev, left.inode) == (right.dev, right.inode)
}

fn on_host(pod: &Pod, node: Option<NetnsId>) -> bool {
    pod.host_network || node.is_some_and(|node| same(pod.netns, node))
}

fn from_pod(pod: &Pod, kind: VantageKind, proc_root: &Path) -> Vantage {
    Vantage {
        name: pod.name.clone(),
        kind,
        netns_path: Some(proc_root.join(pod.pid.to_string()).join("ns/net")),
        netns: pod.netns,
        interface: pod.interface.clone(),
    }
}

/// A named namespace that turns out to be the node's own is the node's path: it must not pass for a pod's.
fn from_named(named: &NamedVantage, node: Option<NetnsId>, pods: &[&Pod]) -> Vantage {
    let netns = named.netns.unwrap_or(UNKNOWN_NETNS);
    let is_node = node.is_some_and(|node| same(netns, node));
    Vantage {
        name: named.name.clone(),
        kind: if is_node { VantageKind::Node } else { VantageKind::Named },
        netns_path: Some(named.path.clone()),
        netns,
        interface: pods.iter().find(|pod| same(pod.netns, netns)).and_then(|pod| pod.interface.clone()),
    }
}

fn asks_loopback(facts: &Facts, targets: &Targets) -> bool {
    let talos = targets.contains(HOST_DNS_V4) || targets.contains(HOST_DNS_V6);
    let covers =
        |local: SocketAddr| local.port() == targets.port && (local.ip() == NODE_RESOLVER || is_any(local.ip()));
    talos || facts.listeners.get().is_some_and(|listeners| listeners.iter().any(|listener| covers(listener.local)))
}

fn is_any(address: IpAddr) -> bool {
    address.is_unspecified()
}

#[cfg(test)]
mod tests;
