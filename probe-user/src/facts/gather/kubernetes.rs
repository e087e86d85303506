//! What the Kubernetes API knows: the ConfigMap that Cilium's agents will start with next time, where CoreDNS runs, and
//! its Corefile. The API is a help and no condition: it is asked beside everything else and given up after `LIMIT`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{coredns, settings};
use crate::facts::{ClusterPod, Corefile, Fact, Kubernetes, Pod, PodRole, ResolvConf};

#[cfg(feature = "kubernetes")]
mod api;
#[cfg(feature = "kubernetes")]
mod client;

pub(super) const SOURCE: &str = "Kubernetes API";

/// For all of it, from reading the configuration to the last answer.
pub(super) const LIMIT: Duration = Duration::from_secs(1);

/// How the API is reached, and what is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Files as kubectl reads them, merged in this order. None: the service account of the pod that this runs in.
    pub kubeconfigs: Vec<PathBuf>,
    /// Where Cilium is installed; none: it is looked for.
    pub cilium_namespace: Option<String>,
}

/// A ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConfigMap {
    /// `namespace/name`
    pub(super) name: String,
    pub(super) data: BTreeMap<String, String>,
}

/// Cilium's ConfigMap, and what may be set otherwise on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CiliumConfig {
    pub(super) map: ConfigMap,
    /// Keys that a CiliumNodeConfig sets for some nodes: for this one perhaps.
    pub(super) per_node: Vec<String>,
    /// What could not be read of them.
    pub(super) unread: Option<String>,
}

/// Everything that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Found {
    server: Fact<String>,
    cilium_config: Fact<CiliumConfig>,
    corefile: Fact<ConfigMap>,
    coredns_pods: Fact<Vec<ClusterPod>>,
}

impl Found {
    pub(super) fn unknown(why: &str, source: &str) -> Self {
        Self {
            server: Fact::unavailable(why, source),
            cilium_config: Fact::unavailable(why, source),
            corefile: Fact::unavailable(why, source),
            coredns_pods: Fact::unavailable(why, source),
        }
    }

    /// Asks the API, on a thread of its own. Every wait in it ends by `LIMIT`.
    #[cfg(feature = "kubernetes")]
    pub(super) fn ask(cluster: &Cluster) -> Self {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let found = runtime.block_on(api::ask(cluster));
                // A name that is being resolved: the runtime would wait for it.
                runtime.shutdown_background();
                found
            }
            Err(e) => Self::unknown(&e.to_string(), SOURCE),
        }
    }

    /// Nobody looked: no failure, so no source either.
    #[cfg(not(feature = "kubernetes"))]
    pub(super) fn ask(_cluster: &Cluster) -> Self {
        Self::unknown("built without the kubernetes feature", "")
    }

    /// The ConfigMap's word among the other settings.
    pub(super) fn add_to(&self, all: &mut settings::AllSettings) {
        let Some(config) = self.cilium_config.get() else { return };
        let doubt = match &config.unread {
            Some(_) => " (a CiliumNodeConfig may say otherwise here: they could not be read)",
            None => "",
        };
        let place = format!("ConfigMap {}{doubt}", config.map.name);
        match settings::Settings::of_config_map(place, &config.map.data, &config.per_node) {
            Ok(set) => all.sets.push(set),
            Err(why) => all.unread.push(why),
        }
        all.unread.extend(config.unread.clone());
    }

    /// The ConfigMap's Corefile for the CoreDNS pods of this node whose own could not be read; where both are known and
    /// differ, both are told. A file that was not resolved to its servers may be the same ones: nothing differs then.
    pub(super) fn complete(
        &self,
        coredns: &mut Fact<Vec<Corefile>>,
        pods: &Fact<Vec<Pod>>,
        resolv_conf: &Fact<ResolvConf>,
    ) {
        let Some(map) = self.corefile.get() else { return };
        let Some((file, doubts)) = coredns::of_config_map(&map.name, &map.data, resolv_conf.get()) else { return };
        let of_coredns = pods.get().into_iter().flatten().filter(|pod| pod.role == PodRole::Coredns);
        let read = coredns.get().map_or(&[][..], Vec::as_slice);
        let unread = of_coredns.filter(|pod| !read.iter().any(|file| file.pod == pod.name));
        let added: Vec<_> = unread.map(|pod| Corefile { pod: pod.name.clone(), ..file.clone() }).collect();
        let resolved = |file: &Corefile| !file.forwards_to.iter().any(|server| server.starts_with('/'));
        let compared = read.iter().filter(|read| resolved(read) && resolved(&file));
        let differs = compared.into_iter().any(|read| read.forwards_to != file.forwards_to);
        let doubts = doubts.iter().map(|doubt| format!("{}: {doubt}", file.path));
        match coredns {
            Fact::Known { value, others, notes, .. } => {
                if differs {
                    others.push(format!("{}: forwards to {}", file.path, file.forwards_to.join(", ")));
                }
                if !added.is_empty() {
                    notes.extend(doubts);
                    value.extend(added);
                }
            }
            Fact::Unavailable { why, source } if !added.is_empty() => {
                let unread = format!("{source}: {why}");
                *coredns = Fact::known(added, SOURCE).noting([unread].into_iter().chain(doubts));
            }
            Fact::Unavailable { .. } => {}
        }
    }

    /// For the report.
    pub(super) fn facts(self) -> Kubernetes {
        Kubernetes {
            server: self.server,
            cilium_config: self.cilium_config.map(|config| config.map.name),
            corefile: self.corefile.map(|map| map.name),
            coredns_pods: self.coredns_pods,
        }
    }
}

#[cfg(test)]
#[path = "kubernetes/tests.rs"]
mod tests;
