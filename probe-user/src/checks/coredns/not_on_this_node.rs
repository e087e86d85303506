//! HDP301 coredns-not-on-this-node: nobody here is CoreDNS.

use crate::checks::{Case, Check, Finding, Severity, code::Code};
use crate::{facts::PodRole, query::VantageKind};

pub(in crate::checks) const CHECK: Check = Check { code: Code::CorednsElsewhere, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
No CoreDNS pod runs on this node; another vantage was asked from.

CoreDNS forwards to the host DNS of the node that it runs on. Where it does not run, the way from
other pods, or from Cilium's health endpoint (which is on every node), shows the same datapath. A
network policy for CoreDNS is not part of that.

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
    vec![Finding::new(Code::CorednsElsewhere, Severity::Info, title).evidence(line)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{Scene, known, pod};

    #[test]
    fn only_where_there_is_none() {
        assert_eq!(Scene::new().finding("HDP301"), None);
        let scene = Scene::new().facts(|f| f.pods = known(vec![pod("lxc_health", PodRole::Health)]));
        assert!(scene.finding("HDP301").is_some());
    }
}
