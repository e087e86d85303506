//! Versions, settings, addresses: what a report says of them, as text under a name of its own. Two reports are then
//! compared name by name.

use std::collections::BTreeSet;

use super::Changed;
use crate::{
    facts::{Fact, Facts, NOT_LOOKED_FOR, PodRole, Transport, scope_name},
    predict::{
        node,
        what_if::{masquerade_name, routing_name},
    },
    report::Report,
    target::Targets,
};

/// Known, or why not.
type Value = Result<String, String>;

/// What is not what it was. What is known neither time is left out, and so is what one of them did not look for.
pub(super) fn changes(before: &Report, after: &Report) -> Vec<Changed> {
    let targets = common_targets(before, after);
    let (old, new) = (observed(before, &targets), observed(after, &targets));
    let pairs = old.into_iter().zip(new);
    pairs.filter_map(|((what, before), (_, after))| changed(what, before, after)).collect()
}

fn changed(what: String, before: Value, after: Value) -> Option<Changed> {
    let why = match (&before, &after) {
        (Ok(old), Ok(new)) if old == new => return None,
        (Err(_), Err(_)) => return None,
        (Err(why), _) | (_, Err(why)) if why == NOT_LOOKED_FOR => return None,
        (Ok(_), Ok(_)) => None,
        (Err(why), Ok(_)) | (Ok(_), Err(why)) => Some(why.clone()),
    };
    Some(Changed { what, before: before.ok(), after: after.ok(), why })
}

/// The targets of both, and of the one after where they have none in common.
fn common_targets(before: &Report, after: &Report) -> Targets {
    let mut targets = after.target_sockets();
    let old = before.target_sockets();
    if targets.addresses.iter().any(|&address| old.contains(address)) {
        targets.addresses.retain(|&address| old.contains(address));
    }
    targets
}

/// Always the same names in the same order, for the same targets.
fn observed(report: &Report, targets: &Targets) -> Vec<(String, Value)> {
    let facts = &report.facts;
    let mut all = vec![
        ("node.os".to_owned(), text(&facts.kernel.os)),
        ("node.kernel".to_owned(), text(&facts.kernel.release)),
        ("node.lockdown".to_owned(), text(&facts.kernel.lockdown)),
    ];
    for target in targets.sockets() {
        let address = target.ip();
        all.push((format!("address.{address}"), place(facts, target.ip())));
        all.push((
            format!("local-route.{address}"),
            of(&facts.network.routes, |_| {
                (if node::has_local_route(facts, address) == Some(true) { "there" } else { "missing" }).to_owned()
            }),
        ));
        all.push((format!("listeners.{target}"), of(&facts.listeners, |_| listeners(facts, target))));
    }
    all.push(("ip-forward".to_owned(), of(&facts.network.ip_forward, ToString::to_string)));
    all.push(("rp-filter.pods".to_owned(), pods_rp_filter(facts)));
    all.push((
        "rules".to_owned(),
        of(&facts.network.rules, |rules| {
            rules.iter().map(|rule| format!("{}: {}", rule.priority, rule.text)).collect::<Vec<_>>().join("; ")
        }),
    ));
    all.push(("firewall.dropping-chains".to_owned(), dropping_chains(facts)));
    all.extend(cilium(facts));
    for &address in &targets.addresses {
        let entry = facts.cilium.lxc.get(&address);
        all.push((
            format!("cilium.knows.{address}"),
            optional(entry, |entry| {
                (if entry.is_some_and(|entry| entry.is_host()) { "as the host's" } else { "no" }).to_owned()
            }),
        ));
        let exempt = facts.cilium.not_masqueraded.get(&address);
        all.push((format!("cilium.masquerades.{address}"), optional(exempt, |exempt| (!exempt).to_string())));
    }
    all.push(("coredns.network".to_owned(), coredns_network(facts)));
    all.push((
        "coredns.forwards-to".to_owned(),
        of(&facts.coredns, |files| {
            let servers: BTreeSet<_> = files.iter().flat_map(|file| &file.forwards_to).cloned().collect();
            if files.is_empty() { "no CoreDNS here".to_owned() } else { Vec::from_iter(servers).join(", ") }
        }),
    ));
    all
}

fn cilium(facts: &Facts) -> Vec<(String, Value)> {
    let agent = &facts.cilium;
    let all = [
        ("version", text(&agent.version)),
        ("state", text(&agent.state)),
        ("host-routing", of(&agent.host_routing, |mode| mode.as_str().to_lowercase())),
        ("legacy-routing-configured", of(&agent.legacy_routing_configured, ToString::to_string)),
        ("ipv4", of(&agent.ipv4, ToString::to_string)),
        ("ipv6", of(&agent.ipv6, ToString::to_string)),
        ("masquerade", of(&agent.masquerade, |mode| masquerade_name(*mode).to_owned())),
        ("routing-mode", of(&agent.routing_mode, |mode| routing_name(*mode).to_owned())),
        ("tunnel-protocol", text(&agent.tunnel_protocol)),
        ("devices", of(&agent.devices, |devices| devices.join(", "))),
        ("direct-routing-device", text(&agent.direct_routing_device)),
        ("endpoint-routes", of(&agent.endpoint_routes, ToString::to_string)),
        ("kube-proxy-replacement", text(&agent.kube_proxy_replacement)),
        ("ipsec", of(&agent.ipsec, ToString::to_string)),
        ("local-max-addr-scope", of(&agent.address_scope_max, ToString::to_string)),
        ("exclude-local-address", of(&agent.exclude_local_addresses, |prefixes| prefixes.join(", "))),
        ("ip-masq-agent", of(&agent.ip_masq_agent, ToString::to_string)),
        ("one-device-shortcut", of(&agent.skip_fib, ToString::to_string)),
        ("attach-mode", text(&agent.attach_mode)),
        ("datapath-mode", text(&agent.datapath_mode)),
        ("local-redirect-policy", of(&agent.local_redirect_policy, ToString::to_string)),
        ("host-firewall", of(&agent.host_firewall, ToString::to_string)),
    ];
    all.into_iter().map(|(name, value)| (format!("cilium.{name}"), value)).collect()
}

/// Whether CoreDNS has the node's network or one of its own.
fn coredns_network(facts: &Facts) -> Value {
    of(&facts.pods, |pods| {
        let coredns = pods.iter().filter(|pod| pod.role == PodRole::Coredns);
        let kinds: BTreeSet<_> =
            coredns.map(|pod| if pod.host_network { "the node's (hostNetwork)" } else { "a pod's own" }).collect();
        if kinds.is_empty() { "no CoreDNS here".to_owned() } else { Vec::from_iter(kinds).join(", ") }
    })
}

fn of<T>(fact: &Fact<T>, say: impl FnOnce(&T) -> String) -> Value {
    match fact {
        Fact::Known { value, .. } => Ok(say(value)),
        Fact::Unavailable { why, .. } => Err(why.clone()),
    }
}

fn text(fact: &Fact<String>) -> Value {
    of(fact, |value| value.trim().to_owned())
}

fn optional<T>(fact: Option<&Fact<T>>, say: impl FnOnce(&T) -> String) -> Value {
    fact.map_or_else(|| Err(NOT_LOOKED_FOR.to_owned()), |fact| of(fact, say))
}

/// `lo, scope host (254)`.
fn place(facts: &Facts, address: std::net::IpAddr) -> Value {
    of(&facts.network.addresses, |_| {
        let held = node::holders(facts, address).unwrap_or_default();
        let places: Vec<_> =
            held.iter().map(|at| format!("{}, scope {} ({})", at.interface, scope_name(at.scope), at.scope)).collect();
        if places.is_empty() { "absent".to_owned() } else { places.join("; ") }
    })
}

fn listeners(facts: &Facts, target: std::net::SocketAddr) -> String {
    let there = |transport| node::listens(facts, target, transport) == Some(true);
    let all: Vec<_> = [(Transport::Udp, "udp"), (Transport::Tcp, "tcp")]
        .into_iter()
        .filter_map(|(transport, name)| there(transport).then_some(name))
        .collect();
    if all.is_empty() { "nobody".to_owned() } else { all.join(", ") }
}

/// The pods' devices have other names every time: only whether one of them filters strictly is told.
fn pods_rp_filter(facts: &Facts) -> Value {
    of(&facts.network.rp_filter, |filters| {
        let pods = facts.pods.get().into_iter().flatten();
        let strict = pods.filter_map(|pod| pod.interface.as_ref()).any(|name| filters.get(name) == Some(&1));
        (if strict { "strict" } else { "not strict" }).to_owned()
    })
}

fn dropping_chains(facts: &Facts) -> Value {
    of(&facts.firewall, |firewall| {
        let chains: BTreeSet<_> = firewall
            .chains
            .iter()
            .filter(|chain| chain.drops_by_default || chain.dropping_rules > 0)
            .map(|chain| format!("{} {} {}", chain.family, chain.table, chain.chain))
            .collect();
        if chains.is_empty() { "none".to_owned() } else { Vec::from_iter(chains).join(", ") }
    })
}
