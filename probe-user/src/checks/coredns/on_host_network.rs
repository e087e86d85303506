//! HDP304 coredns-on-host-network: CoreDNS's path is the node's own.

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code, symptom},
    facts::PodRole,
    query::VantageKind,
    report::Status,
    verdict::vantage,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::CorednsOnHost, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
CoreDNS runs on the host network, so its way to the address is the node's, not a pod's.

Its queries never pass a pod's device or Cilium's pod datapath, and work where pods' queries do
not. Its own path decides the verdict. Pods that ask the address themselves (dnsPolicy Default on
Talos) go another way: where that is broken, it stands here as a warning.

By hand: `kubectl -n kube-system get pod POD -o jsonpath='{.spec.hostNetwork}'`.

Fix: nothing, unless pods ask the address themselves; then see the finding of their queries.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let mut names: Vec<String> = case
        .queries
        .iter()
        .filter(|query| query.vantage_kind == VantageKind::CorednsOnHost)
        .map(|query| query.vantage.clone())
        .collect();
    let pods = case.facts.pods.get().map_or(&[][..], Vec::as_slice);
    names.extend(pods.iter().filter(|p| p.role == PodRole::Coredns && p.host_network).map(|p| p.name.clone()));
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Vec::new();
    }
    let broken: Vec<_> = vantage::pods(case).into_iter().filter(|outcome| outcome.status() == Status::Fail).collect();
    let (severity, title) = if broken.is_empty() {
        (Severity::Info, "CoreDNS runs on the host network: its path is the node's own.")
    } else {
        (
            Severity::Warn,
            "CoreDNS runs on the host network and works that way; pods that ask the address do not reach it.",
        )
    };
    vec![
        Finding::new(Code::CorednsOnHost, severity, title)
            .evidence(names.join(", "))
            .evidences(symptom::evidence(&broken)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{Fate, Scene, hide},
        facts::Transport,
    };

    #[test]
    fn broken_pods_are_a_separate_finding() {
        assert_eq!(Scene::new().coredns(Fate::Answered).finding("HDP304"), None);
        let on_host = || Scene::new().facts(hide).asks(VantageKind::CorednsOnHost, Transport::Udp, Fate::Answered);
        assert_eq!(on_host().finding("HDP304").unwrap().severity, Severity::Info);
        let broken = on_host().asks(VantageKind::Pod, Transport::Udp, Fate::Leaked);
        assert_eq!(broken.finding("HDP304").unwrap().severity, Severity::Warn);
        assert!(broken.findings().iter().all(|finding| finding.severity != Severity::Fail));
    }
}
