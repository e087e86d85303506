//! HDP103 nobody-listens: the address is there, the server is not.

use std::net::SocketAddr;

use crate::{
    checks::{Case, Check, Finding, Remedy, code::Code, remedy, symptom},
    ended::Ended,
    predict::node,
    verdict::{outcome::Outcome, vantage},
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::NobodyListens, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
Nobody listens on the address and port.

The query reaches the node and the kernel answers with an ICMP port unreachable or a TCP reset. The
datapath is fine; the server is not there. On Talos host DNS is part of machined and listens as
soon as hostDNS is enabled with forwardKubeDNSToHost; node-local-dns is a pod of its own on every
node.

By hand: `ss -lnup 'sport = :53'` and `ss -lntp 'sport = :53'` on the node.

Fix: Talos: `talosctl -n NODE get dnsresolvecache` should list udp- and tcp- of the address as
running; `talosctl -n NODE logs dns-resolve-cache` says why not. node-local-dns: look at its pod on
this node. Where nobody is meant to serve it, restart CoreDNS, so that it stops asking.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    case.targets
        .sockets()
        .filter_map(|target| {
            let hit: Vec<_> =
                symptom::rooted(case, Code::NobodyListens).into_iter().filter(|o| o.query.address == target).collect();
            let silent = node::nobody_listens(case.facts, target) && !node::is_absent(case.facts, target.ip());
            // An answer is better evidence than a list of sockets.
            let contradicted =
                vantage::all(case).iter().any(|o| o.query.address == target && o.ended == Ended::Answered);
            if hit.is_empty() && (!silent || contradicted) {
                return None;
            }
            let title = format!("Nobody listens on {target}.");
            let mut finding = Finding::new(Code::NobodyListens, symptom::severity(case, &hit), title);
            if silent {
                let source = case.facts.listeners.source();
                finding = finding.evidence(format!("no such socket in the node's namespace ({source})"));
                finding.story = story(case, target, source, &hit);
            }
            let remedy = if remedy::is_talos(target.ip()) {
                remedy::forwarding_on(case)
            } else {
                Remedy::new("See why the server of this address does not run on this node.")
                    .step("kubectl -n kube-system get pods -o wide | grep -i dns")
            };
            Some(finding.evidences(symptom::evidence(&hit)).remedies([remedy, remedy::stop_asking()]))
        })
        .collect()
}

/// Only of queries that came there from a pod: they show that the way is fine.
fn story(case: &Case<'_>, target: SocketAddr, source: &str, hit: &[Outcome<'_>]) -> Option<String> {
    hit.iter().find(|outcome| outcome.query.vantage_kind.is_pod())?;
    let arrives = format!(
        "No socket of the node listens on {target} ({source}). The pods' queries arrive there and the kernel refuses \
         them: the way from the pods is not the cause."
    );
    let runs = symptom::resolver_runs(case).filter(|_| remedy::is_talos(target.ip()));
    Some([Some(arrives), runs].into_iter().flatten().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::{
            Severity,
            testing::{Fate, Scene, known},
        },
        ended::Direction,
        facts::Transport::Udp,
        query::VantageKind,
    };

    #[test]
    fn the_way_is_called_fine_only_where_a_pod_was_refused() {
        let story = |kind| {
            let scene = Scene::new().facts(|f| f.listeners = known(vec![])).asks(kind, Udp, Fate::Refused);
            scene.finding("HDP103").unwrap().story
        };
        assert!(story(VantageKind::Coredns).unwrap().contains("the way from the pods is not the cause"));
        assert_eq!(story(VantageKind::Node), None);
        let finding = Scene::new().facts(|f| f.listeners = known(vec![])).coredns(Fate::Refused).finding("HDP103");
        assert!(finding.unwrap().remedies[1].title.starts_with("If nobody is meant to serve it"));
    }

    #[test]
    fn by_the_sockets_and_by_the_refusal() {
        let empty = || Scene::new().facts(|f| f.listeners = known(vec![]));
        assert_eq!(empty().coredns(Fate::Refused).finding("HDP103").unwrap().severity, Severity::Fail);
        assert_eq!(empty().finding("HDP103").unwrap().severity, Severity::Warn);
        let by_drop = empty().coredns(Fate::Dropped("NO_SOCKET", Direction::Request, None));
        assert_eq!(by_drop.finding("HDP103").unwrap().severity, Severity::Fail);
    }

    #[test]
    fn an_answer_contradicts_it() {
        let scene = Scene::new().facts(|f| f.listeners = known(vec![])).coredns(Fate::Answered);
        assert_eq!(scene.finding("HDP103"), None);
    }
}
