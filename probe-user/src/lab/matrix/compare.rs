//! What a scenario's report says, beside what it should.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Outcome, Row};
use crate::{
    checks::code::Code,
    ended::Ended,
    facts::Transport,
    lab::scenario::{Family, Scenario, Test},
    query::{Query, VantageKind},
    report::{Report, Status},
};

/// The queries of one vantage over one family and transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TestRow {
    pub vantage: VantageKind,
    pub family: Family,
    pub transport: Transport,
    /// None: such a query was not to be made.
    pub expected: Option<Ended>,
    /// Each end that was seen, once; empty: no such query was made.
    pub measured: Vec<Ended>,
}

impl TestRow {
    fn agrees(&self) -> bool {
        self.expected.is_some_and(|expected| self.measured == [expected])
    }
}

/// Writes into the row what the report says, and how far that is as it should be.
pub(super) fn fill(row: &mut Row, scenario: &Scenario, report: Report) {
    row.tests = tests(&scenario.tests(), &report.queries);
    let disagreement_told = report.findings.iter().any(|finding| finding.code == Code::PredictionDisagrees.id());
    row.measured = report.verdict.into();
    row.prediction = report.prediction.into();
    row.prediction_agrees = foretells(&row.prediction, &row.measured);
    row.differences = differences(row, scenario.expected.predicted, disagreement_told);
    row.agree = row.differences.is_empty();
}

/// Every test that was to be made or was made, in the order in which vantages decide.
fn tests(expected: &[(Test, Ended)], queries: &[Query]) -> Vec<TestRow> {
    let mut all: BTreeMap<Test, (Option<Ended>, Vec<Ended>)> =
        expected.iter().map(|&(test, ended)| (test, (Some(ended), Vec::new()))).collect();
    for query in queries {
        let test =
            Test { vantage: query.vantage_kind, family: Family::of(query.address.ip()), transport: query.transport };
        let (_expected, measured) = all.entry(test).or_default();
        if !measured.contains(&query.ended) {
            measured.push(query.ended);
        }
    }
    let rows = all.into_iter().map(|(Test { vantage, family, transport }, (expected, measured))| TestRow {
        vantage,
        family,
        transport,
        expected,
        measured,
    });
    rows.collect()
}

/// The prediction says nothing of upstreams: the cause of a pass is not its business.
fn foretells(prediction: &Outcome, measured: &Outcome) -> bool {
    let outcome = |of: &Outcome| (of.status, of.ended, of.direction);
    outcome(prediction) == outcome(measured) && (measured.status == Status::Pass || prediction.cause == measured.cause)
}

fn differences(row: &Row, predicted: bool, disagreement_told: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if row.measured != row.expected {
        let text = |of: &Outcome| format!("{of}, cause {}", of.cause.as_deref().unwrap_or("-"));
        lines.push(format!("verdict: expected {}; measured {}", text(&row.expected), text(&row.measured)));
    }
    for test in row.tests.iter().filter(|test| !test.agrees()) {
        let expected = test.expected.map_or("no such test", |ended| ended.as_str());
        let measured = test.measured.iter().map(|ended| ended.as_str()).collect::<Vec<_>>().join(" and ");
        let measured = if measured.is_empty() { "no such test".to_owned() } else { measured };
        lines.push(format!(
            "{} over {} {}: expected {expected}, measured {measured}",
            test.vantage.as_str(),
            test.family,
            test.transport
        ));
    }
    match (predicted, row.prediction_agrees, disagreement_told) {
        (true, true, false) | (false, false, true) => {}
        (true, false, _) => lines.push(format!("prediction: {}, though it can know", row.prediction)),
        (true, true, true) => lines.push("prediction: it agrees, and yet HDP413 says that it does not".to_owned()),
        (false, true, _) => lines.push("prediction: it agrees, though it cannot know".to_owned()),
        (false, false, false) => lines.push("prediction: it disagrees, and no HDP413 says so".to_owned()),
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{Fate, Scene},
        lab::{
            matrix::{Matrix, SCHEMA, row_of},
            scenarios,
        },
        report::examples,
    };

    /// The report that the scenario is to have, from a node that was never there.
    fn report(scenario: &Scenario) -> Report {
        let mut report = examples::healthy();
        let Outcome { status, ended, direction, cause } = (&scenario.expected).into();
        report.findings.clear();
        report.queries.clear();
        for (test, ended) in scenario.tests() {
            let address = match test.family {
                Family::Ipv4 => "192.0.2.1:53",
                Family::Ipv6 => "[2001:db8::1]:53",
            };
            let address = address.parse().unwrap();
            let scene = Scene::new().asks_at(test.vantage, address, test.transport, Fate::Answered);
            report.queries.push(Query { ended, ..scene.queries[0].clone() });
        }
        (report.prediction.status, report.prediction.ended) = (status, ended);
        (report.prediction.direction, report.prediction.cause) = (direction, cause.clone());
        (report.verdict.status, report.verdict.ended) = (status, ended);
        (report.verdict.direction, report.verdict.cause) = (direction, cause);
        report
    }

    /// What is not as it should be, once the report of that scenario is changed.
    fn differences(scenario: &str, change: impl FnOnce(&mut Report)) -> Vec<String> {
        let scenario = scenarios::find(scenario).unwrap();
        let mut report = report(&scenario);
        change(&mut report);
        let mut row = row_of(&scenario);
        fill(&mut row, &scenario, report);
        assert_eq!(row.agree, row.differences.is_empty());
        let matrix = Matrix { schema: SCHEMA.into(), scenarios: vec![row.clone()] };
        crate::commands::schema::tests::assert_valid(&matrix);
        row.differences
    }

    const LEAK: &str = "issue-36761-leak";

    #[test]
    fn a_report_as_expected_agrees() {
        for scenario in scenarios::all().iter().filter(|scenario| scenario.expected.predicted) {
            assert_eq!(differences(scenario.name, |_| ()), [""; 0], "{}", scenario.name);
        }
    }

    #[test]
    fn a_test_that_is_missing_wrong_or_too_many_shows() {
        assert_eq!(
            differences(LEAK, |report| report.queries.retain(|query| query.vantage_kind != VantageKind::Health)),
            [
                "health over IPv4 udp: expected leaked, measured no such test",
                "health over IPv4 tcp: expected leaked, measured no such test"
            ]
        );
        assert_eq!(
            differences(LEAK, |report| report.queries[0].ended = Ended::Lost),
            ["coredns over IPv4 udp: expected leaked, measured lost"]
        );
        assert_eq!(
            differences(LEAK, |report| {
                let other = Query { ended: Ended::Answered, ..report.queries[0].clone() };
                report.queries.push(other);
            }),
            ["coredns over IPv4 udp: expected leaked, measured leaked and answered"]
        );
        assert_eq!(
            differences(LEAK, |report| report.queries[0].address = "[2001:db8::1]:53".parse().unwrap()),
            [
                "coredns over IPv4 udp: expected leaked, measured no such test",
                "coredns over IPv6 udp: expected no such test, measured leaked"
            ]
        );
    }

    #[test]
    fn a_verdict_without_its_cause_shows() {
        let found = differences(LEAK, |report| report.verdict.cause = Some("HDP402".into()));
        assert_eq!(
            found,
            [
                "verdict: expected fail/leaked/request, cause HDP201; measured fail/leaked/request, cause HDP402",
                "prediction: fail/leaked/request, though it can know"
            ]
        );
    }

    #[test]
    fn a_prediction_is_right_or_says_so() {
        let found = |finding: bool, agrees: bool, scenario: &str| {
            differences(scenario, |report| {
                if !agrees {
                    (report.prediction.status, report.prediction.cause) = (Status::Pass, None);
                    (report.prediction.ended, report.prediction.direction) =
                        (Some(Ended::Answered), Default::default());
                }
                if finding {
                    let told =
                        crate::checks::Finding::new(Code::PredictionDisagrees, crate::checks::Severity::Info, "");
                    report.findings.push(told);
                }
            })
            .join("; ")
        };
        assert_eq!(found(true, false, "policy-denied"), "");
        assert!(found(false, false, "policy-denied").contains("no HDP413 says so"));
        assert!(found(false, true, "policy-denied").contains("though it cannot know"));
        assert!(found(false, false, LEAK).contains("though it can know"));
        assert!(found(true, true, LEAK).contains("says that it does not"));
    }
}
