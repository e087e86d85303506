//! The verdict in one sentence, for a reader who has one second.

use super::{outcome::Outcome, vantage};
use crate::{
    checks::{Case, code::Code, remedy},
    ended::{Direction, Ended},
    facts::{HostRouting, Transport, scope_name},
    predict::{cilium, node},
    query::VantageKind,
    report::Status,
};

/// Cilium's `DROP_TTL_EXCEEDED`.
const TTL_EXCEEDED: u8 = 196;

pub(super) fn no_vantage(case: &Case<'_>) -> String {
    let node_fine = vantage::all(case).iter().any(|outcome| outcome.ended == Ended::Answered);
    let node = node_name(case);
    let but = if node_fine { "; the node itself is answered, which says nothing about pods" } else { "" };
    let none = if lacks_privilege(case) {
        format!("The probe lacks privileges: no pod on {node}")
    } else {
        format!("No pod on {node}")
    };
    format!("{none} could be asked from, so it cannot be told whether pods reach {}{but}.", targets(case))
}

pub(super) fn lacks_privilege(case: &Case<'_>) -> bool {
    case.facts.kernel.missing_capabilities.get().is_some_and(|missing| !missing.is_empty())
}

pub(super) fn not_in_use(case: &Case<'_>, asked: &[String]) -> String {
    let (node, asked) = (node_name(case), asked.join(", "));
    format!("CoreDNS on {node} does not use {}, where nothing listens: it forwards to {asked}.", targets(case))
}

pub(super) fn of(case: &Case<'_>, decisive: &[Outcome<'_>], worst: &Outcome<'_>, cause: Option<Code>) -> String {
    match worst.status() {
        Status::Pass => pass(case, decisive),
        Status::Fail => fail(case, decisive, worst, cause),
        Status::Unknown => unknown(case, worst),
    }
}

fn node_name(case: &Case<'_>) -> String {
    case.facts.kernel.node_name.get().map_or_else(|| "this node".into(), |name| name.trim().to_owned())
}

fn targets(case: &Case<'_>) -> String {
    let all: Vec<String> = case.targets.sockets().map(|socket| socket.to_string()).collect();
    let what = if case.targets.addresses.iter().any(|a| remedy::is_talos(*a)) { "host DNS" } else { "the node's DNS" };
    format!("{what} {}", all.join(" and "))
}

/// Who asked; `pods` is that word as it stands at this place of the sentence.
fn asker(case: &Case<'_>, kind: VantageKind, name: &str, pods: &str) -> String {
    let node = node_name(case);
    match kind {
        VantageKind::CorednsOnHost => format!("CoreDNS (hostNetwork) on {node}"),
        VantageKind::Named => format!("{name} on {node}"),
        _ => format!("{pods} on {node}"),
    }
}

/// The verb behind [`asker`].
const fn reach(kind: VantageKind) -> &'static str {
    match kind {
        VantageKind::CorednsOnHost | VantageKind::Named => "reaches",
        _ => "reach",
    }
}

fn fail(case: &Case<'_>, decisive: &[Outcome<'_>], worst: &Outcome<'_>, cause: Option<Code>) -> String {
    let query = worst.query;
    let who = asker(case, query.vantage_kind, &query.vantage, "Pods");
    let talos = remedy::is_talos(query.address.ip());
    let what = format!("{} {}", if talos { "host DNS" } else { "the node's DNS" }, query.address);
    // Only part of it is broken: say which.
    let other_works = |f: &dyn Fn(&Outcome<'_>) -> bool| decisive.iter().any(|o| f(o) && o.ended == Ended::Answered);
    let transport_only = other_works(&|o| o.query.address == query.address && o.query.transport != query.transport)
        && !other_works(&|o| o.query.address == query.address && o.query.transport == query.transport);
    let v4 = query.address.is_ipv4();
    let family_only = other_works(&|o| o.query.address.is_ipv4() != v4)
        && !decisive.iter().any(|o| (o.query.address.is_ipv4() == v4) == (o.ended == Ended::Answered));
    let over = match (transport_only, query.transport) {
        (true, Transport::Udp) => " over UDP (TCP works)",
        (true, Transport::Tcp) => " over TCP (UDP works)",
        (false, _) if family_only && v4 => " (IPv6 works)",
        (false, _) if family_only => " (IPv4 works)",
        (false, _) => "",
    };
    format!("{who} cannot reach {what}{over}. {}", story(worst, cause))
}

fn story(worst: &Outcome<'_>, cause: Option<Code>) -> String {
    let at = worst.drop().map(|drop| format!(" at {}", drop.r#where)).unwrap_or_default();
    match (worst.ended, cause) {
        (Ended::Leaked, _) => leak_story(worst, cause),
        (Ended::Dropped, Some(Code::UnknownAddressDropped)) => {
            format!(
                "Cilium drops their queries{at}: its route lookup fails for an address it does not know as the node's."
            )
        }
        (Ended::Dropped, Some(Code::PolicyDrop)) => format!("A network policy drops their queries{at}."),
        (Ended::Dropped, Some(Code::NodeFirewallBlocks)) => {
            format!("The node's firewall drops the {}{at}.", half(worst))
        }
        (Ended::Dropped | Ended::Lost, Some(Code::RpFilterStrict)) => {
            format!("Strict reverse path filtering drops the {}{at}.", half(worst))
        }
        (Ended::Dropped, Some(Code::ReplyDropped))
            if worst.cilium_reason().is_some_and(|reason| reason.code == TTL_EXCEEDED) =>
        {
            format!("The answer is dropped{at}: its TTL is used up (Cilium reason {TTL_EXCEEDED}).")
        }
        (Ended::Dropped, _) => {
            let reason = worst.drop_reason().unwrap_or("unknown");
            let cilium = worst.cilium_reason();
            let cilium = cilium.map(|c| format!(", Cilium reason {} \"{}\"", c.code, c.text)).unwrap_or_default();
            format!("The {} is dropped{at} (kernel reason {reason}{cilium}).", half(worst))
        }
        (Ended::Lost, _) => {
            let last =
                worst.trace.and_then(|trace| trace.lost.as_ref()).map_or("its first hop", |l| l.last_hop.as_str());
            format!("The {} was last seen at {last} and never again.", half(worst))
        }
        (Ended::PortUnreachable, Some(Code::AddressAbsent)) => "The address is on no interface of the node.".into(),
        (Ended::PortUnreachable, Some(Code::NodeFirewallBlocks)) => {
            "Somebody listens there, but the node's firewall rejects the query.".into()
        }
        (Ended::PortUnreachable, Some(Code::NobodyListens)) => "Nobody listens there.".into(),
        (Ended::PortUnreachable, Some(Code::ListenerIncomplete)) => {
            format!("Nobody listens there over {}.", upper(worst.query.transport))
        }
        (Ended::PortUnreachable, _) => format!("The node refuses the query over {}.", upper(worst.query.transport)),
        (Ended::Unanswered, _) => {
            "The query reaches the server's socket, but the server does not answer in time.".into()
        }
        (Ended::Malformed, _) => "What comes back is not a DNS message.".into(),
        (Ended::Answered | Ended::Unknown, _) => String::new(),
    }
}

fn leak_story(worst: &Outcome<'_>, cause: Option<Code>) -> String {
    let leak = worst.trace.and_then(|trace| trace.leak.as_ref());
    let through = leak.map(|leak| format!(" through {}", leak.interface)).unwrap_or_default();
    let own = worst.query.source.map(|source| source.ip());
    let source = match leak.and_then(|leak| leak.r#as) {
        Some(seen) if Some(seen.ip()) == own => ", with the pod's own address".to_owned(),
        Some(seen) => format!(", masqueraded as {}", seen.ip()),
        None => String::new(),
    };
    let came_back = worst.trace.is_some_and(|trace| trace.hops.iter().any(|hop| hop.direction == Direction::Reply));
    // A leak ends the query at once: that nobody out there would answer it cannot be claimed.
    let then = match (worst.direction, worst.query.rcode.is_some() || came_back) {
        (Direction::Reply, _) => " instead of reaching the pod",
        (_, true) => ", and a server outside answers in the node's place",
        (_, false) if source.is_empty() => " instead of reaching the node's own server",
        (_, false) => ", instead of reaching the node's own server",
    };
    let first = if cause == Some(Code::AddressAbsent) { "The address is not on the node: their" } else { "Their" };
    let what = if worst.direction == Direction::Reply { "answers leave" } else { "queries leave" };
    format!("{first} {what} the node{through}{source}{then}.")
}

const fn half(worst: &Outcome<'_>) -> &'static str {
    match worst.direction {
        Direction::Reply => "answer",
        Direction::Request | Direction::None => "query",
    }
}

const fn upper(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "UDP",
        Transport::Tcp => "TCP",
    }
}

fn unknown(case: &Case<'_>, worst: &Outcome<'_>) -> String {
    let who = asker(case, worst.query.vantage_kind, &worst.query.vantage, "pods");
    let why = worst.why.as_deref().unwrap_or("the query's end was not seen");
    let why = why.trim_end_matches('.');
    let prediction = case.prediction_for(worst.query.vantage_kind);
    let predicted = match (prediction.ended, prediction.cause.as_deref()) {
        (Some(ended), Some(cause)) => format!(" Configuration alone says: {ended} ({cause})."),
        (Some(ended), None) => format!(" Configuration alone says: {ended}."),
        _ => String::new(),
    };
    let reach = reach(worst.query.vantage_kind);
    format!("It cannot be told whether {who} {reach} {}: {why}.{predicted}", targets(case))
}

fn pass(case: &Case<'_>, decisive: &[Outcome<'_>]) -> String {
    let kind = decisive.first().map_or(VantageKind::Pod, |outcome| outcome.query.vantage_kind);
    let name = decisive.first().map_or("", |outcome| outcome.query.vantage.as_str());
    let who = asker(case, kind, name, "Pods");
    let reach = reach(kind);
    let has = |transport| decisive.iter().any(|outcome| outcome.query.transport == transport);
    let over = match (has(Transport::Udp), has(Transport::Tcp)) {
        (true, false) => "UDP",
        (false, true) => "TCP",
        _ => "UDP and TCP",
    };
    let p50 = median(decisive).map(|us| format!(" (p50 {})", milliseconds(us))).unwrap_or_default();
    let asked: Vec<std::net::SocketAddr> =
        case.targets.sockets().filter(|t| decisive.iter().any(|o| o.query.address == *t)).collect();
    let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
    let what = if case.targets.addresses.iter().any(|a| remedy::is_talos(*a)) { "host DNS" } else { "the node's DNS" };
    format!("{who} {reach} {what} {} over {over}{p50}{}.", asked.join(" and "), through(case, decisive))
}

/// ", through Cilium 1.18.1 with BPF host routing: ..."
fn through(case: &Case<'_>, decisive: &[Outcome<'_>]) -> String {
    let pods = decisive.iter().any(|outcome| outcome.query.vantage_kind.is_pod());
    let (Some(version), true) = (cilium::version(case.facts), pods) else {
        return String::new();
    };
    let Ok((routing, _)) = cilium::host_routing(case.facts) else {
        return format!(", through Cilium {version}");
    };
    let address = decisive.first().map(|outcome| outcome.query.address.ip());
    let known = address.and_then(|address| cilium::knows(case.facts, address).ok()).map(|(known, _)| known);
    let at = address
        .and_then(|address| node::holders(case.facts, address)?.first().copied())
        .map(|held| format!(" ({}, scope {})", held.interface, scope_name(held.scope)))
        .unwrap_or_default();
    match (routing, known) {
        (HostRouting::Legacy, _) => format!(", through Cilium {version} with legacy host routing"),
        (HostRouting::Bpf, Some(true)) => {
            format!(
                ", through Cilium {version} with BPF host routing: the address is known to Cilium as the host's{at}"
            )
        }
        (HostRouting::Bpf, _) => format!(", through Cilium {version} with BPF host routing"),
    }
}

fn median(outcomes: &[Outcome<'_>]) -> Option<u64> {
    let mut times: Vec<u64> = outcomes.iter().filter_map(|outcome| outcome.query.rtt_us).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// 400 µs is "0.4 ms", 1 504 200 µs is "1.5 s".
fn milliseconds(us: u64) -> String {
    match us {
        0..10_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        10_000..1_000_000 => format!("{} ms", us / 1000),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}
