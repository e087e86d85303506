//! What checks of measured things share: which queries they rest on, and how bad that makes them.

use super::{Case, Finding, Severity, code::Code};
use crate::{
    ended::Ended,
    query::{Query, VantageKind},
    report::Status,
    verdict::{cause, outcome::Outcome, vantage},
};

/// Lines of evidence of one kind; more would not fit a page.
const MOST: usize = 6;

/// Every outcome whose root is this code.
pub(super) fn rooted<'a>(case: &Case<'a>, code: Code) -> Vec<Outcome<'a>> {
    vantage::all(case).into_iter().filter(|outcome| cause::root(case, outcome) == Some(code)).collect()
}

/// Every outcome that looks like this code.
pub(super) fn showing<'a>(case: &Case<'a>, code: Code) -> Vec<Outcome<'a>> {
    vantage::all(case).into_iter().filter(|outcome| cause::symptom(outcome) == Some(code)).collect()
}

/// Fail where one of them decides, else a warning: the queries of others, or a way that nobody uses.
pub(super) fn severity(case: &Case<'_>, outcomes: &[Outcome<'_>]) -> Severity {
    let decisive = vantage::decisive(case);
    let decides = |outcome: &Outcome<'_>| decisive.iter().any(|other| std::ptr::eq(other.query, outcome.query));
    let fails = outcomes.iter().any(|outcome| outcome.status() == Status::Fail && decides(outcome));
    if fails && !crate::verdict::is_not_in_use(case) { Severity::Fail } else { Severity::Warn }
}

/// Where nothing is at the address but the node's own resolver answers: for Talos that is the way on.
pub(super) fn resolver_runs(case: &Case<'_>) -> Option<String> {
    let answers = |q: &&Query| q.vantage_kind == VantageKind::NodeLoopback && q.ended == Ended::Answered;
    let at = case.queries.iter().find(answers)?.address.ip();
    Some(format!(
        "The node's own resolver at {at} answers: where that is Talos' host DNS, it runs and only does not serve this \
         address."
    ))
}

/// A line for each outcome, up to what fits.
pub(super) fn evidence(outcomes: &[Outcome<'_>]) -> Vec<String> {
    let mut lines: Vec<String> = outcomes.iter().take(MOST).map(Outcome::evidence).collect();
    if outcomes.len() > MOST {
        lines.push(format!("and {} more", outcomes.len() - MOST));
    }
    lines
}

/// A finding that rests on these outcomes; none of them, no finding.
pub(super) fn finding(case: &Case<'_>, code: Code, outcomes: &[Outcome<'_>], title: &str) -> Option<Finding> {
    if outcomes.is_empty() {
        return None;
    }
    Some(Finding::new(code, severity(case, outcomes), title).evidences(evidence(outcomes)))
}

/// The finding on every outcome that looks like this code, if there are any.
pub(super) fn shown(case: &Case<'_>, code: Code, title: &str) -> Vec<Finding> {
    Vec::from_iter(finding(case, code, &showing(case, code), title))
}

/// The same for a root: first what explains it, then the queries that show it.
pub(super) fn root(
    case: &Case<'_>,
    code: Code,
    outcomes: &[Outcome<'_>],
    title: &str,
    why: impl IntoIterator<Item = String>,
) -> Option<Finding> {
    let finding = finding(case, code, outcomes, title)?;
    let shown = finding.evidence;
    Some(Finding { evidence: why.into_iter().chain(shown).collect(), ..finding })
}
