//! HDP410 slow: answers come, but late.

use std::collections::BTreeMap;

use crate::{
    checks::{Case, Check, Finding, Remedy, Severity, code::Code},
    ended::Ended,
    query::VantageKind,
    verdict::{outcome::Outcome, vantage},
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::Slow, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
Answers come, but half of them take longer than a second.

The packets get there and back; the time passes in the server, which waits for its upstreams. The
trace shows it: the gap lies between the server's socket in and its answer. CoreDNS gives an
upstream 5 seconds and clients often give up after 5, so this is close to an outage.

By hand: `hostdns-probe query --repeat 20` shows loss and percentiles; `dig @UPSTREAM example.com`
the upstream's own time.

Fix: the node's upstream resolvers (their distance, their load, a dead first one in the list).
Talos: `talosctl -n NODE get dnsupstreams`, `talosctl -n NODE logs dns-resolve-cache`.

Versions: any.
";

/// Half of a vantage's answers take longer: a healthy cache answers in a millisecond, an upstream in tens.
const SLOW_US: u64 = 1_000_000;

fn run(case: &Case<'_>) -> Vec<Finding> {
    let mut times: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    // An upstream that is given up on takes its time too: that is HDP407.
    let served =
        |outcome: &&Outcome<'_>| outcome.ended == Ended::Answered && outcome.query.rcode.as_deref() != Some("SERVFAIL");
    for outcome in vantage::all(case).iter().filter(served) {
        if let Some(rtt) = outcome.query.rtt_us {
            times.entry(outcome.query.vantage.as_str()).or_default().push(rtt);
        }
    }
    let medians: Vec<(&str, u64, usize)> = times
        .into_iter()
        .filter_map(|(vantage, mut times)| {
            times.sort_unstable();
            Some((vantage, *times.get(times.len() / 2)?, times.len()))
        })
        .filter(|&(_, median, _)| median > SLOW_US)
        .collect();
    let lines: Vec<String> = medians
        .iter()
        .map(|(vantage, median, answers)| format!("{vantage}: p50 {} ms of {answers} answers", median / 1000))
        .collect();
    if lines.is_empty() {
        return Vec::new();
    }
    let look = Remedy::new("See which upstream of the node's server is slow.")
        .step("talosctl -n NODE get dnsupstreams   (Talos)")
        .step("from the node: dig @UPSTREAM example.com, for every upstream");
    // The node's own query passes no device of a pod and nothing of Cilium: where it waits as long, they are not why.
    let worst = medians.iter().map(|&(_, median, _)| median).max().unwrap_or_default();
    let node_too =
        medians.iter().any(|&(vantage, median, _)| vantage == VantageKind::Node.as_str() && median * 2 >= worst);
    let title = if node_too {
        "Answers come, but take longer than a second, for the node itself too: not the way from the pods is slow, but the \
         server or its upstreams."
    } else {
        "Answers come, but take longer than a second."
    };
    vec![Finding::new(Code::Slow, Severity::Warn, title).evidences(lines).remedies([look])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{Fate, Scene};

    #[test]
    fn above_a_second() {
        assert_eq!(Scene::new().coredns(Fate::Slow(SLOW_US)).finding("HDP410"), None);
        let finding = Scene::new().coredns(Fate::Slow(2_500_000)).finding("HDP410").unwrap();
        assert_eq!(finding.evidence, ["coredns-1: p50 2500 ms of 2 answers"]);
        assert!(!finding.title.contains("the node itself"), "{}", finding.title);
    }

    #[test]
    fn a_node_that_waits_as_long_acquits_the_way() {
        use crate::facts::Transport::Udp;
        let scene = Scene::new().coredns(Fate::Slow(2_500_000)).asks(VantageKind::Node, Udp, Fate::Slow(2_500_000));
        assert!(scene.finding("HDP410").unwrap().title.contains("not the way from the pods"));
    }
}
