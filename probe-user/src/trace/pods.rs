//! Who asks and who answers: pods by the namespace they ask from, and the process behind the node's DNS socket.

use std::{collections::HashMap, net::SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::facts::{Facts, Transport};

/// A pod, as far as /proc and its cgroup tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PodName {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Its device on the node's side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

impl std::fmt::Display for PodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The process behind a socket that answers. One without a name may still be there: under Talos 1.14's workload
/// isolation the node's own processes are invisible to pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Server {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// What the facts know of both.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pods: HashMap<u64, PodName>,
    listeners: Vec<(u64, SocketAddr, Transport, Server)>,
}

impl Names {
    #[must_use]
    pub fn from_facts(facts: &Facts) -> Self {
        let pods = facts.pods.get().map_or(&[][..], Vec::as_slice).iter();
        let listeners = facts.listeners.get().map_or(&[][..], Vec::as_slice).iter();
        Self {
            pods: pods
                .filter(|pod| !pod.host_network && pod.netns.cookie != 0)
                .map(|pod| {
                    let name = PodName {
                        name: pod.name.clone(),
                        namespace: pod.namespace.clone(),
                        container: pod.container.clone(),
                        interface: pod.interface.clone(),
                    };
                    (pod.netns.cookie, name)
                })
                .collect(),
            listeners: listeners
                .map(|l| (l.cookie, l.local, l.transport, Server { process: l.process.clone(), pid: l.pid }))
                .collect(),
        }
    }

    /// Keeps a pod that `before` still knew.
    pub fn keep(&mut self, netns: u64, before: &Self) {
        if let Some(pod) = before.pods.get(&netns) {
            self.pods.entry(netns).or_insert_with(|| pod.clone());
        }
    }

    /// The pod that lives in a namespace (`SO_NETNS_COOKIE`).
    #[must_use]
    pub fn pod(&self, netns: u64) -> Option<&PodName> {
        self.pods.get(&netns)
    }

    /// The pod behind one of the node's devices.
    #[must_use]
    pub fn by_interface(&self, interface: &str) -> Option<&PodName> {
        self.pods.values().find(|pod| pod.interface.as_deref() == Some(interface))
    }

    /// By the socket's cookie; over TCP by its address, for a connection's socket is the listener's child.
    #[must_use]
    pub fn server(&self, cookie: u64, local: SocketAddr, transport: Transport) -> Option<&Server> {
        let by_cookie = || self.listeners.iter().find(|(known, ..)| cookie != 0 && *known == cookie);
        let by_address = || {
            let fits =
                |at: &SocketAddr| at.port() == local.port() && (at.ip() == local.ip() || at.ip().is_unspecified());
            let mut fitting: Vec<_> =
                self.listeners.iter().filter(|(_, at, kind, _)| *kind == transport && fits(at)).collect();
            fitting.sort_by_key(|(_, at, ..)| at.ip().is_unspecified());
            fitting.first().copied()
        };
        let found = match transport {
            Transport::Udp => by_cookie(),
            Transport::Tcp => by_cookie().or_else(by_address),
        };
        found.map(|(.., server)| server)
    }
}
