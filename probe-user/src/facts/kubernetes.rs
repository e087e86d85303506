//! What the Kubernetes API says of the cluster that the node is in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fact;

/// Objects of the API, as far as they are of interest here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Kubernetes {
    /// The server that was asked: `host:port`.
    pub server: Fact<String>,
    /// `namespace/name` of the ConfigMap with Cilium's settings; its keys count among those of `cilium`.
    pub cilium_config: Fact<String>,
    /// `namespace/name` of the ConfigMap with CoreDNS' Corefile.
    pub corefile: Fact<String>,
    /// CoreDNS' pods on every node (label `k8s-app=kube-dns`, namespace kube-system).
    pub coredns_pods: Fact<Vec<ClusterPod>>,
}

/// A pod of any node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterPod {
    pub namespace: String,
    pub name: String,
    /// None: it waits for one.
    pub node: Option<String>,
    /// Its condition `Ready`.
    pub ready: bool,
    pub host_network: bool,
}
