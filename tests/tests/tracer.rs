//! The tracer on real packets, in namespaces of its own: what is seen, in which order, under which identity, and what
//! is not. Needs root and eBPF.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

// A subdirectory, or cargo would take it for a test of its own.
#[path = "tracer/net.rs"]
mod net;

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use hostdns_probe::{
    facts::Transport,
    target::Targets,
    trace::{
        HookKind,
        event::Event,
        tracer::{Follow, InterfaceToWatch, TraceConfig, Tracer},
    },
};
use net::Node;

const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03org\x00\x00\x01\x00\x01";

fn config(node: &Node) -> TraceConfig {
    let interface = |name: &str, exit| InterfaceToWatch {
        index: node.index(name),
        name: name.to_owned(),
        exit,
        needed: true,
        layer3: false,
    };
    TraceConfig {
        targets: Targets::default(),
        cgroup_root: Some(net::cgroup_root()),
        interfaces: vec![interface("eth0", true), interface("lo", false), interface("lxc1", false)],
        own_netns: node.node.id().unwrap().cookie,
        pod_netns: vec![node.pod.id().unwrap().cookie],
        follow: Follow::Cilium,
        ..TraceConfig::default()
    }
}

/// Starts a tracer in the node's namespace.
fn start(node: &Node, config: TraceConfig) -> (tokio::runtime::Runtime, Tracer) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let began = Instant::now();
    let handle = runtime.handle().clone();
    let tracer = node.node.run(move || handle.block_on(Tracer::start(config))).unwrap().unwrap();
    eprintln!("the tracer started in {:?}", began.elapsed());
    for hook in tracer.hooks() {
        assert!(hook.attached, "{hook:?}");
        assert!(hook.since_ns > 0);
    }
    (runtime, tracer)
}

/// Events until there are `count`, or none comes for half a second.
fn events(runtime: &tokio::runtime::Runtime, tracer: &Tracer, count: usize) -> Vec<Event> {
    runtime.block_on(async {
        let mut events = Vec::new();
        while events.len() < count {
            match tokio::time::timeout(Duration::from_millis(500), tracer.recv()).await {
                Ok(Some(event)) => events.push(event),
                _ => break,
            }
        }
        events
    })
}

fn hooks(events: &[Event]) -> Vec<HookKind> {
    events.iter().map(|event| event.hook).collect()
}

/// Sends one query from the pod and returns its socket.
fn ask(node: &Node, tracer: Option<&Tracer>, to: &str) -> UdpSocket {
    let to: SocketAddr = to.parse().unwrap();
    let socket = node.pod.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    if let Some(tracer) = tracer {
        tracer.own_port(Transport::Udp, socket.local_addr().unwrap().port()).unwrap();
    }
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket.send_to(QUERY, to).unwrap();
    socket
}

#[test]
fn a_query_and_its_answer_are_seen_at_every_hook() {
    use HookKind::{Egress, Ingress, SocketIn, SocketOut};
    let node = Node::new();
    let server = node.serve();
    let (runtime, tracer) = start(&node, config(&node));
    let socket = ask(&node, Some(&tracer), "169.254.116.108:53");
    let mut answer = [0; 512];
    let (len, _) = socket.recv_from(&mut answer).unwrap();
    assert_eq!(&answer[..2], &QUERY[..2]);
    assert_eq!(len, QUERY.len());

    let events = events(&runtime, &tracer, 6);
    assert_eq!(hooks(&events), [SocketOut, Ingress, SocketIn, SocketOut, Egress, SocketIn], "{events:#?}");
    let (query, reply) = events.split_at(3);
    assert!(query.iter().all(|event| event.skb == query[0].skb && event.skb != 0), "one skb: {query:#?}");
    assert!(reply.iter().all(|event| event.skb == reply[0].skb), "one skb: {reply:#?}");
    let (pod, here) = (node.pod.id().unwrap().cookie, node.node.id().unwrap().cookie);
    assert_eq!(query.iter().map(|event| event.netns).collect::<Vec<_>>(), [pod, here, here]);
    assert_eq!(reply.iter().map(|event| event.netns).collect::<Vec<_>>(), [here, here, pod]);
    assert_eq!(query[1].ifindex, node.index("lxc1"));
    assert_eq!(reply[1].ifindex, node.index("lxc1"));
    // The socket that received is the one that answered.
    assert_eq!((query[2].socket, reply[0].socket), (server.cookie, server.cookie));
    for event in &events {
        let dns = event.dns.as_ref().unwrap();
        assert_eq!((dns.id, dns.qname.as_deref(), dns.qtype), (0x1234, Some("example.org."), Some(1)));
    }
    assert!(events.windows(2).all(|pair| pair[0].time_ns <= pair[1].time_ns));
    let counts = tracer.counts();
    assert_eq!((counts.seen, counts.lost), (6, 0));
    assert_eq!(tracer.other_counts().seen, 0);
    runtime.block_on(tracer.detach());
}

#[test]
fn a_closed_port_is_a_drop_by_name_and_an_icmp_error() {
    let node = Node::new();
    let (runtime, tracer) = start(&node, config(&node));
    let _socket = ask(&node, Some(&tracer), "169.254.116.108:53");
    let events = events(&runtime, &tracer, 100);
    let drop = events.iter().find(|event| event.hook == HookKind::Drop).expect("a drop");
    assert_eq!(drop.drop_reason.as_deref(), Some("NO_SOCKET"));
    assert_eq!(drop.skb, events[0].skb);
    assert_eq!(drop.netns, node.node.id().unwrap().cookie);
    assert_eq!(drop.dns.as_ref().unwrap().id, 0x1234);
    let error = events.iter().find(|event| event.icmp_error.is_some()).expect("an ICMP error");
    assert_eq!(error.icmp_error, Some((3, 3)));
    assert_eq!(error.flow, events[0].flow, "it quotes the query");
    runtime.block_on(tracer.detach());
}

#[test]
fn what_leaves_through_an_exit_is_transmitted() {
    let node = Node::new();
    node.without_address();
    let (runtime, tracer) = start(&node, config(&node));
    let _socket = ask(&node, Some(&tracer), "169.254.116.108:53");
    let events = events(&runtime, &tracer, 4);
    assert_eq!(
        hooks(&events),
        [HookKind::SocketOut, HookKind::Ingress, HookKind::Egress, HookKind::Transmit],
        "{events:#?}"
    );
    let transmit = &events[3];
    assert_eq!(transmit.ifindex, node.index("eth0"));
    assert_eq!(transmit.skb, events[0].skb);
    let flow = transmit.flow.unwrap();
    // Nothing masquerades here: the source on the wire is the pod's. The lab shows it translated.
    assert_eq!(flow.src.ip(), "10.0.0.2".parse::<std::net::IpAddr>().unwrap());
    assert_eq!(flow.dst, "169.254.116.108:53".parse().unwrap());
    assert_eq!(transmit.ttl, 63);
    assert_eq!(transmit.dns.as_ref().unwrap().qname.as_deref(), Some("example.org."));
    runtime.block_on(tracer.detach());
}

#[test]
fn another_node_with_the_same_addresses_is_not_heard() {
    let (node, other) = (Node::new(), Node::new());
    let _server = node.serve();
    let _twin = other.serve();
    let (runtime, tracer) = start(&node, config(&node));
    for _ in 0..20 {
        let socket = ask(&other, None, "169.254.116.108:53");
        socket.recv_from(&mut [0; 512]).unwrap();
    }
    let mine = ask(&node, None, "169.254.116.108:53");
    mine.recv_from(&mut [0; 512]).unwrap();
    let events = events(&runtime, &tracer, 100);
    assert_eq!(events.len(), 6, "{events:#?}");
    let port = mine.local_addr().unwrap().port();
    assert!(events.iter().all(|event| {
        let flow = event.flow.unwrap();
        flow.src.port() == port || flow.dst.port() == port
    }));
    assert_eq!(tracer.counts().seen, 0, "no port was announced");
    // The kernel uses a packet's address again: a free there, by a test beside this one, counts until its bytes are read.
    // The other node's queries alone would be a hundred.
    let seen = tracer.other_counts().seen;
    assert!((6..20).contains(&seen), "{seen}");
    runtime.block_on(tracer.detach());
}

#[test]
fn a_device_that_comes_later_is_followed() {
    let node = Node::new();
    let (runtime, tracer) = start(&node, config(&node));
    node.add_veth("lxc2");
    let deadline = Instant::now() + Duration::from_secs(5);
    while !tracer.hooks().iter().any(|hook| hook.interface.as_deref() == Some("lxc2") && hook.attached) {
        assert!(Instant::now() < deadline, "{:#?}", tracer.hooks());
        std::thread::sleep(Duration::from_millis(5));
    }
    runtime.block_on(tracer.detach());
}

#[test]
fn classic_filters_see_the_same_and_are_removed() {
    use HookKind::{Egress, Ingress, SocketIn, SocketOut};
    let node = Node::new();
    let _server = node.serve();
    let before = node.qdiscs();
    let (runtime, tracer) = start(&node, TraceConfig { force_clsact: true, ..config(&node) });
    assert!(node.filters("lxc1").contains("hostdns_ingress"), "{}", node.filters("lxc1"));
    let socket = ask(&node, Some(&tracer), "169.254.116.108:53");
    socket.recv_from(&mut [0; 512]).unwrap();
    let events = events(&runtime, &tracer, 6);
    assert_eq!(hooks(&events), [SocketOut, Ingress, SocketIn, SocketOut, Egress, SocketIn], "{events:#?}");
    runtime.block_on(tracer.detach());
    // The guardian removes the qdiscs once it sees the pipe closed.
    let deadline = Instant::now() + Duration::from_secs(5);
    while node.qdiscs() != before {
        assert!(Instant::now() < deadline, "left behind: {}", node.qdiscs());
        std::thread::sleep(Duration::from_millis(5));
    }
}
