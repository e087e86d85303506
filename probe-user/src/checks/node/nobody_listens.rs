//! HDP103 nobody-listens: the address is there, the server is not.

use crate::{
    checks::{Case, Check, Finding, Remedy, code::Code, remedy, symptom},
    ended::Ended,
    predict::node,
    verdict::vantage,
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
this node.

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
                finding = finding
                    .evidence(format!("no such socket in the node's namespace ({})", case.facts.listeners.source()));
            }
            let remedy = if remedy::is_talos(target.ip()) {
                remedy::forwarding_on(case)
            } else {
                Remedy::new("See why the server of this address does not run on this node.")
                    .step("kubectl -n kube-system get pods -o wide | grep -i dns")
            };
            Some(finding.evidences(symptom::evidence(&hit)).remedies([remedy]))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::{
            Severity,
            testing::{Fate, Scene, known},
        },
        ended::Direction,
    };

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
