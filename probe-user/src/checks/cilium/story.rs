//! Why Cilium sends away or drops what is meant for the node, told in a few sentences.

use std::net::IpAddr;

use crate::{
    checks::Case,
    facts::{Fact, Facts, HostRouting, Masquerade, RoutingMode, scope_name},
    predict::{cilium, node},
};

/// What became of the packets, for the part of the story after Cilium's route lookup.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Leaked,
    Dropped,
}

/// The story of an address that Cilium does not know; facts that are unknown are left out of it.
pub(super) fn unknown_address(case: &Case<'_>, address: IpAddr, end: End) -> String {
    let facts = case.facts;
    let mut sentences = vec![ignorance(facts, address)];
    sentences.extend(regression(facts));
    sentences.extend(way(facts, end));
    sentences.extend(exempt(facts, address, end));
    sentences.extend(counted(case, end));
    sentences.join(" ")
}

/// "Cilium 1.18.1 routes in BPF (...) and does not know 169.254.116.108 as its own: ..."
fn ignorance(facts: &Facts, address: IpAddr) -> String {
    let cilium = cilium::version(facts).map_or_else(|| "Cilium".to_owned(), |version| format!("Cilium {version}"));
    let routes = match cilium::host_routing(facts) {
        Ok((HostRouting::Bpf, _)) => format!("routes in BPF ({}) and ", settings(facts)),
        _ => String::new(),
    };
    format!("{cilium} {routes}does not know {address} as its own: {}.", reason(facts, address))
}

/// Who upgraded wants to read it here.
fn regression(facts: &Facts) -> Option<String> {
    let tunnel = facts.cilium.routing_mode.get() == Some(&RoutingMode::Tunnel);
    (tunnel && !cilium::version(facts)?.tunnel_passes_to_stack())
        .then(|| "Up to 1.16.4 tunnel mode passed such packets to the node.".to_owned())
}

/// Who has set up ip-masq-agent for this address thinks that it is taken care of.
fn exempt(facts: &Facts, address: IpAddr, end: End) -> Option<String> {
    let exempt = facts.cilium.not_masqueraded.get(&address).and_then(Fact::get) == Some(&true);
    (exempt && end == End::Leaked)
        .then(|| "ip-masq-agent keeps it from being masqueraded; that does not bring it back.".to_owned())
}

fn settings(facts: &Facts) -> String {
    let masquerade = facts.cilium.masquerade.get().map(|mode| match mode {
        Masquerade::Bpf => "masquerade BPF",
        Masquerade::Iptables => "masquerade iptables",
        Masquerade::Disabled => "no masquerade",
    });
    let routing = facts.cilium.routing_mode.get().map(|mode| match mode {
        RoutingMode::Native => "native routing",
        RoutingMode::Tunnel => "tunnel",
    });
    ["host routing BPF"].into_iter().chain(masquerade).chain(routing).collect::<Vec<_>>().join(", ")
}

/// Why it does not know it: where the node has it, beside what Cilium looks at; else what its map says.
fn reason(facts: &Facts, address: IpAddr) -> String {
    let max = cilium::scope_max(facts);
    let held = node::holders(facts, address).unwrap_or_default();
    if cilium::is_excluded(facts, address) {
        return "it is in exclude-local-address".to_owned();
    }
    if let Some(hidden) = held.first().filter(|_| held.iter().all(|at| at.scope > max)) {
        let (on, scope, number) = (&hidden.interface, scope_name(hidden.scope), hidden.scope);
        return format!("it is on {on} with scope {scope} ({number}), Cilium takes up to {max}");
    }
    if let (Some(at), Some(version)) = (held.first(), cilium::version(facts))
        && !held.iter().any(|at| cilium::learns(facts, &version, &at.interface))
    {
        return format!("it is on {}, and this release does not learn the addresses of that device", at.interface);
    }
    cilium::knows(facts, address).map_or_else(|missing| format!("unknown why, for want of {missing}"), |(_, how)| how)
}

/// What Cilium then does with the packet.
fn way(facts: &Facts, end: End) -> Option<String> {
    let devices = facts.cilium.devices.get();
    let named = devices.map(|all| all.join(", ")).unwrap_or_default();
    match end {
        End::Leaked if cilium::skips_fib(facts).is_ok_and(|(skips, _)| skips) => {
            let device = if named.is_empty() { String::new() } else { format!(" ({named})") };
            Some(format!("With one external device{device} it skips the route lookup and sends the packet out."))
        }
        End::Leaked => None,
        End::Dropped => {
            let lookup = "it asks the kernel's routes in BPF, which do not forward to a local address, and drops the \
                          packet: FIB lookup failed.";
            let because = match (devices.map(Vec::len), facts.cilium.endpoint_routes.get()) {
                (Some(many @ 2..), _) => format!("With {many} external devices ({named}) "),
                (_, Some(true)) => "With endpoint routes ".to_owned(),
                _ => return Some(format!("For the way to it {lookup}")),
            };
            Some(because + lookup)
        }
    }
}

/// What Cilium's own counters say of it: they were read before and after the queries.
fn counted(case: &Case<'_>, end: End) -> Option<String> {
    match end {
        End::Leaked => {
            let (before, after) = (case.facts.cilium.drops_before.get()?, case.facts.cilium.drops_after.get()?);
            (before == after).then(|| {
                "Cilium counts no drop for it, which is why `cilium monitor -t drop` shows nothing.".to_owned()
            })
        }
        End::Dropped => {
            let reason = case.traces.iter().find_map(|trace| trace.drop.as_ref()?.cilium_reason.as_ref())?;
            Some(format!("Cilium counts it under reason {}, as `cilium monitor -t drop` shows.", reason.code))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{Fate, HOST_DNS, Scene, hide, known},
        ended::Direction,
        facts::DropCount,
    };

    fn counts(packets: u64) -> Vec<DropCount> {
        vec![DropCount { reason: 169, direction: 2, packets }]
    }

    #[test]
    fn a_leak() {
        let scene = Scene::new().facts(|facts| {
            hide(facts);
            (facts.cilium.drops_before, facts.cilium.drops_after) = (known(counts(3)), known(counts(3)));
        });
        insta::assert_snapshot!(unknown_address(&scene.case(), HOST_DNS, End::Leaked));
    }

    #[test]
    fn what_changed_with_the_release_and_what_does_not_help() {
        let scene = Scene::new().facts(|facts| {
            hide(facts);
            facts.cilium.version = known("1.16.5".into());
            facts.cilium.routing_mode = known(RoutingMode::Tunnel);
            facts.cilium.not_masqueraded.insert(HOST_DNS, known(true));
        });
        insta::assert_snapshot!(unknown_address(&scene.case(), HOST_DNS, End::Leaked));
    }

    #[test]
    fn a_drop_between_two_devices() {
        let scene = Scene::new().facts(|facts| {
            hide(facts);
            facts.cilium.devices = known(vec!["eth0".into(), "eth1".into()]);
        });
        let scene = scene.coredns(Fate::Dropped("TC_INGRESS", Direction::Request, Some(169)));
        insta::assert_snapshot!(unknown_address(&scene.case(), HOST_DNS, End::Dropped));
    }

    #[test]
    fn nothing_known_is_nothing_claimed() {
        let scene = Scene::new().facts(|facts| *facts = Facts::default());
        insta::assert_snapshot!(unknown_address(&scene.case(), HOST_DNS, End::Leaked));
    }

    #[test]
    fn a_count_that_rose_meanwhile_is_not_denied() {
        let scene = Scene::new().facts(|facts| {
            hide(facts);
            (facts.cilium.drops_before, facts.cilium.drops_after) = (known(counts(3)), known(counts(4)));
        });
        assert!(!unknown_address(&scene.case(), HOST_DNS, End::Leaked).contains("no drop"));
    }
}
