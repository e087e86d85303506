//! JUDGE: the answer, as a pure function of what was gathered, asked and followed.

pub mod cause;
pub mod outcome;
mod summary;
pub mod vantage;

use std::net::IpAddr;

use crate::{
    checks::{Case, Finding, code::Code, remedy::is_talos},
    ended::{Direction, Ended},
    facts::PodRole,
    predict::{Deciding, node, predict, predict_on_host},
    report::{Prediction, Report, Status, Verdict},
    target::DNS_PORT,
};
use outcome::Outcome;

/// Judges by the pods' queries: a broken one fails, else one that cannot be told leaves it open, else it passes. Of
/// several broken ones the worst is told. What passes has a cause only where the server behind the datapath ails.
#[must_use]
pub fn judge(case: &Case<'_>, findings: &[Finding]) -> Verdict {
    let decisive = vantage::decisive(case);
    let Some(worst) = worst(case, &decisive) else {
        return Verdict {
            status: Status::Unknown,
            ended: None,
            direction: Direction::None,
            cause: Some(if summary::lacks_privilege(case) { Code::MissingPrivilege } else { Code::NoVantage }.id()),
            summary: summary::no_vantage(case),
        };
    };
    if worst.status() != Status::Pass
        && let Some(summary) = not_in_use(case).map(|asked| summary::not_in_use(case, &asked))
    {
        return Verdict {
            status: Status::Pass,
            ended: None,
            direction: Direction::None,
            cause: Some(Code::CorednsBypasses.id()),
            summary,
        };
    }
    let found = |code: &Code| findings.iter().any(|finding| finding.code == code.id());
    let root = cause::root(case, worst).filter(found);
    let cause = match worst.status() {
        Status::Fail => root.or_else(|| one_transport_broken(&decisive, worst)).or_else(|| cause::symptom(worst)),
        Status::Pass => [Code::UpstreamFailing, Code::Unanswered, Code::Slow].into_iter().find(found),
        Status::Unknown => unknown_because(case, worst).filter(found),
    };
    Verdict {
        status: worst.status(),
        ended: Some(worst.ended),
        direction: worst.direction,
        cause: cause.map(Code::id),
        summary: summary::of(case, &decisive, worst, cause),
    }
}

/// What configuration says of those whose queries decide. Where some decide from a pod and some from the node's own
/// network, the worse stands.
#[must_use]
pub fn prediction<'a>(case: &Case<'a>) -> &'a Prediction {
    let decisive = vantage::decisive(case);
    let predictions = decisive.iter().map(|outcome| case.prediction_for(outcome.query.vantage_kind));
    predictions.rev().max_by_key(|prediction| prediction.badness()).unwrap_or(case.prediction)
}

/// Whose queries decided in a report.
#[must_use]
pub fn deciding_in(report: &Report) -> Deciding {
    let (targets, facts) = (&report.target_sockets(), &report.facts);
    let case = Case {
        targets,
        facts,
        hooks: &report.hooks,
        queries: &report.queries,
        traces: &report.traces,
        events: report.events,
        prediction: &predict(facts, targets),
        prediction_on_host: &predict_on_host(facts, targets),
    };
    Deciding::of(vantage::decisive(&case).iter().map(|outcome| outcome.query.vantage_kind))
}

/// The outcome that is told: the worst status, then what says most of where the packet went, then an explained one,
/// then the first asked.
#[must_use]
pub fn worst<'a, 'b>(case: &Case<'_>, outcomes: &'b [Outcome<'a>]) -> Option<&'b Outcome<'a>> {
    outcomes.iter().rev().max_by_key(|outcome| (weight(outcome.ended), cause::root(case, outcome).is_some()))
}

const fn weight(ended: Ended) -> u8 {
    match ended {
        Ended::Leaked => 8,
        Ended::Dropped => 7,
        Ended::Lost => 6,
        Ended::PortUnreachable => 5,
        Ended::Malformed => 4,
        Ended::Unanswered => 3,
        Ended::Unknown => 2,
        Ended::Answered => 1,
    }
}

/// The other transport to the same address is fine, and no root says why this one is not.
fn one_transport_broken(outcomes: &[Outcome<'_>], worst: &Outcome<'_>) -> Option<Code> {
    let (same, other): (Vec<_>, Vec<_>) = outcomes
        .iter()
        .filter(|outcome| outcome.query.address == worst.query.address)
        .partition(|outcome| outcome.query.transport == worst.query.transport);
    let fine = |all: &[&Outcome<'_>]| !all.is_empty() && all.iter().all(|outcome| outcome.ended == Ended::Answered);
    (fine(&other) && same.iter().all(|outcome| outcome.status() == Status::Fail)).then_some(Code::OneTransportBroken)
}

/// The finding that says why nothing could be told.
fn unknown_because(case: &Case<'_>, worst: &Outcome<'_>) -> Option<Code> {
    let why = worst.why.as_deref().unwrap_or_default();
    if case.events.lost > 0 {
        Some(Code::EventsLost)
    } else if why.contains("namespace") {
        Some(Code::NamespaceUnreachable)
    } else if summary::lacks_privilege(case) {
        Some(Code::MissingPrivilege)
    } else if case.facts.kernel.btf.why().is_some() && case.hooks.iter().all(|hook| !hook.attached) {
        Some(Code::NoBtf)
    } else if case.hooks.iter().any(|hook| !hook.attached) {
        Some(Code::HookUnavailable)
    } else {
        None
    }
}

/// What CoreDNS on this node forwards to, where every one of them is known to ask somebody else than a target. A Corefile
/// that was read in part is not known: what is missing may say anything.
#[must_use]
pub fn bypassed(case: &Case<'_>) -> Option<Vec<String>> {
    let coredns = &case.facts.coredns;
    let corefiles = coredns.get().filter(|all| !all.is_empty() && coredns.notes().is_empty())?;
    let pods = case.facts.pods.get()?;
    let read = |name: &String| corefiles.iter().any(|file| &file.pod == name);
    if !pods.iter().filter(|pod| pod.role == PodRole::Coredns).all(|pod| read(&pod.name)) {
        return None;
    }
    let mut asked = Vec::new();
    for file in corefiles {
        if file.forwards_to.is_empty() {
            return None;
        }
        for server in file.forwards.iter().flat_map(|forward| &forward.to).chain(&file.forwards_to) {
            // A file that could not be resolved to its servers, or a name, may be anything.
            let (address, port) = server_address(server)?;
            // For a zone of its own too: then it is in use.
            if case.targets.contains(address) && port == case.targets.port {
                return None;
            }
        }
        asked.extend_from_slice(&file.forwards_to);
    }
    asked.sort();
    asked.dedup();
    Some(asked)
}

/// The address and port of a `forward` target: `1.1.1.1`, `1.1.1.1:53`, `[::1]:53`, `dns://1.1.1.1`, `tls://1.1.1.1`.
fn server_address(server: &str) -> Option<(IpAddr, u16)> {
    let (scheme, host) = server.split_once("://").unwrap_or(("dns", server));
    let host = host.split('%').next()?;
    if let Ok(socket) = host.parse::<std::net::SocketAddr>() {
        return Some((socket.ip(), socket.port()));
    }
    let port = if scheme == "tls" { 853 } else { DNS_PORT };
    host.trim_matches(['[', ']']).parse().ok().map(|address| (address, port))
}

/// Talos' forwarding to the node is switched off here: CoreDNS asks others, of no target is there more than the address,
/// and pods are not told to ask one. Another node-local DNS is asked by pods themselves, whatever CoreDNS does.
fn not_in_use(case: &Case<'_>) -> Option<Vec<String>> {
    let off = case.targets.sockets().all(|target| {
        is_talos(target.ip()) && (node::is_absent(case.facts, target.ip()) || node::nobody_listens(case.facts, target))
    });
    let told = case.facts.network.pod_resolv_conf.get().is_some_and(|conf| {
        conf.nameservers.iter().any(|server| server.parse().is_ok_and(|address| case.targets.contains(address)))
    });
    bypassed(case).filter(|_| off && !told)
}

/// No CoreDNS here asks a target, and no target could answer: a broken way to it hurts nobody.
#[must_use]
pub fn is_not_in_use(case: &Case<'_>) -> bool {
    not_in_use(case).is_some()
}

#[cfg(test)]
mod tests;
