//! Names of the node, its pods, their namespaces, and what was asked for.

use std::collections::BTreeMap;

use crate::report::Report;

/// What every node asks (`query::QNAME`, `query::UNCACHED_QNAME`): no secret.
const DEFAULT_NAMES: [&str; 2] = ["example.com", "whoami.ds.akahelp.net"];

/// Names that are the same everywhere.
const COMMON: [&str; 12] = [
    "node",
    "node@127.0.0.53",
    "lxc_health",
    "health",
    "coredns",
    "kube-system",
    "cilium",
    "unknown",
    "localhost",
    "host",
    "default",
    "",
];

/// What stands for which name; the longest first, as one may be part of another.
#[derive(Debug)]
pub(super) struct Names(Vec<(String, String)>);

impl Names {
    pub(super) fn of(report: &Report) -> Self {
        let facts = &report.facts;
        let mut kinds: Kinds<'_> = Kinds::default();
        kinds.add("node", &report.node.name);
        kinds.extend("node", facts.kernel.node_name.get().map(|name| name.trim()));
        if let Some(talos) = &facts.talos {
            for node in talos.node.get().into_iter().chain(&talos.other_nodes).filter(|node| !is_address(node)) {
                kinds.add("node", node);
            }
            // `DoT 1.1.1.1 (name)`
            for server in talos.resolvers.get().into_iter().flatten() {
                kinds.extend("server", server.split_once(" (").and_then(|(_, name)| name.strip_suffix(')')));
            }
        }
        for pod in facts.pods.get().into_iter().flatten() {
            kinds.add("pod", &pod.name);
            kinds.extend("namespace", pod.namespace.as_deref());
            kinds.extend("container", pod.container.as_deref());
        }
        if let Some(kubernetes) = &facts.kubernetes {
            for pod in kubernetes.coredns_pods.get().into_iter().flatten() {
                kinds.extend("node", pod.node.as_deref());
                kinds.add("pod", &pod.name);
                kinds.add("namespace", &pod.namespace);
            }
            for map in [&kubernetes.cilium_config, &kubernetes.corefile] {
                kinds
                    .extend("namespace", map.get().and_then(|map| map.split_once('/')).map(|(namespace, _)| namespace));
            }
            let host = kubernetes.server.get().and_then(|server| server.rsplit_once(':')).map(|(host, _)| host);
            kinds.extend("server", host.filter(|host| !is_address(host)));
        }
        for conf in [&facts.network.resolv_conf, &facts.network.pod_resolv_conf] {
            for domain in conf.get().into_iter().flat_map(|conf| &conf.search) {
                kinds.add("domain", domain);
            }
        }
        for file in facts.coredns.get().into_iter().flatten() {
            kinds.add("pod", &file.pod);
            for zone in file.forwards.iter().flat_map(|forward| forward.zone.split(' ')) {
                kinds.extend("domain", (zone != ".").then_some(zone));
            }
            for server in file.forwards.iter().flat_map(|forward| &forward.to).chain(&file.forwards_to) {
                let host = server.split_once("://").map_or(server.as_str(), |(_, host)| host);
                let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
                let is_name =
                    !host.starts_with('/') && host.contains(|c: char| c.is_ascii_alphabetic()) && !host.contains(':');
                kinds.extend("server", is_name.then_some(host));
            }
        }
        for query in &report.queries {
            kinds.add("pod", &query.vantage);
            let asked = query.qname.trim_end_matches('.');
            kinds.extend("name", (!DEFAULT_NAMES.contains(&asked)).then_some(asked));
        }
        for hop in report.traces.iter().flat_map(|trace| &trace.hops) {
            kinds.add("pod", &hop.netns);
        }
        let mut all: Vec<_> = kinds.0.into_values().flatten().map(|(name, other)| (name.to_owned(), other)).collect();
        all.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        Self(all)
    }

    /// The text with each name in it replaced, where it stands as a word.
    pub(super) fn replace(&self, text: &str) -> String {
        let mut replaced = String::with_capacity(text.len());
        let mut rest = text;
        let mut before: Option<char> = None;
        'next: while let Some(first) = rest.chars().next() {
            if !before.is_some_and(char::is_alphanumeric) {
                for (name, other) in &self.0 {
                    if let Some(after) = rest.strip_prefix(name.as_str())
                        && !after.starts_with(char::is_alphanumeric)
                    {
                        replaced.push_str(other);
                        before = other.chars().next_back();
                        rest = after;
                        continue 'next;
                    }
                }
            }
            replaced.push(first);
            before = Some(first);
            rest = &rest[first.len_utf8()..];
        }
        replaced
    }
}

fn is_address(host: &str) -> bool {
    host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
}

/// By kind, each name with what stands for it: `pod-2`.
#[derive(Default)]
struct Kinds<'a>(BTreeMap<&'static str, Vec<(&'a str, String)>>);

impl<'a> Kinds<'a> {
    fn add(&mut self, kind: &'static str, name: &'a str) {
        // `namespace/pod`, as a vantage may be called.
        if let Some((namespace, pod)) = name.split_once('/').filter(|(namespace, _)| !namespace.is_empty()) {
            self.add("namespace", namespace);
            self.add(kind, pod);
            return;
        }
        let known = COMMON.contains(&name) || self.0.values().flatten().any(|(told, _)| *told == name);
        if !known {
            let all = self.0.entry(kind).or_default();
            let number = all.len() + 1;
            all.push((name, format!("{kind}-{number}")));
        }
    }

    fn extend(&mut self, kind: &'static str, name: Option<&'a str>) {
        if let Some(name) = name {
            self.add(kind, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::examples;

    fn names(node: &str, qname: &str) -> Names {
        let mut report = examples::leak();
        report.node.name = node.into();
        report.queries[0].qname = qname.into();
        Names::of(&report)
    }

    #[test]
    fn names_are_words_and_the_longest_wins() {
        let names = names("cp-1", "secret.cp-1.corp");
        assert_eq!(names.replace("on cp-1."), "on node-1.");
        assert_eq!(names.replace("cp-12 and kube-apiserver-cp-1"), "cp-12 and kube-apiserver-node-1");
        assert_eq!(names.replace("secret.cp-1.corp A"), "name-1 A");
        assert_eq!(names.replace("kube-system/coredns-7c9d-x2k4p"), "kube-system/pod-1");
    }

    #[test]
    fn the_node_is_hidden_under_the_name_that_talos_has_for_it_too() {
        let mut report = examples::leak();
        let node = crate::facts::Fact::known("worker-7.corp.internal".to_owned(), "talosctl");
        let resolvers = crate::facts::Fact::known(vec!["DoT 10.9.9.9 (dns.corp.internal)".to_owned()], "talosctl");
        let other_nodes = vec!["worker-8.corp.internal".to_owned()];
        report.facts.talos = Some(crate::facts::Talos { node, resolvers, other_nodes, ..Default::default() });
        let text = serde_json::to_string(&crate::report::redact::redact(&report).expect("a report")).expect("JSON");
        assert!(!text.contains("corp.internal"), "{text}");
    }

    #[test]
    fn nothing_of_the_cluster_remains() {
        use crate::facts::{ClusterPod, Fact, Kubernetes};
        let mut report = examples::leak();
        let pod = ClusterPod {
            namespace: "dns-ns".into(),
            name: "coredns-55cb5f7d-abcde".into(),
            node: Some("worker-9.corp.internal".into()),
            ready: true,
            host_network: false,
        };
        report.facts.kubernetes = Some(Kubernetes {
            server: Fact::known("api.corp.example:6443".into(), "its configuration"),
            cilium_config: Fact::known("net-ns/cilium-config".into(), "Kubernetes API"),
            coredns_pods: Fact::known(vec![pod], "Kubernetes API"),
            ..Kubernetes::default()
        });
        let text = serde_json::to_string(&crate::report::redact::redact(&report).expect("a report")).expect("JSON");
        for secret in ["corp", "55cb5f7d", "dns-ns", "net-ns"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        assert!(text.contains("/cilium-config") && text.contains(":6443"), "{text}");
    }

    #[test]
    fn what_every_node_has_is_kept() {
        let names = names("node", "example.com.");
        assert_eq!(names.replace("example.com from the node, lxc_health"), "example.com from the node, lxc_health");
    }
}
