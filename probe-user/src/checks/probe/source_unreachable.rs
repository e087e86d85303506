//! HDP006 source-unreachable: something that could have told was not readable.

use crate::checks::{Case, Check, Finding, Severity, code::Code};
use crate::{
    facts::{Fact, Kubernetes},
    predict::cilium,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::SourceUnreachable, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
A source of facts could not be read, so part of the explanation is missing.

The verdict rests on what was measured. Facts explain it: Cilium's agent socket and maps, the
sockets that listen, the packet filter. A source that refuses costs the prediction and some causes,
not the verdict itself.

By hand: `curl --unix-socket /var/run/cilium/cilium.sock http://localhost/v1/healthz` and
`ls /sys/fs/bpf/tc/globals`, on the node and in the probe's container.

Fix: the finding names each source and its error. Usual reasons: /var/run/cilium or /sys/fs/bpf is
not mounted into the probe's container, the agent is restarting, or a path differs
(--cilium-socket, --bpf-root, --proc-root, --host-root). Where the Kubernetes API refuses, the
service account lacks a right: those that are needed stand in deploy/daemonset.yaml. A file that
was given with --talos-resources must be the output of `talosctl get ... -o yaml` or `-o json`.

Versions: the agent's API is read as 1.15 and as 1.16 and later shape it.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let facts = case.facts;
    let mut missing = Vec::new();
    note(&mut missing, "addresses", &facts.network.addresses);
    note(&mut missing, "interfaces", &facts.network.links);
    note(&mut missing, "routes", &facts.network.routes);
    note(&mut missing, "listening sockets", &facts.listeners);
    note(&mut missing, "packet filter", &facts.firewall);
    note(&mut missing, "pods", &facts.pods);
    // Without Cilium there is nothing that its sources could say.
    let cilium_here = cilium::is_here(facts) == Some(true);
    if cilium_here {
        note(&mut missing, "Cilium's agent", &facts.cilium.version);
        facts.cilium.lxc.values().for_each(|entry| note(&mut missing, "cilium_lxc", entry));
    }
    if let Some(kubernetes) = &facts.kubernetes {
        kubernetes_api(&mut missing, kubernetes, cilium_here);
    }
    let of_talos = facts.talos.iter().flat_map(|talos| &talos.unread);
    missing.extend(of_talos.map(|why| format!("Talos' resources (--talos-resources): {why}")));
    if missing.is_empty() {
        return Vec::new();
    }
    let agent = cilium_here && facts.cilium.version.get().is_none();
    let severity = if agent { Severity::Warn } else { Severity::Info };
    let title = if agent {
        "Cilium runs here but its agent did not answer: what it is set to is not known."
    } else {
        "Some sources of facts could not be read."
    };
    vec![Finding::new(Code::SourceUnreachable, severity, title).evidences(missing)]
}

/// Everything of the API fails for one reason, or each for its own.
fn kubernetes_api(missing: &mut Vec<String>, kubernetes: &Kubernetes, cilium_here: bool) {
    if kubernetes.server.get().is_none() {
        return note(missing, "cluster", &kubernetes.server);
    }
    if cilium_here {
        note(missing, "ConfigMap cilium-config", &kubernetes.cilium_config);
    }
    note(missing, "ConfigMap coredns", &kubernetes.corefile);
    note(missing, "CoreDNS' pods", &kubernetes.coredns_pods);
}

fn note<T>(missing: &mut Vec<String>, what: &str, fact: &Fact<T>) {
    // An empty source: nobody looked, which is no failure.
    if let Some(why) = fact.why().filter(|_| !fact.source().is_empty()) {
        missing.push(format!("{what} ({}): {why}", fact.source()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::Scene;

    #[test]
    fn the_agent_matters_more_than_the_rest() {
        assert_eq!(Scene::new().finding("HDP006"), None);
        let scene = Scene::new().facts(|f| f.firewall = Fact::unavailable("operation not permitted", "nf_tables"));
        assert_eq!(scene.finding("HDP006").unwrap().severity, Severity::Info);
        let scene = Scene::new().facts(|f| f.cilium.version = Fact::unavailable("connection refused", "cilium.sock"));
        assert_eq!(scene.finding("HDP006").unwrap().severity, Severity::Warn);
    }

    #[test]
    fn the_kubernetes_api_is_missed_only_where_it_could_have_been_asked() {
        let with = |kubernetes: Kubernetes| Scene::new().facts(|f| f.kubernetes = Some(kubernetes)).finding("HDP006");
        let unknown =
            |why: &str, source: &str| Kubernetes { server: Fact::unavailable(why, source), ..Default::default() };
        assert_eq!(with(unknown("not in a cluster and no --kubeconfig", "")), None);
        let refused = with(unknown("connection refused", "Kubernetes API")).unwrap();
        assert_eq!(refused.severity, Severity::Info);
        assert_eq!(refused.evidence, ["cluster (Kubernetes API): connection refused"]);
        let forbidden = || Fact::unavailable("403", "Kubernetes API");
        let server = Fact::known("10.96.0.1:443".into(), "its configuration");
        let partly = Kubernetes { server, corefile: forbidden(), ..Kubernetes::default() };
        assert_eq!(with(partly).unwrap().evidence, ["ConfigMap coredns (Kubernetes API): 403"]);
    }

    #[test]
    fn a_file_of_talos_resources_that_tells_nothing_is_missed() {
        let with = |unread: &[&str]| {
            let unread = unread.iter().map(ToString::to_string).collect();
            let talos = crate::facts::Talos { unread, ..Default::default() };
            Scene::new().facts(|f| f.talos = Some(talos)).finding("HDP006")
        };
        assert_eq!(with(&[]), None);
        let finding = with(&["talos.yaml: No such file or directory"]).unwrap();
        assert_eq!(finding.severity, Severity::Info);
        assert!(finding.evidence[0].ends_with("talos.yaml: No such file or directory"), "{finding:?}");
    }

    #[test]
    fn a_node_without_cilium_misses_no_agent() {
        let scene = Scene::new().facts(|f| {
            f.cilium = crate::facts::Cilium::default();
            f.cilium.version = Fact::unavailable("no such file", "cilium.sock");
            f.network.links = crate::checks::testing::known(vec![]);
        });
        assert_eq!(scene.finding("HDP006"), None);
    }
}
