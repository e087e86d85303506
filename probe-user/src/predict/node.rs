//! What the facts say of the node itself: where an address is, who listens, how it is routed.

use std::net::{IpAddr, SocketAddr};

use crate::facts::{Facts, InterfaceAddress, Listener, Rule, Transport, scope_name};

/// Where the address is on the node; `None` where the addresses are not known, empty where it is absent.
#[must_use]
pub fn holders(facts: &Facts, address: IpAddr) -> Option<Vec<&InterfaceAddress>> {
    let all = facts.network.addresses.get()?;
    Some(all.iter().filter(|held| held.address == address).collect())
}

/// The address is known to be on no interface of the node.
#[must_use]
pub fn is_absent(facts: &Facts, address: IpAddr) -> bool {
    holders(facts, address).is_some_and(|held| held.is_empty())
}

/// "169.254.116.108/32 is on lo with scope host (254)".
#[must_use]
pub fn describe(held: &InterfaceAddress) -> String {
    let scope = scope_name(held.scope);
    format!("{}/{} is on {} with scope {scope} ({})", held.address, held.prefix_len, held.interface, held.scope)
}

/// A socket is there that would take a packet to this address and port; `None` where sockets are not known.
#[must_use]
pub fn listens(facts: &Facts, target: SocketAddr, transport: Transport) -> Option<bool> {
    Some(facts.listeners.get()?.iter().any(|listener| listener.transport == transport && covers(listener, target)))
}

/// The listener's own address, or the wildcard of its family: a socket on `::` that takes IPv4 too is listed as two. One
/// that is bound to a device takes what comes in there alone, and pods' packets come in on their own.
#[must_use]
pub fn covers(listener: &Listener, target: SocketAddr) -> bool {
    let own = listener.local.ip();
    listener.interface.is_none()
        && listener.local.port() == target.port()
        && (own == target.ip() || (own.is_unspecified() && own.is_ipv4() == target.is_ipv4()))
}

/// No socket takes the address and port, over any transport.
#[must_use]
pub fn nobody_listens(facts: &Facts, target: SocketAddr) -> bool {
    [Transport::Udp, Transport::Tcp].iter().all(|&transport| listens(facts, target, transport) == Some(false))
}

/// The `local` table has a route for the address; `None` where the routes are not known.
#[must_use]
pub fn has_local_route(facts: &Facts, address: IpAddr) -> Option<bool> {
    let routes = facts.network.routes.get()?;
    Some(routes.iter().any(|route| route.kind == "local" && contains(&route.destination, address)))
}

/// A policy rule that a pod's packet to the address meets before the kernel's local table. Those that look for a mark are
/// left out, as such a packet has none (Cilium's own at 9 and 10 are of that kind, cilium pkg/datapath/linux/routing), and
/// those for packets that come in through a device which is no pod's.
#[must_use]
pub fn rule_before_local(facts: &Facts, address: IpAddr) -> Option<&Rule> {
    let rules = facts.network.rules.get()?;
    // Cilium moves `lookup local` from 0 to 100; the kernel's own is not in the list.
    let moved = rules.iter().filter(|rule| rule.text == "from all lookup local").map(|rule| rule.priority);
    let local = moved.min().unwrap_or(0);
    rules.iter().filter(|rule| rule.priority < local).find(|rule| concerns_pods(rule, address))
}

/// By the text of the rule, as `ip rule` writes it.
fn concerns_pods(rule: &Rule, address: IpAddr) -> bool {
    let mut words = rule.text.split(' ');
    if words.clone().next() == Some("not") {
        return true;
    }
    let other_family = rule.text.split([' ', '/']).find_map(|word| word.parse::<IpAddr>().ok());
    if other_family.is_some_and(|one| one.is_ipv4() != address.is_ipv4()) {
        return false;
    }
    while let Some(word) = words.next() {
        let selects = match (word, words.clone().next()) {
            ("to", Some(destination)) => contains(destination, address),
            ("iif", Some(device)) => device.starts_with("lxc"),
            ("fwmark", Some(_)) => false,
            _ => true,
        };
        if !selects {
            return false;
        }
    }
    true
}

/// There is a default route for the address's family; `None` where the routes are not known.
#[must_use]
pub fn has_default_route(facts: &Facts, address: IpAddr) -> Option<bool> {
    let default = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    Some(facts.network.routes.get()?.iter().any(|route| route.kind == "unicast" && route.destination == default))
}

/// The address is within `destination`: `address/len`, or an address alone.
pub(super) fn contains(destination: &str, address: IpAddr) -> bool {
    let (network, len) = destination.split_once('/').map_or((destination, None), |(n, l)| (n, Some(l)));
    let Ok(network) = network.parse::<IpAddr>() else {
        return false;
    };
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let ((net, width), (ip, _)) = (bits(network), bits(address));
    let len = len.map_or(Some(width), |l| l.parse().ok()).unwrap_or(u32::MAX);
    network.is_ipv4() == address.is_ipv4() && len <= width && (net ^ ip).leading_zeros() >= len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_contain() {
        let address: IpAddr = "169.254.116.108".parse().unwrap();
        for yes in ["169.254.116.108", "169.254.116.108/32", "169.254.0.0/16", "0.0.0.0/0"] {
            assert!(contains(yes, address), "{yes}");
        }
        for no in ["169.254.116.109/32", "10.0.0.0/8", "::/0", "default", "169.254.116.108/33", "169.254.116.108/x"] {
            assert!(!contains(no, address), "{no}");
        }
    }

    #[test]
    fn wildcards_listen() {
        let at = |local: &str| Listener {
            local: local.parse().unwrap(),
            transport: Transport::Udp,
            cookie: 0,
            process: None,
            pid: None,
            interface: None,
        };
        let target: SocketAddr = "169.254.116.108:53".parse().unwrap();
        for yes in ["169.254.116.108:53", "0.0.0.0:53"] {
            assert!(covers(&at(yes), target), "{yes}");
        }
        assert!(covers(&at("[::]:53"), "[fd00::1]:53".parse().unwrap()));
        for no in ["127.0.0.53:53", "0.0.0.0:5353", "169.254.116.109:53", "[::]:53"] {
            assert!(!covers(&at(no), target), "{no}");
        }
        let bound = Listener { interface: Some("virbr0".into()), ..at("0.0.0.0:53") };
        assert!(!covers(&bound, target), "pods' packets come in on devices of their own");
    }
}
