//! From a symptom to its root. Each root is claimed only on evidence: the kernel's or Cilium's reason for a drop, or a
//! fact that by itself explains where the packet went.

use std::net::SocketAddr;

use super::{outcome::Outcome, vantage};
use crate::{
    checks::{Case, code::Code},
    ended::{Direction, Ended},
    facts::HostRouting,
    predict::{cilium, node},
    trace::cilium_reasons::NO_FIB,
};

/// Cilium's drop reasons (pkg/monitor/api/drop.go) that are a network policy's doing.
const POLICY_REASONS: [u8; 3] = [133, 181, 189];

/// The root that explains the outcome, where one does.
#[must_use]
pub fn root(case: &Case<'_>, outcome: &Outcome<'_>) -> Option<Code> {
    match outcome.ended {
        Ended::Leaked if outcome.direction != Direction::Reply => leaked(case, outcome.query.address),
        Ended::Dropped => dropped(case, outcome),
        Ended::PortUnreachable => refused(case, outcome),
        Ended::Lost if outcome.direction == Direction::Request => unexplained_request(case, outcome),
        _ => None,
    }
}

/// The code of what was seen, root or not.
#[must_use]
pub fn symptom(outcome: &Outcome<'_>) -> Option<Code> {
    Some(match (outcome.ended, outcome.direction) {
        (Ended::Answered | Ended::Unknown, _) => return None,
        (Ended::Leaked, _) => Code::QueryLeaked,
        (Ended::Dropped, Direction::Reply) => Code::ReplyDropped,
        (Ended::Dropped, _) => Code::QueryDropped,
        (Ended::Lost, Direction::Reply) => Code::ReplyLost,
        (Ended::Lost, _) => Code::QueryLost,
        (Ended::PortUnreachable, _) => Code::PortUnreachable,
        (Ended::Unanswered, _) => Code::Unanswered,
        (Ended::Malformed, _) => Code::MalformedAnswer,
    })
}

fn leaked(case: &Case<'_>, target: SocketAddr) -> Option<Code> {
    let (facts, address) = (case.facts, target.ip());
    if node::is_absent(facts, address) {
        return Some(Code::AddressAbsent);
    }
    if node::has_local_route(facts, address) == Some(false) {
        return Some(Code::LocalRouteMissing);
    }
    let unknown_to_cilium = matches!(cilium::knows(facts, address), Ok((false, _)));
    let routes_in_bpf = !matches!(cilium::host_routing(facts), Ok((HostRouting::Legacy, _)));
    (cilium::is_here(facts) == Some(true) && unknown_to_cilium && routes_in_bpf).then_some(Code::UnknownAddressLeaks)
}

fn dropped(case: &Case<'_>, outcome: &Outcome<'_>) -> Option<Code> {
    let drop = outcome.drop()?;
    let cilium_reason = outcome.cilium_reason().map(|reason| reason.code);
    let known = || matches!(cilium::knows(case.facts, outcome.query.address.ip()), Ok((true, _)));
    match (drop.reason.as_str(), cilium_reason) {
        ("IP_RPFILTER", _) => Some(Code::RpFilterStrict),
        ("NETFILTER_DROP", _) => Some(Code::NodeFirewallBlocks),
        (_, Some(reason)) if POLICY_REASONS.contains(&reason) => Some(Code::PolicyDrop),
        (_, Some(NO_FIB)) if outcome.direction != Direction::Reply && !known() => Some(Code::UnknownAddressDropped),
        // A tc program's drop whose reason Cilium did not tell, exactly where configuration says that it drops.
        ("TC_INGRESS", None) if predicts(case, outcome, Code::UnknownAddressDropped) => {
            Some(Code::UnknownAddressDropped)
        }
        _ if outcome.direction == Direction::Request => unexplained_request(case, outcome),
        _ => None,
    }
}

fn predicts(case: &Case<'_>, outcome: &Outcome<'_>, code: Code) -> bool {
    case.prediction_of(outcome.query).cause.as_deref() == Some(code.id().as_str())
}

/// A request that vanished, or that was freed for a reason which says nothing (kernels before 5.18 give none).
fn unexplained_request(case: &Case<'_>, outcome: &Outcome<'_>) -> Option<Code> {
    let unnamed = outcome.drop_reason().is_none_or(|reason| matches!(reason, "NOT_SPECIFIED" | "UNKNOWN"));
    (unnamed && strict_at(case, outcome).is_some()).then_some(Code::RpFilterStrict)
}

/// The pod's device, where its rp_filter is strict. IPv6 has no such filter.
#[must_use]
pub fn strict_at(case: &Case<'_>, outcome: &Outcome<'_>) -> Option<String> {
    let filters = case.facts.network.rp_filter.get().filter(|_| outcome.query.address.is_ipv4())?;
    let entered = outcome.trace?.hops.iter().find_map(|hop| hop.interface.as_deref())?;
    (filters.get(entered) == Some(&1) && entered != "lo").then(|| entered.to_owned())
}

fn refused(case: &Case<'_>, outcome: &Outcome<'_>) -> Option<Code> {
    let (facts, target, transport) = (case.facts, outcome.query.address, outcome.query.transport);
    match node::listens(facts, target, transport) {
        Some(false) if node::is_absent(facts, target.ip()) => Some(Code::AddressAbsent),
        Some(false) if node::nobody_listens(facts, target) && !any_answered(case, target) => Some(Code::NobodyListens),
        Some(false) => Some(Code::ListenerIncomplete),
        // Somebody listens and yet it was refused: a rule that rejects.
        Some(true) => firewall_may_reject(case).then_some(Code::NodeFirewallBlocks),
        None if any_answered(case, target) => Some(Code::ListenerIncomplete),
        None => (!firewall_may_reject(case)).then_some(Code::NobodyListens),
    }
}

/// Another query to the same address got its answer from the node.
fn any_answered(case: &Case<'_>, target: SocketAddr) -> bool {
    vantage::all(case).iter().any(|other| other.query.address == target && other.ended == Ended::Answered)
}

fn firewall_may_reject(case: &Case<'_>) -> bool {
    case.facts.firewall.get().is_some_and(|firewall| {
        firewall
            .chains
            .iter()
            .any(|chain| matches!(chain.hook.as_str(), "prerouting" | "input" | "ingress") && chain.rejecting_rules > 0)
    })
}
