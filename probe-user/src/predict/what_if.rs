//! What the model says after a change that nobody has made yet: the change is made to a copy of the facts, what Cilium
//! would derive anew from it (its map of endpoints, its compiled shortcut, its host routing) is forgotten, and the
//! prediction is made again.

mod parse;

use std::net::IpAddr;

use super::{Deciding, cilium, node, predict_for};
use crate::{
    ended::Direction,
    facts::{
        Cilium, Fact, Facts, HostRouting, InterfaceAddress, Listener, Masquerade, Route, RoutingMode, Transport,
        replaces_kube_proxy, scope_name,
    },
    report::{Prediction, Status},
    target::Targets,
};

pub use parse::{Error, KEYS};

/// What a fact's source is where the user, or another report, gave it.
const SUPPOSED: &str = "supposed";

/// One change to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    CiliumVersion(String),
    /// `enable-host-legacy-routing`, as it is set: BPF may still fall back.
    HostRouting(HostRouting),
    Masquerade(Masquerade),
    RoutingMode(RoutingMode),
    /// Cilium's external devices.
    Devices(Vec<String>),
    EndpointRoutes(bool),
    KubeProxyReplacement(bool),
    /// Encryption by IPsec.
    Ipsec(bool),
    /// `local-max-addr-scope`.
    AddressScopeMax(u8),
    /// `exclude-local-address`.
    ExcludeLocalAddress(Vec<String>),
    /// Scope of the targets on `lo`; none: they are not there.
    LoScope(Option<u8>),
    /// Talos' `forwardKubeDNSToHost`.
    Forward(bool),
    /// The node's addresses and its routes to them, as another report has them.
    Addresses(Vec<InterfaceAddress>, Vec<Route>),
}

impl Change {
    /// The key, as the user types it and as the agent's setting is called.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::CiliumVersion(_) => "cilium-version",
            Self::HostRouting(_) => "host-routing",
            Self::Masquerade(_) => "masquerade",
            Self::RoutingMode(_) => "routing-mode",
            Self::Devices(_) => "devices",
            Self::EndpointRoutes(_) => "endpoint-routes",
            Self::KubeProxyReplacement(_) => "kube-proxy-replacement",
            Self::Ipsec(_) => "ipsec",
            Self::AddressScopeMax(_) => "local-max-addr-scope",
            Self::ExcludeLocalAddress(_) => "exclude-local-address",
            Self::LoScope(_) => "lo-scope",
            Self::Forward(_) => "forward",
            Self::Addresses(..) => "addresses",
        }
    }

    /// The value, as the user types it.
    #[must_use]
    pub fn value(&self) -> String {
        match self {
            Self::CiliumVersion(version) => version.clone(),
            Self::HostRouting(mode) => mode.as_str().to_lowercase(),
            Self::Masquerade(mode) => masquerade_name(*mode).to_owned(),
            Self::RoutingMode(mode) => routing_name(*mode).to_owned(),
            Self::Devices(list) | Self::ExcludeLocalAddress(list) => list.join(","),
            Self::EndpointRoutes(on) | Self::KubeProxyReplacement(on) | Self::Ipsec(on) | Self::Forward(on) => {
                on.to_string()
            }
            Self::AddressScopeMax(max) => max.to_string(),
            Self::LoScope(scope) => scope.map_or_else(|| "absent".to_owned(), scope_name),
            Self::Addresses(addresses, _) => format!("{} addresses", addresses.len()),
        }
    }

    /// It takes effect with a restart of Cilium's agent, which then reads all of its settings anew.
    const fn restarts_the_agent(&self) -> bool {
        !matches!(self, Self::LoScope(_) | Self::Forward(_) | Self::Addresses(..))
    }

    /// Makes the change.
    fn apply(&self, facts: &mut Facts, targets: &Targets) {
        let agent = &mut facts.cilium;
        match self {
            Self::CiliumVersion(version) => {
                agent.version = supposed(version.clone());
                forget_what_is_compiled(facts);
            }
            Self::HostRouting(mode) => {
                agent.legacy_routing_configured = supposed(*mode == HostRouting::Legacy);
                route_anew(facts);
            }
            Self::Masquerade(mode) => {
                agent.masquerade = supposed(*mode);
                route_anew(facts);
            }
            Self::KubeProxyReplacement(on) => {
                agent.kube_proxy_replacement = supposed(if *on { "True" } else { "False" }.into());
                route_anew(facts);
            }
            Self::Ipsec(on) => {
                agent.ipsec = supposed(*on);
                route_anew(facts);
            }
            Self::RoutingMode(mode) => agent.routing_mode = supposed(*mode),
            Self::Devices(devices) => {
                agent.devices = supposed(devices.clone());
                agent.direct_routing_device = supposed(devices.first().cloned().unwrap_or_default());
                forget_what_is_compiled(facts);
            }
            Self::EndpointRoutes(on) => {
                agent.endpoint_routes = supposed(*on);
                forget_what_is_compiled(facts);
            }
            Self::AddressScopeMax(max) => {
                agent.address_scope_max = supposed(*max);
                forget_what_is_compiled(facts);
            }
            Self::ExcludeLocalAddress(prefixes) => {
                agent.exclude_local_addresses = supposed(prefixes.clone());
                forget_what_is_compiled(facts);
            }
            Self::LoScope(scope) => {
                for &address in &targets.addresses {
                    put_on_lo(facts, address, *scope);
                }
                forget_what_is_compiled(facts);
            }
            Self::Addresses(addresses, routes) => {
                facts.network.addresses = supposed(addresses.clone());
                facts.network.routes = supposed(routes.clone());
                forget_what_is_compiled(facts);
            }
            Self::Forward(true) => serve(facts, targets),
            // Nothing to change: what follows is in `after`.
            Self::Forward(false) => {}
        }
    }
}

/// The prediction with these changes made, in their order. Who decides stays.
#[must_use]
pub fn after(facts: &Facts, targets: &Targets, deciding: Deciding, changes: &[Change]) -> Prediction {
    if changes.iter().rev().find_map(|change| if let Change::Forward(on) = change { Some(*on) } else { None })
        == Some(false)
    {
        return not_in_use();
    }
    let mut facts = facts.clone();
    learn_from_what_runs(&mut facts.cilium);
    if changes.iter().any(Change::restarts_the_agent) {
        facts.cilium.restart();
    }
    for change in changes {
        change.apply(&mut facts, targets);
    }
    predict_for(&facts, targets, deciding)
}

/// Talos without forwarding: nobody asks the address any more.
fn not_in_use() -> Prediction {
    Prediction {
        status: Status::Pass,
        ended: None,
        direction: Direction::None,
        cause: None,
        because: vec![
            "without forwardKubeDNSToHost Talos gives pods the node's own upstreams, and CoreDNS asks them after a \
             restart: nobody needs the address"
                .into(),
        ],
    }
}

fn supposed<T>(value: T) -> Fact<T> {
    Fact::known(value, SUPPOSED)
}

/// Cilium's map of its own addresses and the compiled shortcut follow from version, settings and addresses: what was
/// read from the running agent no longer counts.
fn forget_what_is_compiled(facts: &mut Facts) {
    facts.cilium.lxc.clear();
    facts.cilium.skip_fib = Fact::default();
}

/// The host routing follows from the settings again.
fn route_anew(facts: &mut Facts) {
    facts.cilium.host_routing = Fact::unavailable("it follows from the settings", SUPPOSED);
    forget_what_is_compiled(facts);
}

/// Where host routing is BPF now, none of the settings that are not known can be a reason for Legacy, nor is the
/// kube-proxy replacement, whatever it is called (NodePort may be on by itself).
fn learn_from_what_runs(agent: &mut Cilium) {
    if agent.host_routing.get() != Some(&HostRouting::Bpf) {
        return;
    }
    let running = format!("host routing is BPF ({})", agent.host_routing.source());
    known_by(&mut agent.legacy_routing_configured, false, &running);
    known_by(&mut agent.ipsec, false, &running);
    if agent.kube_proxy_replacement.running().is_none_or(|mode| !replaces_kube_proxy(mode)) {
        agent.kube_proxy_replacement = Fact::known("True".into(), running);
    }
}

fn known_by<T>(fact: &mut Fact<T>, value: T, source: &str) {
    if fact.get().is_none() {
        *fact = Fact::known(value, source);
    }
}

/// Puts the address on `lo` with this scope, or takes it from there.
fn put_on_lo(facts: &mut Facts, address: IpAddr, scope: Option<u8>) {
    let Some(mut held) = facts.network.addresses.get().cloned() else {
        return;
    };
    held.retain(|one| one.address != address || one.interface != "lo");
    if let Some(scope) = scope {
        let prefix_len = if address.is_ipv4() { 32 } else { 128 };
        let flags = vec!["permanent".into()];
        held.push(InterfaceAddress { interface: "lo".into(), address, prefix_len, scope, flags });
    }
    let absent = !held.iter().any(|one| one.address == address);
    facts.network.addresses = supposed(held);
    if let Some(mut routes) = facts.network.routes.get().cloned() {
        let is_own = |route: &Route| route.kind == "local" && node::contains(&route.destination, address);
        if absent {
            routes.retain(|route| !is_own(route));
        } else if !routes.iter().any(is_own) {
            let interface = Some("lo".into());
            let destination = address.to_string();
            routes.push(Route { destination, kind: "local".into(), table: 255, interface, gateway: None });
        }
        facts.network.routes = supposed(routes);
    }
}

/// Talos with forwarding: the address is on `lo`, with scope host unless somebody gave it another, and served.
fn serve(facts: &mut Facts, targets: &Targets) {
    const HOST: u8 = 254;
    for target in targets.sockets() {
        if node::is_absent(facts, target.ip()) {
            put_on_lo(facts, target.ip(), Some(if target.is_ipv4() { HOST } else { 0 }));
            forget_what_is_compiled(facts);
        }
        let mut listeners = facts.listeners.get().cloned().unwrap_or_default();
        for transport in [Transport::Udp, Transport::Tcp] {
            if node::listens(facts, target, transport) != Some(true) {
                listeners.push(Listener {
                    local: target,
                    transport,
                    cookie: 0,
                    process: None,
                    pid: None,
                    interface: None,
                });
            }
        }
        facts.listeners = supposed(listeners);
    }
}

/// What is so now, in the words of the key.
#[must_use]
pub fn now(facts: &Facts, targets: &Targets, change: &Change) -> Option<String> {
    let agent = &facts.cilium;
    match change {
        Change::CiliumVersion(_) => agent.version.get().cloned(),
        Change::HostRouting(_) => cilium::host_routing(facts).ok().map(|(mode, _)| mode.as_str().to_lowercase()),
        Change::Masquerade(_) => agent.masquerade.get().map(|mode| masquerade_name(*mode).to_owned()),
        Change::RoutingMode(_) => agent.routing_mode.get().map(|mode| routing_name(*mode).to_owned()),
        Change::Devices(_) => agent.devices.get().map(|devices| devices.join(",")),
        Change::EndpointRoutes(_) => agent.endpoint_routes.get().map(ToString::to_string),
        Change::KubeProxyReplacement(_) => agent.kube_proxy_replacement.get().map(|mode| mode.to_lowercase()),
        Change::Ipsec(_) => agent.ipsec.get().map(ToString::to_string),
        Change::AddressScopeMax(_) => Some(cilium::scope_max(facts).to_string()),
        Change::ExcludeLocalAddress(_) => agent.exclude_local_addresses.get().map(|prefixes| prefixes.join(",")),
        Change::LoScope(_) | Change::Addresses(..) => places(facts, targets),
        Change::Forward(_) => None,
    }
}

/// `lo host`, per target: where it is and with which scope.
fn places(facts: &Facts, targets: &Targets) -> Option<String> {
    let one = |address: IpAddr| {
        let held = node::holders(facts, address)?;
        let names: Vec<_> = held.iter().map(|at| format!("{} {}", at.interface, scope_name(at.scope))).collect();
        let places = if names.is_empty() { "absent".to_owned() } else { names.join(" and ") };
        Some(if targets.addresses.len() > 1 { format!("{address} {places}") } else { places })
    };
    let all: Option<Vec<_>> = targets.addresses.iter().map(|&address| one(address)).collect();
    all.map(|all| all.join(", "))
}

pub(crate) const fn masquerade_name(mode: Masquerade) -> &'static str {
    match mode {
        Masquerade::Bpf => "bpf",
        Masquerade::Iptables => "iptables",
        Masquerade::Disabled => "disabled",
    }
}

pub(crate) const fn routing_name(mode: RoutingMode) -> &'static str {
    match mode {
        RoutingMode::Native => "native",
        RoutingMode::Tunnel => "tunnel",
    }
}

#[cfg(test)]
mod tests;
