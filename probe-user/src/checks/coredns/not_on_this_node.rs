//! HDP301 coredns-not-on-this-node: nobody here is CoreDNS.

use crate::checks::{Case, Check, Finding, Severity, code::Code};
use crate::{
    facts::{Fact, Kubernetes, PodRole},
    query::VantageKind,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::CorednsElsewhere, explain: EXPLAIN, run };

/// Named at most: CoreDNS may be a DaemonSet.
const MAX_NODES: usize = 8;

const EXPLAIN: &str = "\
No CoreDNS pod runs on this node; another vantage was asked from.

CoreDNS forwards to the host DNS of the node that it runs on. Where it does not run, the way from
other pods, or from Cilium's health endpoint (which is on every node), shows the same datapath. A
network policy for CoreDNS is not part of that.

The nodes that it runs on are named where the Kubernetes API was asked: in the DaemonSet, or with
--kubeconfig.

By hand: `kubectl -n kube-system get pods -l k8s-app=kube-dns -o wide`.

Fix: nothing. To check the path that really carries queries, run the check where CoreDNS is:
kubectl -n kube-system get pods -l k8s-app=kube-dns -o wide.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let pods = &case.facts.pods;
    let asked = case
        .queries
        .iter()
        .any(|query| matches!(query.vantage_kind, VantageKind::Coredns | VantageKind::CorednsOnHost));
    let Some(all) = pods.get().filter(|all| !asked && !all.iter().any(|pod| pod.role == PodRole::Coredns)) else {
        return Vec::new();
    };
    let mut others: Vec<&str> =
        case.queries.iter().filter(|query| query.vantage_kind.is_pod()).map(|query| query.vantage.as_str()).collect();
    others.sort_unstable();
    others.dedup();
    others.truncate(3);
    let title = match others.as_slice() {
        [] => "No CoreDNS pod runs on this node.".to_owned(),
        others => format!("No CoreDNS pod runs on this node; asked from {}.", others.join(", ")),
    };
    let line = format!("{} pods found ({})", all.len(), pods.source());
    let here = case.facts.kernel.node_name.get().map(|name| name.trim());
    let elsewhere = case.facts.kubernetes.as_ref().map(|kubernetes| elsewhere(kubernetes, here)).unwrap_or_default();
    vec![Finding::new(Code::CorednsElsewhere, Severity::Info, title).evidence(line).evidences(elsewhere)]
}

/// Where the Kubernetes API says that CoreDNS is. `here`: the name of this node.
fn elsewhere(kubernetes: &Kubernetes, here: Option<&str>) -> Vec<String> {
    let Fact::Known { value: pods, source, .. } = &kubernetes.coredns_pods else { return Vec::new() };
    if pods.is_empty() {
        return vec![format!("no pod of the cluster has the label k8s-app=kube-dns ({source})")];
    }
    let is_here = |node: Option<&str>| node.is_some() && node == here;
    let mut nodes: Vec<&str> = pods.iter().filter(|pod| pod.ready).filter_map(|pod| pod.node.as_deref()).collect();
    nodes.retain(|node| !is_here(Some(node)));
    nodes.sort_unstable();
    nodes.dedup();
    let count = nodes.len();
    nodes.truncate(MAX_NODES);
    let more = if count > MAX_NODES { format!(" and {} more", count - MAX_NODES) } else { String::new() };
    let mut lines = match nodes.is_empty() {
        true => vec![format!("no CoreDNS pod of another node is ready ({source})")],
        false => vec![format!("CoreDNS is ready on {}{more} ({source})", nodes.join(", "))],
    };
    for pod in pods.iter().filter(|pod| is_here(pod.node.as_deref())) {
        let state = if pod.ready { "ready" } else { "not ready" };
        lines.push(format!("{} is said to be here, {state}, but no process of it was seen ({source})", pod.name));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{Scene, known, pod},
        facts::ClusterPod,
    };

    fn evidence(pods: &[(&str, Option<&str>, bool)]) -> Vec<String> {
        let cluster_pod = |&(name, node, ready): &(&str, Option<&str>, bool)| ClusterPod {
            namespace: "kube-system".into(),
            name: name.into(),
            node: node.map(str::to_owned),
            ready,
            host_network: false,
        };
        let coredns_pods = known(pods.iter().map(cluster_pod).collect());
        let scene = Scene::new().facts(|f| {
            f.pods = known(vec![pod("lxc_health", PodRole::Health)]);
            f.kubernetes = Some(Kubernetes { coredns_pods, ..Kubernetes::default() });
        });
        scene.finding("HDP301").unwrap().evidence.split_off(1)
    }

    #[test]
    fn only_where_there_is_none() {
        assert_eq!(Scene::new().finding("HDP301"), None);
        let scene = Scene::new().facts(|f| f.pods = known(vec![pod("lxc_health", PodRole::Health)]));
        assert!(scene.finding("HDP301").is_some());
    }

    #[test]
    fn the_nodes_are_named_that_it_is_ready_on() {
        let pods =
            [("c-1", Some("n2"), true), ("c-2", Some("n3"), false), ("c-3", None, false), ("c-4", Some("n2"), true)];
        assert_eq!(evidence(&pods), ["CoreDNS is ready on n2 (test)"]);
        assert_eq!(evidence(&[]), ["no pod of the cluster has the label k8s-app=kube-dns (test)"]);
        let nodes: Vec<String> = (10..20).map(|node| format!("node-{node}")).collect();
        let many: Vec<_> = nodes.iter().map(|node| ("c", Some(node.as_str()), true)).collect();
        assert!(evidence(&many)[0].ends_with("node-17 and 2 more (test)"), "{:?}", evidence(&many));
    }

    #[test]
    fn a_pod_that_should_be_here_is_told() {
        let lines = evidence(&[("c-1", Some("n1"), false)]);
        assert_eq!(lines[0], "no CoreDNS pod of another node is ready (test)");
        assert_eq!(lines[1], "c-1 is said to be here, not ready, but no process of it was seen (test)");
    }
}
