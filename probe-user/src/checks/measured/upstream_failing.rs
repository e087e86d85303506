//! HDP407 upstream-failing: forwarding works, the answer is an error.

use crate::{
    checks::{Case, Check, Finding, Remedy, Severity, code::Code, remedy},
    ended::Ended,
    verdict::{outcome::Outcome, vantage},
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::UpstreamFailing, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
Forwarding works, but the answer is an error: the server's upstreams fail.

Any DNS response proves that the packets get there and back, so the datapath passes. SERVFAIL means
that the server got no usable answer from its upstreams; REFUSED, that it does not want to answer.

By hand: `dig @ADDRESS example.com` on the node shows the same status; then ask each upstream with
`dig @UPSTREAM example.com`.

Fix: the resolvers of the node. Talos: machine.network.nameservers (or a ResolverConfig document),
`talosctl -n NODE get dnsupstreams` for their health. Check that the node itself reaches them, UDP
and TCP port 53 (or 853 and 443 for DoT and DoH).

Versions: any.
";

const FAILING: [&str; 5] = ["SERVFAIL", "REFUSED", "NOTIMP", "FORMERR", "NOTAUTH"];

fn run(case: &Case<'_>) -> Vec<Finding> {
    let failing = |outcome: &Outcome<'_>| {
        outcome.query.rcode.as_deref().is_some_and(|rcode| FAILING.iter().any(|f| rcode.eq_ignore_ascii_case(f)))
    };
    let hit: Vec<_> = vantage::all(case).into_iter().filter(|o| o.ended == Ended::Answered && failing(o)).collect();
    let Some(first) = hit.first() else {
        return Vec::new();
    };
    let rcode = first.query.rcode.as_deref().unwrap_or_default();
    let title = format!("Forwarding works, but the server answers {rcode}: its upstreams fail.");
    let mut lines: Vec<String> = hit
        .iter()
        .map(|o| {
            let query = o.query;
            let rcode = query.rcode.as_deref().unwrap_or_default();
            format!(
                "{}, {} to {}: {rcode} for {} {}",
                query.vantage, query.transport, query.address, query.qname, query.qtype
            )
        })
        .collect();
    lines.truncate(6);
    let upstreams = case.facts.talos.iter().flat_map(|talos| talos.upstreams.get()).flatten();
    lines.extend(upstreams.filter(|one| !one.healthy).map(|one| format!("Talos calls {} unhealthy", one.address)));
    let look = if remedy::is_talos(first.query.address.ip()) {
        remedy::resolvers(case)
    } else {
        Remedy::new("Repair the resolvers that the node's server asks.")
            .step("from the node: dig @UPSTREAM example.com, for every upstream in the server's configuration")
    };
    vec![Finding::new(Code::UpstreamFailing, Severity::Warn, title).evidences(lines).remedies([look])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{Fate, Scene};

    #[test]
    fn is_a_warning_only() {
        let finding = Scene::new().coredns(Fate::Rcode("SERVFAIL")).finding("HDP407").unwrap();
        assert_eq!(finding.severity, Severity::Warn);
        let upstreams = [("1.1.1.1:53", true), ("9.9.9.9:53", false)]
            .map(|(address, healthy)| crate::facts::TalosUpstream { address: address.into(), healthy });
        let scene = Scene::new().coredns(Fate::Rcode("SERVFAIL")).facts(|f| {
            let upstreams = crate::checks::testing::known(upstreams.to_vec());
            f.talos = Some(crate::facts::Talos { upstreams, ..Default::default() });
        });
        assert_eq!(scene.finding("HDP407").unwrap().evidence.last().unwrap(), "Talos calls 9.9.9.9:53 unhealthy");
        assert_eq!(Scene::new().coredns(Fate::Rcode("NXDOMAIN")).finding("HDP407"), None);
    }
}
