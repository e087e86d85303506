//! HDP010 talos-resources-differ: the resources that were given are not of this node as it is now.

use std::net::{IpAddr, SocketAddr};

use crate::{
    checks::{Case, Check, Finding, Remedy, Severity, code::Code, remedy},
    facts::{Talos, TalosAddress, Transport, scope_name},
    predict::node,
    target::DNS_PORT,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::TalosResourcesDiffer, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
Talos' resources (--talos-resources) say something else about the address than the kernel.

Talos keeps what it wants (AddressSpecs, HostDNSConfig) and what it sees (AddressStatuses,
DNSResolveCaches); the kernel has what is: addresses, and sockets that listen. They differ where
the resources were written before a change, are of another node, or where Talos is still applying a
change. Judged is what the kernel says. Resources of another node say nothing of this one and are
not used.

By hand: `ip -d addr show lo` and `ss -lntup 'sport = :53'` on the node beside
`talosctl -n NODE get addresses` and `talosctl -n NODE get dnsresolvecache`.

Fix: get the resources again, of this very node: talosctl -n NODE get addresses -o yaml, and
talosctl -n NODE get addressspecs --namespace network-config -o yaml for the layers.

Versions: Talos 1.8 and later.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let Some(talos) = &case.facts.talos else { return Vec::new() };
    let again = Remedy::new("Get the resources again, of this node.")
        .step(
            "for type in hostdnsconfigs addresses addressspecs resolvers dnsupstreams dnsresolvecaches; do \
             talosctl -n NODE get $type -o yaml; echo ---; done > talos.yaml",
        )
        .step("talosctl -n NODE get addressspecs --namespace network-config -o yaml >> talos.yaml");
    let finding = |title: &str| Finding::new(Code::TalosResourcesDiffer, Severity::Warn, title);
    if !talos.other_nodes.is_empty() {
        let nodes = talos.other_nodes.join(", ");
        let line = format!("they are of {nodes}, and this node is known by none of these");
        let title = "Talos' resources are of another node, as far as can be told, and were not used.";
        return vec![finding(title).evidence(line).remedies([again])];
    }
    let mut lines = Vec::new();
    for &target in &case.targets.addresses {
        addresses(case, talos, target, &mut lines);
        server(case, talos, target, &mut lines);
    }
    if lines.is_empty() {
        return Vec::new();
    }
    let title = "Talos' resources say something else about the address than the kernel.";
    vec![finding(title).evidences(lines).remedies([again])]
}

/// Where it is, and with which scope.
fn addresses(case: &Case<'_>, talos: &Talos, target: IpAddr, lines: &mut Vec<String>) {
    let Some(held) = node::holders(case.facts, target) else { return };
    let wanted = talos.address_specs.get().into_iter().flatten().filter(|spec| spec.merged);
    for (what, told) in [
        ("AddressStatus", talos.addresses.get().map(|all| of(all.iter(), target))),
        ("AddressSpec", talos.address_specs.get().map(|_| of(wanted, target)).filter(|specs| !specs.is_empty())),
    ] {
        let Some(told) = told else { continue };
        let differs = told.iter().filter(|told| !held.iter().any(|held| agree(told, held)));
        lines.extend(differs.map(|told| {
            let kernel: Vec<_> = held.iter().map(|held| node::describe(held)).collect();
            let kernel = if kernel.is_empty() { "the kernel has it nowhere".into() } else { kernel.join("; ") };
            format!("{what}: {} on {} with scope {}; {kernel}", told.address, told.link, told.scope)
        }));
        if told.is_empty() {
            lines.extend(held.iter().map(|held| format!("no {what} has it; {}", node::describe(held))));
        }
    }
}

/// Who serves it. Host DNS has the port for DNS, whatever is asked. An address that is not Talos' own may be another
/// server's, and so may be a socket that listens on every address.
fn server(case: &Case<'_>, talos: &Talos, target: IpAddr, lines: &mut Vec<String>) {
    let at = SocketAddr::new(target, DNS_PORT);
    let is_own = |transport| {
        let sockets = case.facts.listeners.get().into_iter().flatten();
        remedy::is_talos(target) && sockets.into_iter().any(|one| one.local == at && one.transport == transport)
    };
    let missing = |transport| node::listens(case.facts, at, transport) == Some(false);
    let is_at = |listens: &String| listens.parse() == Ok(at);
    if let Some(config) = talos.host_dns.get() {
        let serves = config.enabled && config.listen_addresses.iter().any(is_at);
        if !serves && [Transport::Udp, Transport::Tcp].into_iter().any(is_own) {
            let off = if config.enabled { "does not have" } else { "is not enabled, so nobody has" };
            lines.push(format!("HostDNSConfig {off} {at}; a socket listens on it"));
        }
        if serves && node::nobody_listens(case.facts, at) {
            lines.push(format!("HostDNSConfig listens on {at}; no socket does"));
        }
    }
    for cache in talos.caches.get().into_iter().flatten() {
        // `udp-169.254.116.108:53`; the families of IPv6 are udp6 and tcp6.
        let Some((protocol, listens)) = cache.id.split_once('-').filter(|(_, listens)| is_at(&(*listens).to_owned()))
        else {
            continue;
        };
        let transport = if protocol.starts_with("tcp") { Transport::Tcp } else { Transport::Udp };
        let running = cache.status == "running";
        if running && missing(transport) {
            lines
                .push(format!("DNSResolveCache {} is running; no socket listens on {listens} ({transport})", cache.id));
        } else if !running && is_own(transport) {
            lines.push(format!("DNSResolveCache {} is {}; a socket listens on {listens}", cache.id, cache.status));
        }
    }
}

fn of<'a>(all: impl Iterator<Item = &'a TalosAddress>, target: IpAddr) -> Vec<&'a TalosAddress> {
    all.filter(|told| told.address.split('/').next().and_then(|ip| ip.parse().ok()) == Some(target)).collect()
}

fn agree(told: &TalosAddress, held: &crate::facts::InterfaceAddress) -> bool {
    told.link == held.interface && told.scope == scope_name(held.scope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{Scene, hide, known, listener};
    use crate::facts::{TalosCache, TalosHostDns};

    fn told(scope: &str) -> Talos {
        let address = TalosAddress {
            link: "lo".into(),
            address: "169.254.116.108/32".into(),
            scope: scope.into(),
            layer: None,
            merged: false,
        };
        Talos { addresses: known(vec![address]), ..Talos::default() }
    }

    #[test]
    fn only_where_the_kernel_says_otherwise() {
        let with = |talos: Talos| Scene::new().facts(|f| f.talos = Some(talos));
        assert_eq!(with(told("global")).finding("HDP010"), None);
        assert_eq!(with(Talos::default()).finding("HDP010"), None, "nothing was told");
        let finding = with(told("host")).finding("HDP010").unwrap();
        assert!(
            finding.evidence[0].contains("scope host; 169.254.116.108/32 is on lo with scope global"),
            "{finding:?}"
        );
        assert!(with(told("global")).facts(hide).finding("HDP010").is_some());
        let nowhere = Talos { addresses: known(vec![]), ..Talos::default() };
        assert!(with(nowhere).finding("HDP010").unwrap().evidence[0].starts_with("no AddressStatus"));
    }

    #[test]
    fn a_spec_of_one_layer_is_not_what_came_out() {
        let mut talos = told("global");
        let layers = ["operator", "configuration"].map(|layer| TalosAddress {
            scope: if layer == "operator" { "host".into() } else { "global".into() },
            layer: Some(layer.into()),
            ..talos.addresses.get().unwrap()[0].clone()
        });
        talos.address_specs = known(layers.to_vec());
        assert_eq!(Scene::new().facts(|f| f.talos = Some(talos)).finding("HDP010"), None);
    }

    fn served(enabled: bool, at: &[&str]) -> Talos {
        let listen_addresses = at.iter().map(ToString::to_string).collect();
        Talos {
            host_dns: known(TalosHostDns { enabled, listen_addresses, service_addresses: Vec::new() }),
            ..Talos::default()
        }
    }

    fn evidence(scene: Scene, talos: Talos) -> Vec<String> {
        scene.facts(|f| f.talos = Some(talos)).finding("HDP010").map(|finding| finding.evidence).unwrap_or_default()
    }

    #[test]
    fn host_dns_is_held_against_the_sockets() {
        const AT: &str = "169.254.116.108:53";
        let silent = || Scene::new().facts(|f| f.listeners = known(vec![]));
        assert_eq!(evidence(Scene::new(), served(true, &["127.0.0.53:53", AT])), [""; 0]);
        assert_eq!(evidence(silent(), served(false, &[AT])), [""; 0]);
        assert_eq!(
            evidence(Scene::new(), served(false, &[AT])),
            [format!("HostDNSConfig is not enabled, so nobody has {AT}; a socket listens on it")]
        );
        assert!(evidence(Scene::new(), served(true, &[]))[0].contains("does not have"));
        assert_eq!(evidence(silent(), served(true, &[AT])), [format!("HostDNSConfig listens on {AT}; no socket does")]);
        // A socket on every address is no sign of host DNS.
        let any = |f: &mut crate::facts::Facts| f.listeners = known(vec![listener("0.0.0.0:53", Transport::Udp)]);
        assert_eq!(evidence(Scene::new().facts(any), served(false, &[])), [""; 0]);
    }

    #[test]
    fn a_cache_is_held_against_the_sockets() {
        let cache = |id: &str, status: &str| Talos {
            caches: known(vec![TalosCache { id: id.into(), status: status.into() }]),
            ..Talos::default()
        };
        let only_udp =
            || Scene::new().facts(|f| f.listeners = known(vec![listener("169.254.116.108:53", Transport::Udp)]));
        assert_eq!(evidence(only_udp(), cache("udp-169.254.116.108:53", "running")), [""; 0]);
        assert!(evidence(only_udp(), cache("tcp-169.254.116.108:53", "running"))[0].contains("no socket listens"));
        assert!(evidence(only_udp(), cache("udp-169.254.116.108:53", "failed"))[0].contains("is failed; a socket"));
        assert_eq!(evidence(only_udp(), cache("tcp-127.0.0.53:53", "running")), [""; 0], "not under test");
    }

    #[test]
    fn resources_of_another_node_are_not_this_ones() {
        let other = Talos { other_nodes: vec!["10.0.0.2".into()], ..told("host") };
        let finding = Scene::new().facts(|f| f.talos = Some(other)).finding("HDP010").unwrap();
        assert!(finding.title.contains("another node") && finding.evidence[0].contains("10.0.0.2"), "{finding:?}");
        assert!(finding.remedies[0].steps[0].contains("talosctl -n NODE get $type"), "{finding:?}");
    }
}
