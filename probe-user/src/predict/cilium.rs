//! What the facts say of Cilium: is it here, how does it route to the host, does it know an address as its own.

use std::net::IpAddr;

use super::{node, version::Version};
use crate::facts::{Fact, Facts, HostRouting, LegacyReasons, Masquerade, replaces_kube_proxy, scope_name};

/// `local-max-addr-scope` where nobody set it (cilium pkg/defaults: `AddressScopeMax`).
pub const DEFAULT_ADDRESS_SCOPE_MAX: u8 = 252;

/// Cilium's own device for encryption by WireGuard (cilium pkg/wireguard/types), which its programs may be on as well.
const WIREGUARD: &str = "cilium_wg0";

/// Cilium runs on this node; `None` where that cannot be told. Its maps and compiled headers outlive it.
#[must_use]
pub fn is_here(facts: &Facts) -> Option<bool> {
    let cilium = &facts.cilium;
    if cilium.version.get().is_some() {
        return Some(true);
    }
    match facts.network.links.get() {
        Some(links) => Some(links.iter().any(|link| link.name == "cilium_host" || link.name == "cilium_net")),
        None => {
            let mapped = cilium.lxc.values().any(|entry| entry.get().is_some());
            (mapped || cilium.host_routing.get().is_some()).then_some(true)
        }
    }
}

#[must_use]
pub fn version(facts: &Facts) -> Option<Version> {
    facts.cilium.version.get().and_then(|text| Version::parse(text))
}

/// The effective host routing and what it was read from; else what follows from the settings, or which facts are missing.
///
/// # Errors
/// The names of the facts that would have told.
pub fn host_routing(facts: &Facts) -> Result<(HostRouting, String), String> {
    let cilium = &facts.cilium;
    if let Some(&mode) = cilium.host_routing.get() {
        return Ok((mode, format!("host routing is {} ({})", mode.as_str(), cilium.host_routing.source())));
    }
    let LegacyReasons { found, unknown } = cilium.legacy_reasons();
    let without_kpr = cilium.kube_proxy_replacement.running().is_some_and(|mode| !replaces_kube_proxy(mode));
    if without_kpr && found.len() == 1 && cilium.masquerade.running() == Some(&Masquerade::Bpf) {
        return Err(
            "a start of the agent: it refuses BPF masquerading without kube-proxy replacement, but for NodePort \
                    switched on by itself (1.18.1)"
                .into(),
        );
    }
    if let Some(reason) = found.first() {
        return Ok((HostRouting::Legacy, format!("{reason}, so host routing is Legacy")));
    }
    if unknown.is_empty() {
        return Ok((HostRouting::Bpf, "no setting makes host routing fall back to Legacy, so it is BPF".into()));
    }
    let why = cilium.host_routing.why().unwrap_or("not read");
    Err(format!("the effective host routing ({why}), or else {}", unknown.join(", ")))
}

/// Cilium takes the address for the host's own, and how that is known: from its map, else computed.
///
/// # Errors
/// The names of the facts that would have told.
pub fn knows(facts: &Facts, address: IpAddr) -> Result<(bool, String), String> {
    match facts.cilium.lxc.get(&address).and_then(|fact| fact.get()) {
        Some(Some(entry)) if entry.is_host() => {
            Ok((true, format!("cilium_lxc holds {address} as the host's (flags {})", entry.flags)))
        }
        Some(Some(entry)) => {
            let (id, flags) = (entry.lxc_id, entry.flags);
            Ok((false, format!("cilium_lxc holds {address} as endpoint {id}'s, not the host's (flags {flags})")))
        }
        Some(None) => Ok((false, format!("cilium_lxc has no entry for {address}: to Cilium it is not the host's"))),
        None => computes(facts, address),
    }
}

/// What Cilium makes of the node's addresses, by version (daemon/cmd/datapath.go, hostips-sync.go).
fn computes(facts: &Facts, address: IpAddr) -> Result<(bool, String), String> {
    let held = node::holders(facts, address).ok_or("the node's addresses")?;
    let version = version(facts).ok_or("cilium_lxc, or else Cilium's version")?;
    if !has_family(facts, address) {
        let (family, fact) = family(facts, address);
        return Ok((false, format!("Cilium does without {family} here ({}), and so do its pods", fact.source())));
    }
    if is_excluded(facts, address) {
        return Ok((false, format!("{address} is in exclude-local-address")));
    }
    let mut reasons = Vec::new();
    for at in held {
        // Scope global is below every limit.
        let max =
            facts.cilium.address_scope_max.running().copied().or((at.scope == 0).then_some(DEFAULT_ADDRESS_SCOPE_MAX));
        let max = max.ok_or("cilium_lxc, or else local-max-addr-scope")?;
        if at.scope > max {
            let scope = scope_name(at.scope);
            reasons.push(format!("scope {scope} ({}) is above local-max-addr-scope {max}", at.scope));
        } else if learns(facts, &version, &at.interface) {
            if facts.cilium.exclude_local_addresses.running().is_none() {
                return Err("cilium_lxc, or else exclude-local-address".into());
            }
            let interface = &at.interface;
            return Ok((true, format!("Cilium {version} learns addresses of {interface} up to scope {max}")));
        } else if at.interface != "lo" && facts.cilium.devices.running().is_none() {
            return Err("cilium_lxc, or else Cilium's devices".into());
        } else {
            reasons.push(format!("Cilium {version} does not learn addresses of {}", at.interface));
        }
    }
    Ok((false, if reasons.is_empty() { format!("{address} is on no interface") } else { reasons.join("; ") }))
}

/// Cilium, and so its pods, have the address's family, or nothing says that they do not (daemon/cmd/hostips-sync.go leaves
/// out the addresses of a family that is off).
#[must_use]
pub fn has_family(facts: &Facts, address: IpAddr) -> bool {
    family(facts, address).1.running() != Some(&false)
}

const fn family(facts: &Facts, address: IpAddr) -> (&'static str, &Fact<bool>) {
    if address.is_ipv4() { ("IPv4", &facts.cilium.ipv4) } else { ("IPv6", &facts.cilium.ipv6) }
}

/// Cilium of this version takes addresses of this device for the host's.
#[must_use]
pub fn learns(facts: &Facts, version: &Version, interface: &str) -> bool {
    if interface == "lo" {
        return version.learns_from_lo();
    }
    let selected = facts.cilium.devices.running().is_some_and(|devices| devices.iter().any(|d| d == interface));
    let up = facts.network.links.get().is_none_or(|links| links.iter().any(|l| l.name == interface && l.up));
    selected || interface == "cilium_host" || version.learns_from_unselected(up)
}

#[must_use]
pub fn scope_max(facts: &Facts) -> u8 {
    facts.cilium.address_scope_max.running().copied().unwrap_or(DEFAULT_ADDRESS_SCOPE_MAX)
}

/// A prefix in `exclude-local-address` covers it.
#[must_use]
pub fn is_excluded(facts: &Facts, address: IpAddr) -> bool {
    let excluded = facts.cilium.exclude_local_addresses.running();
    excluded.is_some_and(|prefixes| prefixes.iter().any(|prefix| node::contains(prefix.trim(), address)))
}

/// The one-device shortcut (`ENABLE_SKIP_FIB`, pkg/datapath/linux/config/config.go), and how that is known.
///
/// # Errors
/// The names of the facts that would have told.
pub fn skips_fib(facts: &Facts) -> Result<(bool, String), String> {
    let cilium = &facts.cilium;
    if let Some(&skip) = cilium.skip_fib.get() {
        let how = if skip { "with" } else { "without" };
        return Ok((skip, format!("the datapath is compiled {how} the one-device shortcut ENABLE_SKIP_FIB")));
    }
    let devices = cilium.devices.running().ok_or("Cilium's devices")?;
    let links = facts.network.links.get().map_or(&[][..], Vec::as_slice);
    if devices.len() == 1 && links.iter().any(|link| link.name == WIREGUARD) {
        return Err(format!("ENABLE_SKIP_FIB in an endpoint's ep_config.h: {WIREGUARD} may count as a second device"));
    }
    if devices.len() != 1 {
        return Ok((false, format!("Cilium has {} external devices ({})", devices.len(), devices.join(", "))));
    }
    match cilium.endpoint_routes.running() {
        Some(true) => return Ok((false, "endpoint routes are on, so there is no one-device shortcut".into())),
        Some(false) => {}
        None => return Err("enable-endpoint-routes".into()),
    }
    if cilium.direct_routing_device.running().is_some_and(String::is_empty) {
        return Ok((false, "there is no direct-routing device, so no one-device shortcut".into()));
    }
    Ok((true, format!("{} is the only external device: Cilium skips the route lookup", devices[0])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{HOST_DNS, address, facts, known, link};
    use crate::facts::{Fact, LxcEntry};

    #[test]
    fn the_map_wins_over_the_scope() {
        let mut facts = facts();
        facts.cilium.lxc.insert(HOST_DNS, Fact::known(None, "map"));
        assert!(!knows(&facts, HOST_DNS).unwrap().0);
        let pods = LxcEntry { ifindex: 7, lxc_id: 9, flags: 0 };
        facts.cilium.lxc.insert(HOST_DNS, Fact::known(Some(pods), "map"));
        assert!(knows(&facts, HOST_DNS).unwrap().1.contains("endpoint 9"));
    }

    #[test]
    fn without_the_map_scope_and_version_decide() {
        for (version, scope, max, expected) in [
            ("1.18.1", 0, 252, true),
            ("1.18.1", 254, 252, false),
            ("1.18.1", 253, 252, false),
            ("1.18.1", 254, 254, true),
            ("1.15.7", 0, 252, false),
            ("1.15.8", 0, 252, true),
            ("1.16.0", 0, 252, false),
            ("1.16.1", 0, 252, true),
        ] {
            let mut facts = facts();
            facts.cilium.lxc.clear();
            facts.cilium.version = Fact::known(version.into(), "agent");
            facts.cilium.address_scope_max = Fact::known(max, "agent");
            facts.network.addresses = facts.network.addresses.map(|mut all| {
                all.iter_mut().for_each(|a| a.scope = scope);
                all
            });
            assert_eq!(knows(&facts, HOST_DNS).unwrap().0, expected, "{version} scope {scope} max {max}");
        }
    }

    #[test]
    fn what_it_rests_on_must_be_known() {
        let missing = |change: fn(&mut Facts)| {
            let mut facts = facts();
            facts.cilium.lxc.clear();
            change(&mut facts);
            knows(&facts, HOST_DNS)
        };
        assert!(missing(|f| f.cilium.exclude_local_addresses = Fact::default()).unwrap_err().contains("exclude"));
        let unlimited: fn(&mut Facts) = |f| f.cilium.address_scope_max = Fact::default();
        assert!(missing(unlimited).unwrap().0, "scope global is below every limit");
        let hidden: fn(&mut Facts) = |f| {
            f.network.addresses = known(vec![address("lo", HOST_DNS, 254)]);
            f.cilium.address_scope_max = Fact::default();
        };
        assert!(missing(hidden).unwrap_err().contains("local-max-addr-scope"));
    }

    #[test]
    fn wireguard_may_count_as_a_second_device() {
        let mut facts = facts();
        facts.network.links = known(vec![link(1, "lo"), link(2, "eth0"), link(3, "cilium_wg0")]);
        assert!(skips_fib(&facts).unwrap_err().contains("cilium_wg0"));
        facts.cilium.skip_fib = known(true);
        assert!(skips_fib(&facts).unwrap().0, "what was compiled says it");
    }

    #[test]
    fn an_excluded_address_is_unknown() {
        let mut facts = facts();
        facts.cilium.lxc.clear();
        facts.cilium.exclude_local_addresses = Fact::known(vec!["169.254.0.0/16".into()], "agent");
        assert!(!knows(&facts, HOST_DNS).unwrap().0);
    }

    #[test]
    fn missing_facts_are_named() {
        let empty = Facts::default();
        assert!(knows(&empty, HOST_DNS).unwrap_err().contains("addresses"));
        assert!(host_routing(&empty).unwrap_err().contains("host routing"));
        assert!(skips_fib(&empty).unwrap_err().contains("devices"));
        assert_eq!(is_here(&empty), None);
    }
}
