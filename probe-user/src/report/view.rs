//! What every form for people shows, computed once: the cause, the telling packet, the table of queries, what is not
//! known, and whether the prediction was right.

pub mod facts;
pub mod packet;
pub mod queries;

use super::{Prediction, Report, Status};
use crate::checks::{Finding, Severity};

/// Code of `snat-entry-to-address`, which has a place of its own in the text report.
const PAST_LEAKS: &str = "HDP209";

/// Code of `prediction-disagrees`.
const DISAGREES: &str = "HDP413";

/// Code of `coredns-not-on-this-node`.
const ASKED_OTHERS: &str = "HDP301";

/// The finding that the verdict names as its cause.
#[must_use]
pub fn cause(report: &Report) -> Option<&Finding> {
    let code = report.verdict.cause.as_deref()?;
    report.findings.iter().find(|finding| finding.code == code)
}

/// The finding that this did not begin with this check, where another one is the cause.
#[must_use]
pub fn past_leaks(report: &Report) -> Option<&Finding> {
    let past = report.findings.iter().find(|finding| finding.code == PAST_LEAKS)?;
    (cause(report) != Some(past)).then_some(past)
}

/// The cause's evidence that explains, where no story does. What single queries came to, the table and the telling
/// packet show already; of that one line is kept where there is nothing else.
#[must_use]
pub fn reasons(report: &Report) -> Vec<&str> {
    let Some(cause) = cause(report).filter(|cause| cause.story.is_none()) else { return Vec::new() };
    let of_a_query = |line: &&String| {
        line.starts_with("and ") || report.queries.iter().any(|query| line.starts_with(&query.label()))
    };
    let reasons: Vec<&str> = cause.evidence.iter().filter(|line| !of_a_query(line)).map(String::as_str).collect();
    if reasons.is_empty() { cause.evidence.iter().take(1).map(String::as_str).collect() } else { reasons }
}

/// What else deserves a line: failures and warnings that are neither told above (as a cause is, and its symptom) nor
/// elsewhere; and from whom the answers are, where CoreDNS could not be asked.
pub fn further(report: &Report) -> impl Iterator<Item = &Finding> {
    let told = cause(report).filter(|_| report.verdict.status != Status::Pass);
    report.findings.iter().filter(move |finding| {
        let with_the_cause = told.is_some() && (is_symptom(&finding.code) || is_in_the_summary(report, &finding.code));
        let told_already = with_the_cause || report.findings.iter().any(|other| tells(other, finding));
        let worth_a_line = finding.severity != Severity::Info || finding.code == ASKED_OTHERS;
        worth_a_line && Some(*finding) != told && finding.code != PAST_LEAKS && !told_already
    })
}

/// Codes that say how the queries ended (dropped, leaked, lost, refused, unanswered, malformed), which the verdict has
/// said already.
fn is_symptom(code: &str) -> bool {
    ("HDP401"..="HDP406").contains(&code) || matches!(code, "HDP414" | "HDP415")
}

/// Whether the line or the story of one makes a line for the other superfluous: the story of an address that Cilium
/// does not know (HDP201, HDP202) tells of its scope (HDP102) or its device (HDP105), and a root of all the queries of
/// a symptom tells of the symptom.
fn tells(root: &Finding, other: &Finding) -> bool {
    if root.severity == Severity::Info || root == other {
        return false;
    }
    let story = root.story.as_deref().filter(|_| matches!(root.code.as_str(), "HDP201" | "HDP202"));
    match other.code.as_str() {
        "HDP102" => story.is_some(),
        "HDP105" => story.is_some_and(|story| story.contains("does not learn")),
        code if is_symptom(code) && !is_symptom(&root.code) => {
            !other.evidence.is_empty() && other.evidence.iter().all(|line| root.evidence.contains(line))
        }
        _ => false,
    }
}

/// HDP408 and HDP409, where the verdict's sentence says that the other half works.
fn is_in_the_summary(report: &Report, code: &str) -> bool {
    let says = |words: [&str; 2]| words.iter().any(|word| report.verdict.summary.contains(&format!("({word} works")));
    match code {
        "HDP408" => says(["UDP", "TCP"]),
        "HDP409" => says(["IPv4", "IPv6"]),
        _ => false,
    }
}

/// What the configuration predicted, and whether the measurement agrees.
#[must_use]
pub fn prediction(report: &Report) -> String {
    let predicted = &report.prediction;
    if predicted.status == Status::Unknown {
        return match predicted.because.last() {
            Some(why) => format!("No prediction from configuration: {}.", why.trim_end_matches('.')),
            None => "No prediction from configuration.".to_owned(),
        };
    }
    let agreement = match (report.verdict.status, agrees(predicted, report)) {
        (Status::Unknown, _) => "not measured".to_owned(),
        // A pass without an end: CoreDNS does not go this way, whatever became of the pods' queries.
        _ if report.verdict.ended.is_none() => "no part of this verdict".to_owned(),
        (_, true) => "agrees".to_owned(),
        (_, false) => match beyond_the_model(report) {
            Some(code) => format!("it knows nothing of {code}; the measurement stands"),
            None => "the measurement disagrees, and stands".to_owned(),
        },
    };
    format!("Predicted from configuration: {} ({agreement}).", ended(predicted))
}

/// The cause, where it is one that no configuration tells (a policy, a firewall, what becomes of the answer): then the
/// disagreement is no riddle, and HDP413 only a remark.
fn beyond_the_model(report: &Report) -> Option<&str> {
    let disagrees = report.findings.iter().find(|finding| finding.code == DISAGREES)?;
    report.verdict.cause.as_deref().filter(|_| disagrees.severity == Severity::Info)
}

fn agrees(predicted: &Prediction, report: &Report) -> bool {
    let verdict = &report.verdict;
    predicted.status == verdict.status && (predicted.ended.is_none() || predicted.ended == verdict.ended)
}

fn ended(predicted: &Prediction) -> String {
    predicted.ended.map_or_else(|| predicted.status.as_str().to_owned(), packet::word)
}

/// `0.4 ms`, `12 ms`, `5.0 s`.
#[must_use]
pub fn duration(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        10_000..1_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

/// `Took 0.71 s; 9 facts unavailable`, without the full stop.
#[must_use]
pub fn took(report: &Report) -> String {
    let took = format!("Took {}.{:02} s", report.duration_ms / 1000, report.duration_ms % 1000 / 10);
    match facts::unavailable(&report.facts).len() {
        0 => took,
        1 => format!("{took}; 1 fact unavailable"),
        many => format!("{took}; {many} facts unavailable"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ended::Ended, report::examples};

    #[test]
    fn the_prediction_is_compared_with_the_measurement() {
        let mut report = examples::leak();
        assert_eq!(prediction(&report), "Predicted from configuration: leaked (agrees).");
        report.prediction.ended = Some(Ended::Dropped);
        assert_eq!(
            prediction(&report),
            "Predicted from configuration: dropped (the measurement disagrees, and stands)."
        );
        (report.verdict.status, report.verdict.ended) = (Status::Pass, None);
        assert_eq!(prediction(&report), "Predicted from configuration: dropped (no part of this verdict).");
        report.verdict.status = Status::Unknown;
        assert_eq!(prediction(&report), "Predicted from configuration: dropped (not measured).");
        report.prediction =
            Prediction { because: vec!["Cilium 1.21 was never measured".into()], ..Prediction::default() };
        assert_eq!(prediction(&report), "No prediction from configuration: Cilium 1.21 was never measured.");
    }

    #[test]
    fn a_cause_beyond_the_model_is_no_riddle() {
        let mut report = examples::lost_reply();
        let disagrees = |severity| Finding {
            code: DISAGREES.into(),
            severity,
            evidence: Vec::new(),
            ..examples::lost_reply().findings[0].clone()
        };
        report.findings.push(disagrees(Severity::Info));
        assert!(prediction(&report).contains("it knows nothing of HDP403; the measurement stands"));
        report.findings.pop();
        report.findings.push(disagrees(Severity::Warn));
        assert!(prediction(&report).contains("disagrees, and stands"));
    }

    #[test]
    fn what_the_summary_and_a_story_say_has_no_line_of_its_own() {
        let mut report = examples::leak();
        let of = |code: &str, evidence: &[&str]| Finding {
            code: code.into(),
            severity: Severity::Fail,
            story: None,
            evidence: evidence.iter().map(ToString::to_string).collect(),
            ..examples::leak().findings[0].clone()
        };
        report.findings.extend([of("HDP105", &[]), of("HDP409", &[])]);
        let codes = |report: &Report| further(report).map(|finding| finding.code.clone()).collect::<Vec<_>>();
        assert_eq!(codes(&report), ["HDP105", "HDP409"]);
        report.verdict.summary.push_str(" (IPv6 works)");
        report.findings[0].story = Some("it is on nodelocaldns, and this release does not learn it.".into());
        assert!(codes(&report).is_empty(), "{:?}", codes(&report));
    }

    #[test]
    fn beside_a_pass_a_root_still_tells_of_its_symptom() {
        let mut report = examples::leak();
        report.verdict.status = Status::Pass;
        let codes = |report: &Report| further(report).map(|finding| finding.code.clone()).collect::<Vec<_>>();
        report.findings[0].evidence.push("coredns-1, udp: leaked".into());
        report.findings[1].evidence = vec!["coredns-1, udp: leaked".into()];
        assert_eq!(codes(&report), ["HDP201"]);
        report.findings[1].evidence.push("app-1, udp: leaked".into());
        assert_eq!(codes(&report), ["HDP201", "HDP402"], "one of its queries is not the root's");
    }

    #[test]
    fn durations_are_short_and_true() {
        for (micros, text) in
            [(0, "0.0 ms"), (412, "0.4 ms"), (9_999, "9.9 ms"), (12_345, "12 ms"), (5_012_000, "5.0 s")]
        {
            assert_eq!(duration(micros), text);
        }
    }

    #[test]
    fn the_symptom_of_a_named_cause_is_not_told_twice() {
        let report = examples::leak();
        assert!(report.findings.iter().any(|finding| finding.code == "HDP402"), "the example has the symptom");
        assert!(further(&report).all(|finding| finding.code != "HDP402"));
    }
}
