//! Whose queries decide.

use super::outcome::Outcome;
use crate::{
    checks::Case,
    ended::Ended,
    query::{Query, VantageKind},
};

/// Outcomes of every query to a target, whoever asked.
#[must_use]
pub fn all<'a>(case: &Case<'a>) -> Vec<Outcome<'a>> {
    of(case, |_query| true)
}

/// Outcomes of the queries that went the way of a pod's.
#[must_use]
pub fn pods<'a>(case: &Case<'a>) -> Vec<Outcome<'a>> {
    of(case, |query| query.vantage_kind.is_pod())
}

/// Outcomes of the queries of CoreDNS with hostNetwork.
#[must_use]
pub fn coredns_on_host<'a>(case: &Case<'a>) -> Vec<Outcome<'a>> {
    of(case, |query| query.vantage_kind == VantageKind::CorednsOnHost)
}

fn of<'a>(case: &Case<'a>, wanted: impl Fn(&Query) -> bool) -> Vec<Outcome<'a>> {
    case.queries
        .iter()
        .filter(|query| case.targets.contains(query.address.ip()) && wanted(query))
        .map(|query| Outcome::of(case, query))
        .collect()
}

/// Where such a vantage tells anything, no other decides.
#[must_use]
pub const fn decides_first(kind: VantageKind) -> bool {
    matches!(kind, VantageKind::Coredns | VantageKind::CorednsOnHost | VantageKind::Named)
}

/// The outcomes that decide: CoreDNS's own (with hostNetwork its path is the node's) and those of a vantage the user
/// named; where there are none, or none that tells anything, those of other pods and of Cilium's health endpoint. The
/// node's own never decide.
#[must_use]
pub fn decisive<'a>(case: &Case<'a>) -> Vec<Outcome<'a>> {
    let first = of(case, |query| decides_first(query.vantage_kind));
    if first.iter().any(|outcome| outcome.ended != Ended::Unknown) {
        return first;
    }
    let second = of(case, |query| matches!(query.vantage_kind, VantageKind::Pod | VantageKind::Health));
    let told = second.iter().any(|outcome| outcome.ended != Ended::Unknown);
    if told || first.is_empty() { second } else { first }
}

/// This outcome is one of those that decide.
#[must_use]
pub fn decides(case: &Case<'_>, outcome: &Outcome<'_>) -> bool {
    decisive(case).iter().any(|other| std::ptr::eq(other.query, outcome.query))
}
