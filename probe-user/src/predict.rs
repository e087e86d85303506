//! What configuration alone says should happen to a pod's query, and to one from the node's own network: the table of
//! cilium's `handle_ipv4_from_lxc`, as read in the source and measured on real agents (tests/truth/). It says nothing of
//! network policies and firewalls.

pub mod cilium;
pub mod node;
pub mod version;
pub mod what_if;

use std::net::SocketAddr;

use crate::{
    checks::code::Code,
    ended::{Direction, Ended},
    facts::{Facts, HostRouting, RoutingMode, Transport},
    query::VantageKind,
    report::{Prediction, Status},
    target::Targets,
};

/// Where a query sets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Pod,
    /// A process on the node's own network: CoreDNS with hostNetwork.
    Node,
}

/// Whose queries decide whether a node works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deciding {
    Pods,
    /// CoreDNS with hostNetwork alone.
    Node,
    /// One CoreDNS in a network of its own, another with hostNetwork.
    Both,
}

impl Deciding {
    /// By the vantages that decide; where there are none, a pod's query is what matters.
    pub fn of(kinds: impl IntoIterator<Item = VantageKind>) -> Self {
        let (mut pods, mut node) = (false, false);
        for kind in kinds {
            pods |= kind.is_pod();
            node |= kind == VantageKind::CorednsOnHost;
        }
        match (pods, node) {
            (true, true) => Self::Both,
            (false, true) => Self::Node,
            (_, false) => Self::Pods,
        }
    }
}

/// Predicts the queries that decide; of two kinds the worse stands.
#[must_use]
pub fn predict_for(facts: &Facts, targets: &Targets, deciding: Deciding) -> Prediction {
    match deciding {
        Deciding::Pods => predict(facts, targets),
        Deciding::Node => predict_on_host(facts, targets),
        Deciding::Both => {
            let (pods, node) = (predict(facts, targets), predict_on_host(facts, targets));
            if node.badness() > pods.badness() { node } else { pods }
        }
    }
}

/// Predicts a pod's query to every target; the worst one stands.
#[must_use]
pub fn predict(facts: &Facts, targets: &Targets) -> Prediction {
    worst(facts, targets, Origin::Pod)
}

/// The same for a query from the node's own network, which never passes Cilium's datapath for pods.
#[must_use]
pub fn predict_on_host(facts: &Facts, targets: &Targets) -> Prediction {
    worst(facts, targets, Origin::Node)
}

fn worst(facts: &Facts, targets: &Targets, from: Origin) -> Prediction {
    // Pods cannot send to an address of a family that they do not have.
    let sendable = |target: &SocketAddr| from == Origin::Node || cilium::has_family(facts, target.ip());
    let mut sockets: Vec<SocketAddr> = targets.sockets().collect();
    if sockets.iter().any(sendable) {
        sockets.retain(sendable);
    }
    let mut all: Vec<Prediction> = sockets.into_iter().map(|target| predict_one(facts, target, from)).collect();
    // The first of the worst: targets are in the order the user gave them.
    let worst = (0..all.len()).max_by_key(|&i| (all[i].badness(), std::cmp::Reverse(i)));
    worst.map(|i| all.swap_remove(i)).unwrap_or_default()
}

impl Prediction {
    /// Of several, the highest stands.
    #[must_use]
    pub const fn badness(&self) -> u8 {
        match self.status {
            Status::Pass => 0,
            Status::Unknown => 1,
            Status::Fail => 2,
        }
    }
}

/// Where the datapath sends the packet.
enum Way {
    /// Up the node's own stack.
    Stack,
    Ends(Ended, Code),
}

fn predict_one(facts: &Facts, target: SocketAddr, from: Origin) -> Prediction {
    let mut because = Vec::new();
    match way(facts, target, from, &mut because).and_then(|way| match way {
        Way::Stack => delivered(facts, target, from, &mut because),
        Way::Ends(ended, code) => Ok(Some((ended, code))),
    }) {
        Ok(Some((ended, code))) => Prediction {
            status: Status::Fail,
            ended: Some(ended),
            direction: Direction::Request,
            cause: Some(code.id()),
            because,
        },
        Ok(None) => Prediction {
            status: Status::Pass,
            ended: Some(Ended::Answered),
            direction: Direction::None,
            cause: None,
            because,
        },
        Err(why) => {
            because.push(why);
            Prediction { because, ..Prediction::default() }
        }
    }
}

/// Follows the packet from where it sets out into the stack or away. An error says why that cannot be told.
fn way(facts: &Facts, target: SocketAddr, from: Origin, because: &mut Vec<String>) -> Result<Way, String> {
    let address = target.ip();
    let holders = node::holders(facts, address).ok_or_else(|| {
        let why = facts.network.addresses.why().unwrap_or("not read");
        format!("cannot say: the node's addresses are unknown ({why})")
    })?;
    for held in &holders {
        because.push(format!("{} ({})", node::describe(held), facts.network.addresses.source()));
    }
    if from == Origin::Node {
        because.push("CoreDNS asks from the node's own network, past Cilium: the kernel's own routing decides".into());
        return stack(facts, target, because);
    }
    match cilium::is_here(facts) {
        None => return Err("cannot say: it is not known whether Cilium runs here (no links, no agent, no maps)".into()),
        Some(false) => {
            because.push("no Cilium on this node (no cilium_host device): the kernel's own routing decides".into());
            return stack(facts, target, because);
        }
        Some(true) => {}
    }
    let version = cilium::version(facts);
    if let Some(version) = &version {
        because.push(format!("Cilium {version} ({})", facts.cilium.version.source()));
        if version.is_beyond_measured() {
            return Err(format!("cannot say: Cilium {version} is newer than the newest one measured, 1.19.0-pre.0"));
        }
        if let Some(read) = version.read_instead() {
            because.push(format!("its source was not read: taken to do as {read}, the newest one read of its branch"));
        }
        if version.is_before_known() {
            return Err(format!(
                "cannot say: Cilium {version} is older than 1.15.0, the oldest one whose source was read"
            ));
        }
    }
    let missing = |what: String| format!("cannot say without {what}");
    let (routing, how) = cilium::host_routing(facts).map_err(missing)?;
    because.push(how);
    if routing == HostRouting::Legacy {
        return stack(facts, target, because);
    }
    if holders.is_empty() {
        because.push(format!("{address} is on no interface of the node, so Cilium cannot know it as the host's"));
        return stack(facts, target, because);
    }
    let (known, how) = cilium::knows(facts, address).map_err(missing)?;
    because.push(how);
    if known {
        return stack(facts, target, because);
    }
    let version = version.ok_or_else(|| missing("Cilium's version".into()))?;
    unknown_address(facts, target, &version, because)
}

/// BPF host routing, and the address is not the host's to Cilium.
fn unknown_address(
    facts: &Facts,
    target: SocketAddr,
    version: &version::Version,
    because: &mut Vec<String>,
) -> Result<Way, String> {
    let missing = |what: String| format!("cannot say without {what}");
    if version.tunnel_passes_to_stack() {
        let mode = facts.cilium.routing_mode.running().ok_or_else(|| missing("the routing mode".into()))?;
        if *mode == RoutingMode::Tunnel {
            because.push(format!("in tunnel mode Cilium {version} passes what has no tunnel endpoint to the stack"));
            return stack(facts, target, because);
        }
    }
    let (skips, how) = cilium::skips_fib(facts).map_err(missing)?;
    because.push(how);
    if skips {
        because.push("so the query is redirected out of that device and leaves the node".into());
        return Ok(Way::Ends(Ended::Leaked, Code::UnknownAddressLeaks));
    }
    if version.passes_local_fib_result() {
        because.push(format!("Cilium {version} passes a packet to the stack when the route lookup says it is local"));
        return stack(facts, target, because);
    }
    because.push("the route lookup says the address is local (NOT_FWDED), which Cilium drops with reason 169".into());
    Ok(Way::Ends(Ended::Dropped, Code::UnknownAddressDropped))
}

/// The kernel routes it: to itself, or away.
fn stack(facts: &Facts, target: SocketAddr, because: &mut Vec<String>) -> Result<Way, String> {
    let address = target.ip();
    if let Some(rule) = node::rule_before_local(facts, address) {
        return Err(format!(
            "cannot say what rule {} makes of it, before the local table: {}",
            rule.priority, rule.text
        ));
    }
    let absent = node::is_absent(facts, address);
    if absent && facts.cilium.local_redirect_policy.get() == Some(&true) {
        return Err(format!("cannot say: {address} is on no interface, but a local redirect policy may take it"));
    }
    if !absent && node::has_local_route(facts, address) != Some(false) {
        because.push("so the query goes up the node's own stack".into());
        return Ok(Way::Stack);
    }
    let code = if absent { Code::AddressAbsent } else { Code::LocalRouteMissing };
    because.push(if absent {
        format!("{address} is on no interface of the node, so the kernel routes it away")
    } else {
        format!("the local table has no route to {address}, so the kernel routes it away")
    });
    match node::has_default_route(facts, address) {
        Some(false) => Err(format!("cannot say where to: there is no default route for {address}")),
        _ => Ok(Way::Ends(Ended::Leaked, code)),
    }
}

/// It reached the node's stack: is anything in its way there, and does anyone listen?
fn delivered(
    facts: &Facts,
    target: SocketAddr,
    from: Origin,
    because: &mut Vec<String>,
) -> Result<Option<(Ended, Code)>, String> {
    // IPv6 has no such filter.
    if from == Origin::Pod
        && target.is_ipv4()
        && let Some(interface) = strict_pod_interface(facts)
    {
        because.push(format!("rp_filter is strict on {interface}, and the way back to the pod is another device"));
        return Ok(Some((Ended::Dropped, Code::RpFilterStrict)));
    }
    let udp = node::listens(facts, target, Transport::Udp);
    let tcp = node::listens(facts, target, Transport::Tcp);
    match (udp, tcp) {
        (Some(true), Some(true)) => because.push(format!("sockets listen on {target} over UDP and TCP")),
        (Some(false), Some(false)) => {
            because.push(format!("nobody listens on {target}"));
            return Ok(Some((Ended::PortUnreachable, Code::NobodyListens)));
        }
        (Some(udp), Some(_)) => {
            let (there, gone) = if udp { ("UDP", "TCP") } else { ("TCP", "UDP") };
            because.push(format!("{target} is listened on over {there} but not over {gone}"));
            return Ok(Some((Ended::PortUnreachable, Code::ListenerIncomplete)));
        }
        _ => {
            let why = facts.listeners.why().unwrap_or("not read");
            return Err(format!("cannot say whether anyone listens on {target} ({why})"));
        }
    }
    Ok(None)
}

/// Every pod's device filters strictly by the way back, which for Cilium without endpoint routes is `cilium_host`. Where
/// another plugin is in front of Cilium, pods' devices have other names, and routes of their own.
fn strict_pod_interface(facts: &Facts) -> Option<&str> {
    if cilium::is_here(facts) != Some(true) || facts.cilium.endpoint_routes.running() != Some(&false) {
        return None;
    }
    let filters = facts.network.rp_filter.get()?;
    let routes = facts.network.routes.get()?;
    let mut pods = facts.pods.get()?.iter().filter(|pod| !pod.host_network).filter_map(|pod| pod.interface.as_deref());
    let first = pods.next()?;
    let strict = |interface: &str| {
        interface.starts_with("lxc")
            && filters.get(interface) == Some(&1)
            && !routes.iter().any(|route| route.interface.as_deref() == Some(interface))
    };
    (strict(first) && pods.all(strict)).then_some(first)
}

#[cfg(test)]
mod tests;
