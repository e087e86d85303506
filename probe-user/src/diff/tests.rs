use super::*;
use crate::{
    ended::Ended,
    report::{Options, Status, examples},
};

/// A healthy report whose pods got answers after so many microseconds: over UDP and TCP, each time once.
pub(super) fn timed(times: &[u64]) -> Report {
    let mut report = examples::healthy();
    let mut pods: Vec<_> = report.queries.iter().filter(|query| query.vantage_kind.is_pod()).cloned().collect();
    pods.truncate(1);
    let one = pods.pop().expect("the example asks from a pod");
    report.queries = times
        .iter()
        .flat_map(|&time| {
            [crate::facts::Transport::Udp, crate::facts::Transport::Tcp].map(|transport| crate::query::Query {
                transport,
                ended: Ended::Answered,
                rtt_us: Some(time),
                ..one.clone()
            })
        })
        .collect();
    report
}

fn compared(before: &Report, after: &Report) -> Diff {
    diff(Named { name: "before.json", report: before }, Named { name: "after.json", report: after })
}

fn text(diff: &Diff) -> String {
    let mut out = Vec::new();
    super::text(diff, &Options::default(), &mut out).expect("memory");
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn each_pair_of_examples_has_its_word() {
    let all = examples::all();
    let example = |wanted: &str| &all.iter().find(|(name, _)| *name == wanted).expect(wanted).1;
    for (before, after, expected) in [
        ("healthy", "healthy", Outcome::Unchanged),
        ("healthy", "leak", Outcome::Regression),
        ("healthy", "lost_reply", Outcome::Regression),
        ("leak", "healthy", Outcome::Fixed),
        ("leak", "leak", Outcome::StillBroken),
        ("drop", "leak", Outcome::BrokenOtherwise),
        ("leak", "unknown", Outcome::Unknown),
        ("unknown", "healthy", Outcome::Unknown),
    ] {
        assert_eq!(compared(example(before), example(after)).outcome, expected, "{before} to {after}");
    }
}

#[test]
fn a_regression_in_full() {
    insta::assert_snapshot!("diff_regression", text(&compared(&examples::healthy(), &examples::leak())));
    let mut out = Vec::new();
    markdown(&compared(&examples::healthy(), &examples::leak()), &Options::default(), &mut out).expect("memory");
    insta::assert_snapshot!("diff_regression_markdown", String::from_utf8(out).expect("UTF-8"));
}

#[test]
fn the_verdict_may_hide_that_a_transport_broke() {
    let before = examples::healthy();
    let mut after = before.clone();
    for query in after.queries.iter_mut().filter(|query| query.vantage_kind.is_pod()).take(1) {
        query.ended = Ended::Dropped;
    }
    let diff = compared(&before, &after);
    assert_eq!((diff.outcome, diff.ways.len()), (Outcome::Regression, 1), "{diff:#?}");
    assert!(diff.regressions[0].contains("dropped"), "{:?}", diff.regressions);
}

#[test]
fn what_cannot_be_told_is_no_regression() {
    let before = examples::healthy();
    let mut after = before.clone();
    for query in after.queries.iter_mut().filter(|query| query.vantage_kind.is_pod()) {
        query.ended = Ended::Unknown;
    }
    after.verdict.status = Status::Unknown;
    let diff = compared(&before, &after);
    assert_eq!((diff.outcome, diff.regressions.len()), (Outcome::Unknown, 0), "{diff:#?}");
}

#[test]
fn slower_is_a_warning() {
    let diff = compared(&timed(&[400, 420, 440]), &timed(&[9_400, 9_420, 9_440]));
    assert_eq!(diff.outcome, Outcome::Degraded);
    assert!(diff.warnings[0].contains("were slower: a busy machine or upstream does that too"), "{:?}", diff.warnings);
    assert!(diff.summary.contains("cannot tell this change from a busy moment"), "{}", diff.summary);
    assert!(text(&diff).contains("Wilcoxon"), "{}", text(&diff));
}

#[test]
fn a_new_finding_is_told_once() {
    let diff = compared(&examples::healthy(), &examples::leak());
    assert!(diff.regressions.iter().any(|line| line == "HDP201 unknown-address-leaks is new"));
    assert_eq!(text(&diff).matches("HDP201 unknown-address-leaks").count(), 1, "{}", text(&diff));
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let diff = compared(&timed(&[400, 420, 440]), &timed(&[9_400, 9_420, 9_440]));
    for line in text(&diff).lines().filter(|line| !line.starts_with("  before") && !line.starts_with("  after")) {
        assert!(line.chars().count() <= Options::default().width, "{line}");
    }
}

#[test]
fn a_setting_without_an_effect_is_a_change() {
    let mut before = examples::healthy();
    before.facts.kernel.release = crate::facts::Fact::known("6.12.0".into(), "uname");
    let mut after = before.clone();
    after.facts.kernel.release = crate::facts::Fact::known("6.99.0".into(), "uname");
    // A report from before there was such a fact says nothing of it.
    after.facts.cilium.ipv6 = crate::facts::Fact::known(true, "agent");
    let diff = compared(&before, &after);
    assert_eq!(diff.outcome, Outcome::Changed);
    assert_eq!(diff.changes.len(), 1, "{:?}", diff.changes);
    assert_eq!((diff.changes[0].what.as_str(), diff.changes[0].after.as_deref()), ("node.kernel", Some("6.99.0")));
}

#[test]
fn two_nodes_two_targets_and_the_wrong_order_are_said() {
    let before = examples::healthy();
    let mut after = before.clone();
    after.node.name = "cp-2".into();
    after.targets = vec!["169.254.20.10:53".into()];
    after.taken_at = "2020-01-01T00:00:00Z".into();
    after.tool.version = "9.9.9".into();
    let diff = compared(&before, &after);
    assert_eq!(diff.outcome, Outcome::Unknown, "one address says nothing of another");
    assert!(diff.summary.contains("different addresses (169.254.116.108:53 and 169.254.20.10:53)"), "{}", diff.summary);
    let said = diff.caveats.join("\n");
    for part in ["two nodes", "169.254.20.10:53 after", "right order", "9.9.9"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_diff_is_what_its_schema_says() {
    let diff = compared(&examples::healthy(), &examples::leak());
    let json = serde_json::to_value(&diff).expect("JSON");
    assert_eq!(json["schema"], SCHEMA);
    assert_eq!(serde_json::from_value::<Diff>(json).expect("it comes back"), diff);
}

#[test]
fn names_from_a_file_do_not_move_the_cursor() {
    let mut after = examples::leak();
    after.node.name = "cp\u{1b}[2J".into();
    after.findings[0].title = "a\nb".into();
    let text = text(&compared(&examples::healthy(), &after));
    assert!(!text.contains('\u{1b}') && text.contains("a\\nb"), "{text}");
}
