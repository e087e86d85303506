//! HDP009 out-of-time: the check ended before every question did.

use crate::checks::{Case, Check, Finding, Severity, code::Code};
use crate::{ended::Ended, query::Query};

pub(in crate::checks) const CHECK: Check = Check { code: Code::OutOfTime, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The check's time was up before every question was asked or answered.

The whole check has a budget (--budget, 20 s) and each query its own limit (--timeout, 5 s). What
was not asked is unknown; the rest is judged as usual.

By hand: `hostdns-probe query` asks alone, without hooks and judgement, and shows which answers are
slow.

Fix: raise --budget, or ask less: fewer --vantage, one --address. Many pods that all wait for a slow
server is the usual reason; see HDP406 and HDP410.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let late = |query: &&Query| {
        let said = |note: &String| note.contains("budget") || note.contains("out of time");
        query.ended == Ended::Unknown && query.note.as_ref().is_some_and(said)
    };
    let lines: Vec<String> = case
        .queries
        .iter()
        .filter(late)
        .map(|query| format!("{}, {} to {}", query.vantage, query.transport, query.address))
        .collect();
    if lines.is_empty() {
        return Vec::new();
    }
    let title = format!("Time was up before {} of {} queries ended.", lines.len(), case.queries.len());
    vec![Finding::new(Code::OutOfTime, Severity::Warn, title).evidences(lines)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{Fate, Scene},
        query::OUT_OF_TIME,
        report::Status,
        verdict::judge,
    };

    #[test]
    fn a_timeout_of_one_query_is_not_it() {
        let mut scene = Scene::new().coredns(Fate::Silent);
        assert_eq!(scene.finding("HDP009"), None);
        scene.queries[0].ended = Ended::Unknown;
        scene.queries[0].note = Some("the budget of 20 s was spent".into());
        assert_eq!(scene.finding("HDP009").unwrap().evidence.len(), 1);
    }

    #[test]
    fn a_server_that_was_not_waited_for_is_not_silent() {
        let mut scene = Scene::new().coredns(Fate::Unanswered);
        for query in &mut scene.queries {
            (query.ended, query.note) = (Ended::Unknown, Some(OUT_OF_TIME.into()));
        }
        let verdict = judge(&scene.case(), &scene.findings());
        assert_eq!((verdict.status, scene.finding("HDP406")), (Status::Unknown, None));
        assert_eq!(scene.finding("HDP009").unwrap().evidence.len(), 2);
    }
}
