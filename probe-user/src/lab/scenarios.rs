//! The scenarios, as data. A row says what differs from a node as most are: Cilium 1.18.1, native routing, BPF host
//! routing and masquerade, one external device, host DNS on `lo` with scope host.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    scenario::{
        AddressDevice, CoreDns, Ends, Expected, Faults, HostDnsAddress, NodeSpec, Over, Scenario, Uplinks, Upstream,
    },
    spec::{CiliumSpec, CiliumVersion},
};
use crate::{
    ended::{Direction::Reply, Direction::Request, Ended},
    facts::{HostRouting, Masquerade, RoutingMode},
    target::HOST_DNS_V6,
};

const NODE_LOCAL_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10));

/// The scenario of that name.
#[must_use]
pub fn find(name: &str) -> Option<Scenario> {
    all().into_iter().find(|scenario| scenario.name == name)
}

fn scenario(name: &'static str, description: &'static str, node: NodeSpec, expected: Expected) -> Scenario {
    Scenario { name, description, node, check_args: Vec::new(), expected }
}

/// A node where Cilium does not know the address.
fn unknown() -> NodeSpec {
    NodeSpec::default()
}

/// A node where Cilium knows the address: its scope is global, as the machine config gives it.
fn known() -> NodeSpec {
    on_lo(HostDnsAddress { scope: Some(0), ..HostDnsAddress::default() })
}

fn on_lo(address: HostDnsAddress) -> NodeSpec {
    NodeSpec { host_dns: vec![address], ..NodeSpec::default() }
}

fn with(cilium: CiliumSpec) -> NodeSpec {
    NodeSpec { cilium, ..unknown() }
}

fn legacy() -> NodeSpec {
    with(CiliumSpec { host_routing: HostRouting::Legacy, ..CiliumSpec::default() })
}

fn version(version: CiliumVersion) -> CiliumSpec {
    CiliumSpec { version, ..CiliumSpec::default() }
}

fn leaks() -> Expected {
    Expected::fails(Ended::Leaked, Request, "HDP201")
}

fn dropped_unknown() -> Expected {
    Expected::fails(Ended::Dropped, Request, "HDP202")
}

/// Every scenario, in the order of the table.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let mut rows = the_issue();
    rows.extend(versions_and_settings());
    rows.extend(other_causes());
    rows.extend(shapes());
    rows
}

/// Issue 36761, and what people do about it.
fn the_issue() -> Vec<Scenario> {
    vec![
        scenario(
            "healthy-legacy",
            "Legacy host routing takes every packet up the stack",
            legacy(),
            Expected::healthy(),
        ),
        scenario(
            "healthy-known-address",
            "The address has scope global, so Cilium knows it as the host's",
            known(),
            Expected::healthy(),
        ),
        scenario("issue-36761-leak", "One device, unknown address: the query leaves the node", unknown(), leaks()),
        scenario(
            "issue-36761-drop",
            "Two devices, unknown address: the FIB lookup says no and Cilium drops",
            NodeSpec { uplinks: Uplinks::Two, ..unknown() },
            dropped_unknown(),
        ),
        scenario(
            "leak-answered-outside",
            "The query leaks and a server outside answers it: dig looks healthy",
            NodeSpec { answered_outside: true, ..unknown() },
            leaks(),
        ),
        scenario(
            "leak-l3-device",
            "The only device has no Ethernet header",
            NodeSpec { uplinks: Uplinks::Layer3, ..unknown() },
            leaks(),
        ),
        scenario(
            "leak-unmasqueraded",
            "ip-masq-agent exempts link-local: the query leaks with the pod's own address",
            with(CiliumSpec { ip_masq_agent: true, ..CiliumSpec::default() }),
            leaks(),
        ),
        scenario(
            "endpoint-routes-drop",
            "Endpoint routes turn the one-device leak into the FIB drop",
            with(CiliumSpec { endpoint_routes: true, ..CiliumSpec::default() }),
            dropped_unknown(),
        ),
        scenario(
            "workaround-lo-global",
            "The machine config gives lo the address, 1.16.5 knows it then",
            NodeSpec { cilium: version(CiliumVersion::V1_16_5), ..known() },
            Expected::healthy(),
        ),
        scenario(
            "workaround-legacy-routing",
            "bpf.hostLegacyRouting on the version that brought the regression",
            with(CiliumSpec { host_routing: HostRouting::Legacy, ..version(CiliumVersion::V1_16_5) }),
            Expected::healthy(),
        ),
    ]
}

fn versions_and_settings() -> Vec<Scenario> {
    let tunnel = |version| CiliumSpec { version, routing: RoutingMode::Tunnel, ..CiliumSpec::default() };
    vec![
        scenario(
            "tunnel-1.16.4",
            "The last version whose tunnel mode passes unknown addresses to the stack",
            with(tunnel(CiliumVersion::V1_16_4)),
            Expected::healthy(),
        ),
        scenario(
            "tunnel-1.16.5",
            "The first version whose tunnel mode does as native routing does",
            with(tunnel(CiliumVersion::V1_16_5)),
            leaks(),
        ),
        scenario(
            "fixed-1.19-two-devices",
            "1.19 passes what the FIB does not forward to the stack",
            NodeSpec { uplinks: Uplinks::Two, ..with(version(CiliumVersion::V1_19_0Pre0)) },
            Expected::healthy(),
        ),
        scenario(
            "still-leaks-1.19-one-device",
            "With one device 1.19.0-pre.0 never gets to its fix",
            with(version(CiliumVersion::V1_19_0Pre0)),
            leaks(),
        ),
        scenario(
            "local-max-addr-scope-254",
            "Cilium is told to take addresses of scope host too",
            with(CiliumSpec { address_scope_max: 254, ..CiliumSpec::default() }),
            Expected::healthy(),
        ),
        scenario(
            "iptables-masquerade",
            "Without BPF masquerade the agent falls back to Legacy host routing",
            with(CiliumSpec { masquerade: Masquerade::Iptables, ..CiliumSpec::default() }),
            Expected::healthy(),
        ),
    ]
}

/// Failures that masquerade must not be blamed for.
fn other_causes() -> Vec<Scenario> {
    let lo = HostDnsAddress { scope: Some(0), ..HostDnsAddress::default() };
    let faulty = |faults| NodeSpec { faults, ..known() };
    let over = Over { udp: Ended::Answered, tcp: Ended::PortUnreachable };
    let udp_only = Ends { ipv4: over, ipv6: over };
    vec![
        scenario(
            "address-absent",
            "The address is not there: the query follows the default route out",
            on_lo(HostDnsAddress { scope: None, ..lo }),
            Expected::fails_everywhere(Ended::Leaked, Request, "HDP101"),
        ),
        // The request died, at the end of its way: the direction is the request's.
        scenario(
            "nobody-listens",
            "The address is there, host DNS is not",
            on_lo(HostDnsAddress { udp: false, tcp: false, ..lo }),
            Expected::fails_everywhere(Ended::PortUnreachable, Request, "HDP103"),
        ),
        scenario(
            "upstream-down",
            "Host DNS answers SERVFAIL: forwarding works, its upstream does not",
            NodeSpec { upstream: Upstream::Down, ..known() },
            Expected::answered("HDP407"),
        ),
        scenario(
            "upstream-slow",
            "The upstream takes 1.5 s: that is not the datapath",
            NodeSpec { upstream: Upstream::Slow(1500), ..known() },
            Expected::answered("HDP410"),
        ),
        scenario(
            "policy-denied",
            "A network policy denies the pods' egress to the address",
            NodeSpec { cilium: CiliumSpec { policy_denies: true, ..CiliumSpec::default() }, ..known() },
            Expected::fails(Ended::Dropped, Request, "HDP213").unpredicted(),
        ),
        scenario(
            "reply-lost",
            "The answers wait for ever in the queue of the pod's device: no drop, no trace",
            faulty(Faults { reply_queue_stuck: true, ..Faults::default() }),
            Expected::fails(Ended::Lost, Reply, "HDP403").unpredicted(),
        ),
        scenario(
            "reply-ttl-expired",
            "The answers have one hop less to live than they need",
            NodeSpec { reply_ttl: 1, ..known() },
            Expected::fails(Ended::Dropped, Reply, "HDP404").unpredicted(),
        ),
        scenario(
            "rp-filter-strict",
            "rp_filter 1 for all: the route back to the pod is not the way it came",
            faulty(Faults { rp_filter_strict: true, ..Faults::default() }),
            Expected::fails(Ended::Dropped, Request, "HDP107"),
        ),
        scenario(
            "node-firewall-blocks",
            "The node's ingress firewall does not know the pods' subnet",
            faulty(Faults { firewall: true, ..Faults::default() }),
            Expected::fails(Ended::Dropped, Request, "HDP108").unpredicted(),
        ),
        scenario(
            "tcp-only-broken",
            "Host DNS listens over UDP only",
            on_lo(HostDnsAddress { tcp: false, ..lo }),
            Expected { pods: udp_only, node: udp_only, ..Expected::fails(Ended::PortUnreachable, Request, "HDP104") },
        ),
    ]
}

/// Other shapes of nodes.
fn shapes() -> Vec<Scenario> {
    let coredns = |coredns, node| NodeSpec { coredns, ..node };
    let local_dns = HostDnsAddress {
        address: NODE_LOCAL_DNS,
        scope: Some(0),
        device: AddressDevice::NodeLocalDns,
        ..HostDnsAddress::default()
    };
    let v6 = HostDnsAddress { address: HOST_DNS_V6, scope: Some(0), ..HostDnsAddress::default() };
    vec![
        scenario(
            "coredns-bypasses-host-dns",
            "CoreDNS forwards to a server outside; host DNS would work",
            coredns(CoreDns::BypassesHostDns, known()),
            Expected::healthy(),
        ),
        scenario(
            "coredns-on-host-network",
            "CoreDNS asks from the node itself: only ordinary pods are cut off",
            coredns(CoreDns::HostNetwork, unknown()),
            Expected { pods: Ends::all(Ended::Leaked), ..Expected::healthy() },
        ),
        scenario(
            "no-coredns-here",
            "CoreDNS runs on other nodes: other pods decide",
            coredns(CoreDns::Elsewhere, known()),
            Expected::healthy(),
        ),
        Scenario {
            check_args: vec!["--address".into(), NODE_LOCAL_DNS.to_string()],
            ..scenario(
                "node-local-dns-169.254.20.10",
                "node-local-dns on a device that 1.16.5 does not take addresses from",
                NodeSpec { cilium: version(CiliumVersion::V1_16_5), ..on_lo(local_dns) },
                leaks(),
            )
        },
        Scenario {
            check_args: vec!["--address".into(), HOST_DNS_V6.to_string()],
            ..scenario(
                "ipv6-host-dns",
                "IPv6 host DNS has scope global, so Cilium knows it",
                NodeSpec { ipv6: true, ..on_lo(v6) },
                Expected::healthy(),
            )
        },
        scenario(
            "dual-stack-one-broken",
            "IPv6 host DNS works, IPv4 leaks",
            NodeSpec { ipv6: true, host_dns: vec![HostDnsAddress::default(), v6], ..unknown() },
            Expected { pods: Ends { ipv6: Over::both(Ended::Answered), ..Ends::all(Ended::Leaked) }, ..leaks() },
        ),
        scenario(
            "private-cgroup-namespace",
            "check runs in a container that sees its own cgroup subtree only",
            NodeSpec { faults: Faults { private_cgroup_namespace: true, ..Faults::default() }, ..known() },
            Expected::healthy(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_good_for_a_lab() {
        let rows = all();
        let names: BTreeSet<_> = rows.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows.len());
        assert!(rows.len() >= 33, "{} scenarios", rows.len());
        assert!(
            names
                .iter()
                .all(|name| name.len() < 40 && name.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c)))
        );
    }

    #[test]
    fn a_broken_node_has_a_cause_and_a_direction() {
        for row in all().iter().filter(|row| row.expected.status == crate::report::Status::Fail) {
            assert!(row.expected.cause.is_some(), "{}", row.name);
            assert_ne!(row.expected.direction, crate::ended::Direction::None, "{}", row.name);
        }
    }

    #[test]
    fn the_verdict_is_the_end_of_a_test() {
        for row in all() {
            let tests = row.tests();
            assert!(tests.len() >= 8, "{}", row.name);
            assert!(tests.iter().any(|(_test, ended)| Some(*ended) == row.expected.ended), "{}", row.name);
        }
    }

    #[test]
    fn a_node_survives_json() {
        for row in all() {
            let text = serde_json::to_string(&row.node).unwrap();
            assert_eq!(serde_json::from_str::<NodeSpec>(&text).unwrap(), row.node, "{}", row.name);
        }
    }
}
