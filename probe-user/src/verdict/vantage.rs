//! Whose queries decide.

use std::net::IpAddr;

use super::{cause, outcome::Outcome};
use crate::{
    checks::{Case, code::Code},
    ended::Ended,
    query::{Query, VantageKind},
    report::Status,
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
/// named; where there are none, those of other pods and of Cilium's health endpoint. The node's own never decide.
///
/// Where CoreDNS was asked from and nothing can be told, that others fail counts; that they get through does not: a
/// network policy may be for CoreDNS alone.
#[must_use]
pub fn decisive<'a>(case: &Case<'a>) -> Vec<Outcome<'a>> {
    let first = askable(case, of(case, |query| decides_first(query.vantage_kind)));
    let second = || askable(case, others(case));
    let told = |outcomes: &[Outcome<'_>]| outcomes.iter().any(|outcome| outcome.ended != Ended::Unknown);
    let outcomes = if first.is_empty() {
        second()
    } else if told(&first) {
        first
    } else {
        let second = second();
        let fails = second.iter().any(|outcome| outcome.status() == Status::Fail);
        let sent = first.iter().any(|outcome| was_sent(outcome.query));
        if fails || (!sent && told(&second)) { second } else { first }
    };
    without_slow_names(outcomes)
}

/// Other pods and the health endpoint. A network policy for some pod says nothing of the way of others, where those tell.
fn others<'a>(case: &Case<'a>) -> Vec<Outcome<'a>> {
    let mut all = of(case, |query| matches!(query.vantage_kind, VantageKind::Pod | VantageKind::Health));
    let health = |outcome: &Outcome<'_>| outcome.query.vantage_kind == VantageKind::Health;
    if all.iter().any(|outcome| health(outcome) && outcome.ended != Ended::Unknown) {
        all.retain(|outcome| health(outcome) || cause::root(case, outcome) != Some(Code::PolicyDrop));
    }
    all
}

/// Leaves out what pods that have no address of the family could not send, if there is something else.
fn askable<'a>(case: &Case<'a>, mut outcomes: Vec<Outcome<'a>>) -> Vec<Outcome<'a>> {
    if outcomes.iter().any(|outcome| !lacks_family(case, outcome)) {
        outcomes.retain(|outcome| !lacks_family(case, outcome));
    }
    outcomes
}

/// Nothing could be sent, as the pod is known to have no address of that family beyond the link.
#[must_use]
pub fn lacks_family(case: &Case<'_>, outcome: &Outcome<'_>) -> bool {
    let query = outcome.query;
    let of_family = |address: &IpAddr| match address {
        IpAddr::V4(_) => query.address.is_ipv4(),
        IpAddr::V6(ip) => query.address.is_ipv6() && !ip.is_unicast_link_local(),
    };
    let pods = case.facts.pods.get().map_or(&[][..], Vec::as_slice);
    let pod = pods.iter().find(|pod| pod.name == query.vantage && !pod.addresses.is_empty());
    outcome.ended == Ended::Unknown && !was_sent(query) && pod.is_some_and(|pod| !pod.addresses.iter().any(of_family))
}

/// A packet left the asking socket, as far as is known. Before it is connected a TCP socket has a port and no address.
fn was_sent(query: &Query) -> bool {
    query.id != 0 || query.source.is_some_and(|source| !source.ip().is_unspecified())
}

/// Leaves out what the server was silent about, where it answered another question of the same vantage: its upstreams are
/// slow for a name, and the way there is fine.
fn without_slow_names(mut outcomes: Vec<Outcome<'_>>) -> Vec<Outcome<'_>> {
    let way = |query: &Query| (query.vantage.clone(), query.address, query.transport);
    let answered: Vec<_> = outcomes.iter().filter(|o| o.ended == Ended::Answered).map(|o| way(o.query)).collect();
    outcomes.retain(|outcome| outcome.ended != Ended::Unanswered || !answered.contains(&way(outcome.query)));
    outcomes
}
