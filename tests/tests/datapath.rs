//! The lab's datapath decides as Cilium does: each row of what was measured, with packets.
//!
//! A server on the node and one outside have the same address; the answer says which of them it was and whom it saw.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

#[path = "datapath/node.rs"]
mod node;
#[path = "datapath/traffic.rs"]
mod traffic;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use aya::programs::TcAttachType;
use hostdns_probe::{
    facts::{HostRouting, Masquerade, RoutingMode},
    lab::spec::{CiliumSpec, CiliumVersion},
};
use node::{HOST_DNS, HOST_DNS_V6, NODE, Node, OUTSIDE, Wanted};
use traffic::{ask, bound};

const POD: &str = "10.244.1.101";

fn with(change: impl FnOnce(&mut Wanted)) -> Node {
    let mut wanted = Wanted::default();
    change(&mut wanted);
    Node::new(&wanted)
}

fn delivered(node: &Node) {
    let expected = Some(format!("node saw {POD}"));
    assert_eq!(node.udp(0, HOST_DNS), expected, "udp");
    assert_eq!(node.tcp(0, HOST_DNS), expected, "tcp");
    assert!(node.ping(0, HOST_DNS), "ping");
    assert!(!node.metrics().contains_key(&169));
    assert!(towards_host_dns(node).is_empty(), "delivered packets are not masqueraded");
    control(node);
}

fn leaked_as(node: &Node, source: &str) {
    let expected = Some(format!("outside saw {source}"));
    assert_eq!(node.udp(0, HOST_DNS), expected, "udp");
    assert_eq!(node.tcp(0, HOST_DNS), expected, "tcp");
    assert!(node.ping(0, HOST_DNS), "ping: answered outside");
    assert_eq!(node.metrics(), [].into(), "a leak is counted nowhere");
    control(node);
}

fn dropped(node: &Node, reason: u8) -> [u8; 8] {
    assert_eq!(node.udp(0, HOST_DNS), None, "udp");
    assert_eq!(node.tcp(0, HOST_DNS), None, "tcp");
    assert!(!node.ping(0, HOST_DNS), "ping");
    let metrics = node.metrics();
    let (packets, key) = metrics[&reason];
    assert!(packets >= 3, "{metrics:?}");
    control(node);
    key
}

/// What worked in every case that was measured.
fn control(node: &Node) {
    assert_eq!(node.udp(0, NODE), Some(format!("node saw {POD}")), "the node's own address");
    assert_eq!(node.tcp(0, NODE), Some(format!("node saw {POD}")), "the node's own address");
    assert_eq!(node.udp(0, OUTSIDE).unwrap_or_default(), format!("outside saw {NODE}"), "masqueraded");
    assert_eq!(node.tcp(0, OUTSIDE).unwrap_or_default(), format!("outside saw {NODE}"), "masqueraded");
    assert!(node.ping(0, OUTSIDE), "masqueraded");
}

fn towards_host_dns(node: &Node) -> Vec<([u8; 14], [u8; 40])> {
    node.snat().into_iter().filter(|(key, _)| key[..4] == [169, 254, 116, 108]).collect()
}

#[test]
fn unknown_leaks_out_of_one_device_as_the_node() {
    let node = with(|_| {});
    leaked_as(&node, NODE);
    // Checked against recorded entries: `a9fe746c 0af40198 0035 9083 11 00` -> `c0a84d02 9083`, and its reverse
    // `c0a84d02 a9fe746c 9083 0035 11 01` -> `0af40198 9083`.
    let entries = towards_host_dns(&node);
    let (key, value) = entries.iter().find(|(key, _)| key[12] == 17).unwrap();
    assert_eq!(key[4..8], [10, 244, 1, 101]);
    assert_eq!((&key[8..10], key[13]), (&[0, 53][..], 0));
    assert_eq!(value[32..36], [192, 168, 77, 2]);
    assert_eq!(value[36..38], key[10..12], "the port is kept");
    let reverse = [&value[32..36], &key[0..4], &value[36..38], &key[8..10], &[17, 1]].concat();
    let all = node.snat();
    let (_, back) = all.iter().find(|(key, _)| key[..] == reverse[..]).unwrap();
    assert_eq!(back[32..38], [&key[4..8], &key[10..12]].concat()[..]);
    let header = std::fs::read_to_string(node.state_dir.join("1001/ep_config.h")).unwrap();
    assert!(header.contains("ENABLE_SKIP_FIB"));
}

#[test]
fn unknown_is_dropped_with_two_devices() {
    let node = with(|wanted| wanted.externals = 2);
    assert_eq!(dropped(&node, 169), [0xa9, 2, 0x51, 5, 2, 0, 0, 0], "the key that Cilium 1.18.1 counts under");
}

#[test]
fn unknown_is_delivered_by_1_19_with_two_devices() {
    let version = CiliumVersion::V1_19_0Pre0;
    delivered(&with(|wanted| (wanted.externals, wanted.cilium.version) = (2, version)));
}

#[test]
fn unknown_still_leaks_on_1_19_with_one_device() {
    leaked_as(&with(|wanted| wanted.cilium.version = CiliumVersion::V1_19_0Pre0), NODE);
}

#[test]
fn endpoint_routes_turn_the_leak_into_a_drop() {
    dropped(&with(|wanted| wanted.cilium.endpoint_routes = true), 169);
}

#[test]
fn known_is_delivered_with_endpoint_routes() {
    delivered(&with(|wanted| (wanted.cilium.endpoint_routes, wanted.scope) = (true, Some("global"))));
}

#[test]
fn legacy_routing_delivers() {
    let legacy = |wanted: &mut Wanted| wanted.cilium.host_routing = HostRouting::Legacy;
    delivered(&with(legacy));
    delivered(&with(|wanted| (legacy(wanted), wanted.externals = 2).0));
}

#[test]
fn legacy_routing_leaks_an_absent_address() {
    let node = with(|wanted| (wanted.cilium.host_routing, wanted.scope) = (HostRouting::Legacy, None));
    leaked_as(&node, NODE);
}

#[test]
fn known_is_delivered() {
    let node = with(|wanted| wanted.scope = Some("global"));
    delivered(&node);
    assert_eq!(node.lxc(HOST_DNS.parse().unwrap()).unwrap()[8..12], [1, 0, 0, 0]);
    delivered(&with(|wanted| (wanted.scope, wanted.externals) = (Some("global"), 2)));
}

#[test]
fn a_raised_scope_limit_makes_it_known() {
    delivered(&with(|wanted| wanted.cilium.address_scope_max = 254));
}

#[test]
fn a_change_of_scope_is_followed_within_a_second() {
    let node = with(|_| {});
    let address = HOST_DNS.parse().unwrap();
    let settles = |known: bool| {
        let start = Instant::now();
        while node.lxc(address).is_some() != known {
            assert!(start.elapsed() < Duration::from_secs(1), "not within a second");
            thread::sleep(Duration::from_millis(5));
        }
    };
    assert_eq!(node.udp(0, HOST_DNS), Some(format!("outside saw {NODE}")));
    for (scope, known) in [("global", true), ("host", false), ("global", true)] {
        node.ip(&format!("addr del {HOST_DNS}/32 dev lo"));
        node.ip(&format!("addr add {HOST_DNS}/32 dev lo scope {scope}"));
        settles(known);
        let answer = node.udp(0, HOST_DNS).unwrap_or_default();
        assert_eq!(answer.starts_with("node"), known, "{scope}: {answer}");
    }
}

#[test]
fn tunnel_mode_lost_the_way_to_the_stack_with_1_16_5() {
    let tunnel = |version| {
        move |wanted: &mut Wanted| {
            (wanted.cilium.routing, wanted.cilium.version) = (RoutingMode::Tunnel, version);
        }
    };
    delivered(&with(tunnel(CiliumVersion::V1_16_4)));
    leaked_as(&with(tunnel(CiliumVersion::V1_16_5)), NODE);
    leaked_as(&with(tunnel(CiliumVersion::V1_18_1)), NODE);
}

#[test]
fn version_decides_which_maps_are_pinned() {
    let old = with(|wanted| wanted.cilium.version = CiliumVersion::V1_16_5);
    assert_eq!(old.pins(), ["cilium_ipcache", "cilium_lxc", "cilium_metrics", "cilium_snat_v4_external"]);
    let mut new = with(|wanted| wanted.cilium.ip_masq_agent = true);
    let names = ["cilium_ipcache_v2", "cilium_ipmasq_v4", "cilium_lxc", "cilium_metrics", "cilium_snat_v4_external"];
    assert_eq!(new.pins(), names);
    new.datapath.take();
    assert_eq!(new.pins(), [""; 0]);
}

#[test]
fn programs_are_where_cilium_has_them_and_nothing_is_left() {
    use TcAttachType::{Egress, Ingress};
    // The kernel keeps 15 characters of a name.
    let hooks = [
        ("lxc1", Ingress, "cil_from_contai"),
        ("lxc1", Egress, "cil_to_containe"),
        ("eth0", Ingress, "cil_from_netdev"),
        ("eth0", Egress, "cil_to_netdev"),
        ("cilium_host", Ingress, "cil_to_host"),
        ("cilium_host", Egress, "cil_from_host"),
        ("cilium_net", Ingress, "cil_to_host"),
    ];
    let mut node = with(|wanted| wanted.cilium.endpoint_routes = true);
    for (interface, side, program) in hooks {
        assert_eq!(node.programs(interface, side), [program], "{interface}");
    }
    node.datapath.take();
    // The kernel lets go of a link in a work of its own (kernel/bpf/syscall.c, bpf_link_put).
    let deadline = Instant::now() + Duration::from_secs(2);
    for (interface, side, _) in hooks {
        while !node.programs(interface, side).is_empty() {
            assert!(Instant::now() < deadline, "{interface}: {:?}", node.programs(interface, side));
            thread::sleep(Duration::from_millis(5));
        }
    }
    assert!(!node.agent_socket.exists());
    let plain = with(|_| {});
    assert_eq!(plain.programs("lxc1", Egress), [""; 0], "with endpoint routes only");
}

#[test]
fn iptables_masquerade_falls_back_to_legacy() {
    let node = with(|wanted| wanted.cilium.masquerade = Masquerade::Iptables);
    assert_eq!(node.udp(0, HOST_DNS), Some(format!("node saw {POD}")));
    assert_eq!(node.udp(0, OUTSIDE), Some(format!("outside saw {POD}")), "no BPF masquerade, and no iptables here");
    assert!(node.snat().is_empty());
}

#[test]
fn ip_masq_agent_leaks_as_the_pod() {
    let node = with(|wanted| wanted.cilium.ip_masq_agent = true);
    leaked_as(&node, POD);
    assert!(towards_host_dns(&node).is_empty());
}

#[test]
fn a_policy_drops_whatever_the_routing() {
    let denied = CiliumSpec { policy_denies: true, ..CiliumSpec::default() };
    let legacy = CiliumSpec { host_routing: HostRouting::Legacy, ..denied.clone() };
    for cilium in [denied, legacy] {
        let node = with(|wanted| (wanted.cilium, wanted.scope) = (cilium, Some("global")));
        assert_eq!(dropped(&node, 133)[1], 2, "egress");
    }
}

#[test]
fn an_answer_survives_exactly_one_hop() {
    let node = with(|wanted| (wanted.scope, wanted.reply_ttl) = (Some("global"), 1));
    assert_eq!(node.udp(0, HOST_DNS), None);
    assert_eq!(node.metrics()[&196].0, 1);
}

#[test]
fn an_error_from_outside_finds_the_pod() {
    let node = with(|_| {});
    let server: SocketAddr = format!("{OUTSIDE}:9").parse().unwrap();
    let answer = node.pods[0].run(|| ask(&bound(server), server)).unwrap();
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn two_pods_with_one_source_port_are_told_apart() {
    let node = with(|_| {});
    let server: SocketAddr = format!("{OUTSIDE}:53").parse().unwrap();
    let from =
        |pod: usize| node.pods[pod].run(|| ask(&std::net::UdpSocket::bind("0.0.0.0:40000").unwrap(), server)).unwrap();
    for pod in [0, 1, 0, 1] {
        assert_eq!(from(pod).unwrap(), format!("outside saw {NODE}"));
    }
    let ports: Vec<[u8; 2]> = node.snat().iter().filter(|(key, _)| key[13] == 0).map(|(_, v)| [v[36], v[37]]).collect();
    assert_eq!(ports.len(), 2);
    assert_ne!(ports[0], ports[1]);
}

#[test]
fn pods_reach_each_other() {
    for routing in [HostRouting::Bpf, HostRouting::Legacy] {
        let node = with(|wanted| wanted.cilium.host_routing = routing);
        assert!(node.ping(0, "10.244.1.102"), "{routing:?}");
    }
}

#[test]
fn ipv6_known_is_delivered_and_absent_leaks_as_the_pod() {
    let known = with(|wanted| wanted.v6 = true);
    assert_eq!(known.udp(0, HOST_DNS_V6).as_deref(), Some("node saw fd00:10:244:1::100"));
    assert_eq!(known.tcp(0, HOST_DNS_V6).as_deref(), Some("node saw fd00:10:244:1::100"));
    let absent = with(|wanted| (wanted.v6, wanted.scope) = (true, None));
    assert_eq!(absent.udp(0, HOST_DNS_V6).as_deref(), Some("outside saw fd00:10:244:1::100"));
    let dead = with(|wanted| (wanted.v6, wanted.scope, wanted.reply_ttl) = (true, Some("host"), 1));
    assert_eq!(dead.udp(0, HOST_DNS_V6), None);
}

#[test]
fn a_device_without_ethernet_leaks_and_answers_come_back() {
    let node = with(|wanted| wanted.tun = true);
    let mut tun = node.tun.as_ref().unwrap().try_clone().unwrap();
    let server: SocketAddr = format!("{HOST_DNS}:53").parse().unwrap();
    let outside = thread::spawn(move || {
        let mut seen = Vec::new();
        let mut packet = [0_u8; 256];
        while seen.len() < 2 {
            let length = tun.read(&mut packet).unwrap();
            let packet = &mut packet[..length];
            if packet[0] != 0x45 || packet[9] != 17 {
                continue; // IPv6 router solicitations
            }
            seen.push(packet.to_vec());
            // Addresses and ports change places: all checksums stay right.
            for (a, b, n) in [(12, 16, 4), (20, 22, 2)] {
                for i in 0..n {
                    packet.swap(a + i, b + i);
                }
            }
            tun.write_all(packet).unwrap();
        }
        seen
    });
    // The second pod's port is taken by then: another one goes into the checksum.
    for pod in [0, 1] {
        let answer = node.pods[pod].run(|| ask(&std::net::UdpSocket::bind("0.0.0.0:40000").unwrap(), server));
        assert_eq!(answer.unwrap().unwrap(), "who?");
    }
    let seen = outside.join().unwrap();
    for packet in &seen {
        assert_eq!(packet[12..20], [192, 168, 77, 2, 169, 254, 116, 108]);
        assert_eq!(sum(&packet[..20]), 0xffff, "IP checksum");
        let pseudo = [&packet[12..20], &[0, 17], &packet[24..26]].concat();
        assert_ne!(packet[26..28], [0, 0]);
        assert_eq!(sum(&[&pseudo[..], &packet[20..]].concat()), 0xffff, "UDP checksum");
    }
    assert_eq!(seen[0][20..22], 40000_u16.to_be_bytes());
    assert_ne!(seen[1][20..22], 40000_u16.to_be_bytes());
}

fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[test]
fn the_agent_answers_on_its_socket() {
    let node = with(|_| {});
    let mut stream = UnixStream::connect(&node.agent_socket).unwrap();
    stream.write_all(b"GET /v1/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"));
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["routing"]["intra-host-routing-mode"], "BPF");
}
