//! HDP101 address-absent: the address under test is on no interface of the node.

use crate::{
    checks::{Case, Check, Finding, Remedy, code::Code, remedy, symptom},
    ended::Ended,
    predict::node,
    report::Status,
    verdict::vantage,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::AddressAbsent, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The address is on no interface of the node, so the kernel routes it to the default gateway.

This looks exactly like the masquerade problem (the query leaves the node, nobody answers), also
with legacy host routing, but Cilium has nothing to do with it. On Talos the address comes with
machine.features.hostDNS.forwardKubeDNSToHost (Talos 1.8 and later; from 1.9 only with an IPv4 pod
CIDR). CoreDNS reads its upstreams when it starts, so it may still ask an address that is long
gone.

By hand: `ip addr | grep 169.254.116.108` shows nothing, and `ip route get 169.254.116.108` names a
gateway. Talos: `talosctl -n NODE get addresses | grep 169.254.116.108`.

Fix: either let the node serve the address again (Talos: hostDNS enabled and forwardKubeDNSToHost
true; node-local-dns: see that its pod runs on this node), or stop asking it: restart CoreDNS so
that it reads the node's resolv.conf anew.

Versions: Talos 1.8 and later has the address; 1.7 used a ClusterIP.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    case.targets
        .addresses
        .iter()
        .filter(|address| node::is_absent(case.facts, **address))
        .map(|&address| {
            let hit: Vec<_> = vantage::all(case)
                .into_iter()
                .filter(|o| o.query.address.ip() == address && o.status() == Status::Fail)
                .collect();
            let source = case.facts.network.addresses.source();
            let title = format!("{address} is on no interface of this node.");
            let serve = if remedy::is_talos(address) {
                remedy::forwarding_on(case)
            } else {
                Remedy::new("See that node-local DNS runs on this node; it brings the address.")
                    .step("kubectl -n kube-system get pods -o wide | grep -i dns")
            };
            let mut story = format!("{address} is on no interface of this node.");
            if hit.iter().any(|outcome| outcome.ended == Ended::Leaked) {
                story = format!(
                    "{address} is on no interface of this node, so the node sends queries to it outside like any \
                     others. Cilium is not the cause."
                );
            }
            if let Some(runs) = symptom::resolver_runs(case).filter(|_| remedy::is_talos(address)) {
                story.push(' ');
                story.push_str(&runs);
            }
            Finding::new(Code::AddressAbsent, symptom::severity(case, &hit), title)
                .story(story)
                .evidence(format!("not among the node's addresses ({source})"))
                .evidences(symptom::evidence(&hit))
                .remedies([serve, remedy::stop_asking()])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::checks::{
        Severity,
        testing::{Fate, Scene, known},
    };

    #[test]
    fn fails_where_it_hurts() {
        let absent = || Scene::new().facts(|f| f.network.addresses = known(vec![]));
        assert_eq!(absent().coredns(Fate::Leaked).finding("HDP101").unwrap().severity, Severity::Fail);
        assert_eq!(absent().finding("HDP101").unwrap().severity, Severity::Warn);
        assert_eq!(Scene::new().coredns(Fate::Leaked).finding("HDP101"), None);
    }

    #[test]
    fn a_resolver_that_runs_is_told_where_it_was_asked() {
        use crate::{facts::Transport::Udp, query::VantageKind::NodeLoopback};
        let absent = || Scene::new().facts(|f| f.network.addresses = known(vec![])).coredns(Fate::Leaked);
        let at = "127.0.0.53:53".parse().unwrap();
        let story = |scene: Scene| scene.finding("HDP101").unwrap().story.unwrap();
        assert!(story(absent().asks_at(NodeLoopback, at, Udp, Fate::Answered)).contains("at 127.0.0.53 answers"));
        assert!(!story(absent().asks_at(NodeLoopback, at, Udp, Fate::Silent)).contains("127.0.0.53"));
    }

    #[test]
    fn unknown_addresses_are_not_absent() {
        let scene = Scene::new().facts(|f| f.network.addresses = crate::facts::Fact::default());
        assert_eq!(scene.finding("HDP101"), None);
    }
}
