//! HDP411 answers-differ: the same question, different answers.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code},
    ended::Ended,
    query::UNCACHED_QNAME,
    verdict::vantage,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::AnswersDiffer, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The same question got different answers at different vantages.

The same server should say the same to everybody. Different response codes point to different
servers: an answer from outside, a second server on the address, or an upstream that fails now and
then. Different addresses alone can also come from an upstream that balances load.

By hand: `dig +short @ADDRESS NAME` from a pod and on the node.

Fix: compare the traces: whose answers are from the node's socket. Ask again with --qname of a name
whose answer never changes.

Versions: any.
";

/// Name and type.
type Question<'a> = (&'a str, &'a str);
/// Response code and the records, sorted.
type Answer<'a> = (String, Vec<&'a str>);

fn run(case: &Case<'_>) -> Vec<Finding> {
    let mut answers: BTreeMap<Question<'_>, BTreeMap<Answer<'_>, Vec<&str>>> = BTreeMap::new();
    let same = |name: &str| !name.eq_ignore_ascii_case(UNCACHED_QNAME);
    for query in vantage::all(case).iter().map(|outcome| outcome.query).filter(|query| same(&query.qname)) {
        // A truncated answer is a part of the whole one.
        let Some(rcode) = query.rcode.as_ref().filter(|_| !query.truncated && query.ended == Ended::Answered) else {
            continue;
        };
        let mut set: Vec<&str> = query.answers.iter().map(String::as_str).collect();
        set.sort_unstable();
        let question = (query.qname.as_str(), query.qtype.as_str());
        answers.entry(question).or_default().entry((rcode.clone(), set)).or_default().push(&query.vantage);
    }
    let mut findings = Vec::new();
    for ((name, kind), groups) in answers.into_iter().filter(|(_, groups)| groups.len() > 1) {
        let rcodes: BTreeSet<&String> = groups.keys().map(|(rcode, _)| rcode).collect();
        let severity = if rcodes.len() > 1 { Severity::Warn } else { Severity::Info };
        let lines = groups.iter().map(|((rcode, set), who)| {
            let mut who = who.clone();
            who.dedup();
            format!("{rcode} {}: {}", if set.is_empty() { "(nothing)".into() } else { set.join(", ") }, who.join(", "))
        });
        let title = format!("The answers for {name} {kind} differ between vantages.");
        findings.push(Finding::new(Code::AnswersDiffer, severity, title).evidences(lines.collect::<Vec<_>>()));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{Fate, Scene};

    #[test]
    fn rcodes_weigh_more_than_addresses() {
        let mut scene = Scene::new().coredns(Fate::Answered);
        assert_eq!(scene.finding("HDP411"), None);
        scene.queries[1].answers = vec!["192.0.2.2".into()];
        assert_eq!(scene.finding("HDP411").unwrap().severity, Severity::Info);
        scene.queries[1].rcode = Some("NXDOMAIN".into());
        assert_eq!(scene.finding("HDP411").unwrap().severity, Severity::Warn);
    }
}
