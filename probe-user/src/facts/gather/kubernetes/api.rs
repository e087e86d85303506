//! What is asked of the API, all at the same time, and what of the answers is kept.

use std::{collections::BTreeMap, time::Duration};

use kube::Client;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{
    CiliumConfig, Cluster, ConfigMap, Found, LIMIT, SOURCE,
    client::{self, Error, get},
};
use crate::facts::{ClusterPod, Fact};

/// Where CoreDNS is, by its label of old.
const COREDNS_PODS: &str = "/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app%3Dkube-dns&limit=200";
const COREDNS_NAMESPACE: &str = "kube-system";
const COREDNS_CONFIG: &str = "coredns";
const CILIUM_CONFIG: &str = "cilium-config";
/// Where Cilium is usually installed; the first that has its ConfigMap counts.
const CILIUM_NAMESPACES: [&str; 2] = ["kube-system", "cilium"];
/// Of the CRD, newest first: v2 since Cilium 1.16 (cilium pkg/k8s/apis/cilium.io/v2).
const NODE_CONFIG_VERSIONS: [&str; 2] = ["v2", "v2alpha1"];

/// Asks for everything; what has not come within `LIMIT` is unavailable.
pub(super) async fn ask(cluster: &Cluster) -> Found {
    ask_within(cluster, LIMIT).await
}

pub(super) async fn ask_within(cluster: &Cluster, limit: Duration) -> Found {
    let deadline = Instant::now() + limit;
    let (server, client) = match connect(cluster).await {
        Ok(ready) => ready,
        // Nobody looked: no failure, so no source either.
        Err(error @ (Error::NotConfigured | Error::NoToken)) => return Found::unknown(&error.to_string(), ""),
        Err(error) => return Found::unknown(&error.to_string(), SOURCE),
    };
    let late = |_| Error::Timeout(limit);
    let (cilium_config, corefile, coredns_pods) = tokio::join!(
        timeout_at(deadline, cilium_config(&client, cluster.cilium_namespace.as_deref())),
        timeout_at(deadline, config_map(&client, COREDNS_NAMESPACE, COREDNS_CONFIG)),
        timeout_at(deadline, coredns_pods(&client)),
    );
    Found {
        server: Fact::known(server, "its configuration"),
        cilium_config: fact(cilium_config.map_err(late).flatten()),
        corefile: fact(corefile.map_err(late).flatten()),
        coredns_pods: fact(coredns_pods.map_err(late).flatten()),
    }
}

async fn connect(cluster: &Cluster) -> Result<(String, Client), Error> {
    let config = client::configuration(cluster).await?;
    Ok((client::server(&config), client::client(config)?))
}

fn fact<T>(result: Result<T, Error>) -> Fact<T> {
    match result {
        Ok(value) => Fact::known(value, SOURCE),
        Err(error) => Fact::unavailable(error, SOURCE),
    }
}

#[derive(Deserialize)]
struct ConfigMapObject {
    #[serde(default)]
    data: BTreeMap<String, String>,
}

async fn config_map(client: &Client, namespace: &str, name: &str) -> Result<ConfigMap, Error> {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
    let object: ConfigMapObject = get(client, &path).await?;
    Ok(ConfigMap { name: format!("{namespace}/{name}"), data: object.data })
}

/// Cilium's settings, from the first namespace that has them.
async fn cilium_config(client: &Client, named: Option<&str>) -> Result<CiliumConfig, Error> {
    let usual = CILIUM_NAMESPACES;
    let namespaces = named.as_ref().map_or(&usual[..], std::slice::from_ref);
    let mut answer = Err(Error::NotFound);
    for namespace in namespaces {
        let found = config_map(client, namespace, CILIUM_CONFIG).await;
        // Who may read the first one only is refused the second: that there is none here is the better word.
        match found {
            Ok(map) => {
                answer = Ok((*namespace, map));
                break;
            }
            Err(Error::NotFound | Error::Forbidden(_)) if namespace != &namespaces[0] => break,
            Err(Error::NotFound) => {}
            Err(other) => return Err(other),
        }
    }
    let (namespace, map) = answer?;
    let (per_node, unread) = match per_node(client, namespace).await {
        Ok(keys) => (keys, None),
        Err(why) => (Vec::new(), Some(format!("CiliumNodeConfigs in {namespace} ({SOURCE}): {why}"))),
    };
    Ok(CiliumConfig { map, per_node, unread })
}

#[derive(Deserialize)]
struct NodeConfigs {
    items: Vec<NodeConfig>,
}

#[derive(Deserialize)]
struct NodeConfig {
    spec: NodeConfigSpec,
}

#[derive(Deserialize)]
struct NodeConfigSpec {
    #[serde(default)]
    defaults: BTreeMap<String, String>,
}

/// Keys that are set for some nodes otherwise than for the rest.
async fn per_node(client: &Client, namespace: &str) -> Result<Vec<String>, Error> {
    for version in NODE_CONFIG_VERSIONS {
        let path = format!("/apis/cilium.io/{version}/namespaces/{namespace}/ciliumnodeconfigs?limit=200");
        match get::<NodeConfigs>(client, &path).await {
            Ok(all) => return Ok(all.items.into_iter().flat_map(|item| item.spec.defaults.into_keys()).collect()),
            Err(Error::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    // No such resource: nothing is set by it.
    Ok(Vec::new())
}

#[derive(Deserialize)]
struct Pods {
    items: Vec<PodObject>,
}

#[derive(Deserialize)]
struct PodObject {
    metadata: Metadata,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: Option<String>,
    host_network: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

async fn coredns_pods(client: &Client) -> Result<Vec<ClusterPod>, Error> {
    let pods: Pods = get(client, COREDNS_PODS).await?;
    let mut pods: Vec<_> = pods.items.into_iter().map(PodObject::into_pod).collect();
    pods.sort_by(|a, b| (&a.node, &a.name).cmp(&(&b.node, &b.name)));
    Ok(pods)
}

impl PodObject {
    fn into_pod(self) -> ClusterPod {
        ClusterPod {
            namespace: self.metadata.namespace,
            name: self.metadata.name,
            ready: self.status.conditions.iter().any(|c| c.r#type == "Ready" && c.status == "True"),
            node: self.spec.node_name,
            host_network: self.spec.host_network,
        }
    }
}
