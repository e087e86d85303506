//! Packets of every shape on real devices: whatever carries a query is recognised, and nothing else is taken for one.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

#[path = "shapes/frame.rs"]
mod frame;
#[path = "tracer/net.rs"]
#[expect(dead_code, reason = "shared with the tracer's tests")]
mod net;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use end_to_end::is_root_or_skips;
use frame::{Injector, QUERY, ethernet, ipv4, ipv4_between, ipv6, tcp, udp, v4, v6};
use hostdns_probe::{
    facts::Transport,
    target::{HOST_DNS_V4, HOST_DNS_V6, Targets},
    trace::{
        HookKind,
        event::Event,
        tracer::{InterfaceToWatch, TraceConfig, Tracer},
    },
};
use net::Node;

const UDP: u8 = 17;
const TCP: u8 = 6;
/// A source port that no frame but the last uses.
const LAST: u16 = 65_000;

struct Traced {
    node: Node,
    runtime: tokio::runtime::Runtime,
    tracer: Tracer,
}

impl Traced {
    fn new(node: Node, devices: &[&str]) -> Self {
        let interface = |name: &&str| InterfaceToWatch {
            index: node.index(name),
            name: (*name).to_owned(),
            needed: true,
            ..InterfaceToWatch::default()
        };
        let config = TraceConfig {
            targets: Targets { addresses: vec![HOST_DNS_V4, HOST_DNS_V6], ..Targets::default() },
            cgroup_root: Some(net::cgroup_root()),
            interfaces: devices.iter().map(interface).collect(),
            own_netns: node.node.id().unwrap().cookie,
            pod_netns: vec![node.pod.id().unwrap().cookie],
            ..TraceConfig::default()
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let tracer = node.node.run(move || handle.block_on(Tracer::start(config))).unwrap().unwrap();
        assert!(tracer.hooks().iter().all(|hook| hook.attached), "{:#?}", tracer.hooks());
        Self { node, runtime, tracer }
    }

    /// Sends the frames, a plain query after them, and returns the events at `hook` up to that.
    fn inject(&self, injector: &Injector, hook: HookKind, frames: &[Vec<u8>]) -> Vec<Event> {
        for frame in frames {
            injector.send(frame);
        }
        injector.send(&v4(&ipv4(UDP, &[], 0, &udp(LAST, 53, QUERY))));
        let mut events = self.events(|event| event.hook == hook && port(event) == LAST);
        events.retain(|event| event.hook == hook && port(event) != LAST);
        events
    }

    /// Events until `last` is among them.
    fn events(&self, last: impl Fn(&Event) -> bool) -> Vec<Event> {
        self.runtime.block_on(async {
            let mut events = Vec::new();
            loop {
                let event = tokio::time::timeout(Duration::from_secs(5), self.tracer.recv()).await;
                let event = event.unwrap_or_else(|_late| panic!("the last one did not come: {events:#?}")).unwrap();
                events.push(event);
                if events.last().is_some_and(&last) {
                    return events;
                }
            }
        })
    }

    fn end(self) {
        assert_eq!((self.tracer.counts().lost, self.tracer.other_counts().lost), (0, 0));
        self.runtime.block_on(self.tracer.detach());
    }
}

fn port(event: &Event) -> u16 {
    event.flow.unwrap().src.port()
}

fn ports(events: &[Event]) -> Vec<u16> {
    events.iter().map(port).collect()
}

/// All of them are the query from the pod to the address.
fn are_queries(events: &[Event], from: IpAddr, to: IpAddr) {
    for event in events {
        let flow = event.flow.unwrap();
        assert_eq!((flow.src.ip(), flow.dst), (from, SocketAddr::new(to, 53)), "{event:#?}");
        let dns = event.dns.as_ref().unwrap_or_else(|| panic!("no DNS: {event:#?}"));
        assert_eq!((dns.id, dns.qname.as_deref(), dns.qtype), (0x1234, Some("example.org."), Some(1)));
    }
}

fn pod() -> IpAddr {
    frame::POD.into()
}

fn with_ipv6() -> Node {
    let node = Node::new();
    node.node.run(|| std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0").unwrap()).unwrap();
    net::run(&node.node, "ip addr add fd54:616c:6f73::204f:5320:444e:531/128 dev lo nodad");
    net::run(&node.node, "ip addr add fd00::1/64 dev lxc1 nodad");
    net::run(&node.pod, "ip addr add fd00::2/64 dev eth0 nodad");
    net::run(&node.pod, "ip route add default via fd00::1");
    net::run(&node.pod, "ip neigh replace fd00::1 dev eth0 lladdr 02:00:00:00:01:01");
    net::run(&node.node, "ip neigh replace fd00::2 dev lxc1 lladdr 02:00:00:00:01:02");
    node
}

#[test]
fn ipv6_over_udp() {
    use HookKind::{Egress, Ingress, SocketIn, SocketOut};
    if !is_root_or_skips("ipv6_over_udp") {
        return;
    }
    let traced = Traced::new(with_ipv6(), &["lxc1"]);
    let address = SocketAddr::new(HOST_DNS_V6, 53);
    let server = traced.node.node.run(|| UdpSocket::bind(address).unwrap()).unwrap();
    let client = traced.node.pod.run(|| UdpSocket::bind("[fd00::2]:0").unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    client.send_to(QUERY, address).unwrap();
    let mut buffer = [0; 512];
    let (len, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(&buffer[..len], from).unwrap();
    client.recv_from(&mut buffer).unwrap();
    let own = client.local_addr().unwrap().port();
    let events = traced.events(|event| event.hook == SocketIn && port(event) == 53);
    let hooks: Vec<_> = events.iter().map(|event| event.hook).collect();
    assert_eq!(hooks, [SocketOut, Ingress, SocketIn, SocketOut, Egress, SocketIn], "{events:#?}");
    are_queries(&events[..3], "fd00::2".parse().unwrap(), HOST_DNS_V6);
    assert!(events[3..].iter().all(|event| event.flow.unwrap().dst.port() == own && event.dns.is_some()));
    traced.end();
}

#[test]
fn tcp_shows_its_handshake_the_query_and_the_answer() {
    if !is_root_or_skips("tcp_shows_its_handshake_the_query_and_the_answer") {
        return;
    }
    let traced = Traced::new(Node::new(), &["lxc1"]);
    let address = SocketAddr::new(HOST_DNS_V4, 53);
    let listener = traced.node.node.run(|| TcpListener::bind(address).unwrap()).unwrap();
    let mut client = traced.node.pod.run(|| TcpStream::connect(address).unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let mut message = (QUERY.len() as u16).to_be_bytes().to_vec();
    message.extend(QUERY);
    client.write_all(&message).unwrap();
    let mut received = vec![0; message.len()];
    server.read_exact(&mut received).unwrap();
    received[4] |= 0x80; // now it is an answer
    server.write_all(&received).unwrap();
    client.read_exact(&mut message).unwrap();
    let answers = |event: &Event| event.dns.as_ref().is_some_and(|dns| dns.is_response());
    let events = traced.events(|event| event.hook == HookKind::SocketIn && answers(event));
    assert!(events.iter().all(|event| event.flow.unwrap().transport == Transport::Tcp));
    let at = |hook, what: &dyn Fn(&Event) -> bool| events.iter().any(|event| event.hook == hook && what(event));
    let (syn, syn_ack) = (|event: &Event| event.tcp_flags & 0x12 == 2, |event: &Event| event.tcp_flags & 0x12 == 0x12);
    assert!(at(HookKind::SocketOut, &syn) && at(HookKind::Ingress, &syn), "{events:#?}");
    assert!(at(HookKind::Egress, &syn_ack), "{events:#?}");
    let asks = |event: &Event| {
        event.dns.as_ref().is_some_and(|dns| !dns.is_response() && dns.qname.as_deref() == Some("example.org."))
    };
    assert!(at(HookKind::SocketOut, &asks) && at(HookKind::SocketIn, &asks), "{events:#?}");
    assert!(at(HookKind::SocketOut, &answers) && at(HookKind::SocketIn, &answers), "{events:#?}");
    traced.end();
}

#[test]
fn options_and_extension_headers_are_stepped_over() {
    if !is_root_or_skips("options_and_extension_headers_are_stepped_over") {
        return;
    }
    let traced = Traced::new(with_ipv6(), &["lxc1"]);
    let injector = Injector::new(&traced.node.pod, "eth0");
    let frames =
        [v4(&ipv4(UDP, &[1; 4], 0, &udp(1001, 53, QUERY))), v4(&ipv4(UDP, &[1; 40], 0, &udp(1002, 53, QUERY)))];
    let events = traced.inject(&injector, HookKind::Ingress, &frames);
    assert_eq!(ports(&events), [1001, 1002]);
    are_queries(&events, pod(), HOST_DNS_V4);

    // Hop by hop (8 bytes), destination options (16), routing (8), a first fragment, an authentication header (24).
    let padding = |next: u8, units: u8| {
        let mut bytes = vec![next, units, 1, 4 + units * 8];
        bytes.resize(8 * (usize::from(units) + 1), 0);
        bytes
    };
    let mut authentication = vec![UDP, 4];
    authentication.resize(24, 0);
    let frames = [
        v6(&ipv6(0, &[padding(UDP, 0), udp(1003, 53, QUERY)].concat())),
        v6(&ipv6(0, &[padding(60, 0), padding(43, 1), vec![UDP, 0, 4, 0, 0, 0, 0, 0], udp(1004, 53, QUERY)].concat())),
        v6(&ipv6(44, &[vec![UDP, 0, 0, 1, 0, 0, 0, 7], udp(1005, 53, QUERY)].concat())),
        v6(&ipv6(51, &[authentication, udp(1006, 53, QUERY)].concat())),
    ];
    let events = traced.inject(&injector, HookKind::Ingress, &frames);
    assert_eq!(ports(&events), [1003, 1004, 1005, 1006]);
    are_queries(&events, "fd00::2".parse().unwrap(), HOST_DNS_V6);
    traced.end();
}

#[test]
fn only_the_first_fragment_has_ports() {
    if !is_root_or_skips("only_the_first_fragment_has_ports") {
        return;
    }
    let traced = Traced::new(with_ipv6(), &["lxc1"]);
    let injector = Injector::new(&traced.node.pod, "eth0");
    // The bytes of the later ones look like UDP to port 53.
    let frames = [
        v4(&ipv4(UDP, &[], 0x2000, &udp(1101, 53, QUERY))),
        v4(&ipv4(UDP, &[], 0x2004, &udp(1102, 53, QUERY))),
        v4(&ipv4(UDP, &[], 0x0008, &udp(1103, 53, QUERY))),
        v6(&ipv6(44, &[vec![UDP, 0, 0, 0x21, 0, 0, 0, 9], udp(1104, 53, QUERY)].concat())),
        v6(&ipv6(44, &[vec![UDP, 0, 0, 0x20, 0, 0, 0, 9], udp(1105, 53, QUERY)].concat())),
    ];
    assert_eq!(ports(&traced.inject(&injector, HookKind::Ingress, &frames)), [1101]);
    traced.end();
}

#[test]
fn tagged_frames_on_both_sides() {
    if !is_root_or_skips("tagged_frames_on_both_sides") {
        return;
    }
    let traced = Traced::new(Node::new(), &["lxc1"]);
    let tagged = |tags: &[(u16, u16)], source| ethernet(tags, 0x0800, &ipv4(UDP, &[], 0, &udp(source, 53, QUERY)));
    let frames = |first| {
        [
            tagged(&[(0x8100, 7)], first),
            tagged(&[(0x88a8, 7), (0x8100, 8)], first + 1),
            tagged(&[(0x88a8, 7), (0x8100, 8), (0x8100, 9)], first + 2),
        ]
    };
    // Somebody listens: there are no ICMP errors on the way out.
    let _sink = traced.node.node.run(|| UdpSocket::bind((HOST_DNS_V4, 53)).unwrap()).unwrap();
    // On its way in the kernel takes the outer tag off; on its way out all are in the packet.
    for (netns, device, hook, first) in
        [(&traced.node.pod, "eth0", HookKind::Ingress, 1201), (&traced.node.node, "lxc1", HookKind::Egress, 1211)]
    {
        let events = traced.inject(&Injector::new(netns, device), hook, &frames(first));
        assert_eq!(ports(&events), [first, first + 1, first + 2], "{hook:?}");
        are_queries(&events, pod(), HOST_DNS_V4);
    }
    traced.end();
}

#[test]
fn a_device_without_link_header() {
    if !is_root_or_skips("a_device_without_link_header") {
        return;
    }
    let node = Node::new();
    let mut tun = node.node.run(|| hostdns_probe::lab::tun::create("tun7").unwrap()).unwrap();
    net::run(&node.node, "ip link set tun7 up");
    // An address whose first bytes, where an Ethernet header has its type, read as IPv4 with a version behind it.
    let tricky = [8, 0, 0x45, 1];
    net::run(&node.node, "ip route add 8.0.69.1/32 dev tun7");
    let traced = Traced::new(node, &["tun7", "lxc1"]);
    let index = traced.node.index("tun7");
    tun.write_all(&ipv4(UDP, &[], 0, &udp(1301, 53, QUERY))).unwrap();
    tun.write_all(&ipv4_between(tricky, frame::TARGET, UDP, &[1; 4], 0, &udp(1302, 53, QUERY))).unwrap();
    let events = traced.events(|event| event.hook == HookKind::Ingress && port(event) == 1302);
    let ingress: Vec<Event> = events.into_iter().filter(|event| event.hook == HookKind::Ingress).collect();
    assert!(ingress.iter().all(|event| event.ifindex == index));
    assert_eq!(ports(&ingress), [1301, 1302]);
    are_queries(&ingress[..1], pod(), HOST_DNS_V4);
    are_queries(&ingress[1..], IpAddr::from(tricky), HOST_DNS_V4);

    let server = traced.node.node.run(|| UdpSocket::bind((HOST_DNS_V4, 53)).unwrap()).unwrap();
    server.send_to(QUERY, (IpAddr::from(tricky), 1302)).unwrap();
    let events = traced.events(|event| event.hook == HookKind::Egress && event.icmp_error.is_none());
    let egress = events.last().unwrap();
    assert_eq!(egress.ifindex, index);
    assert_eq!(egress.flow.unwrap().dst, SocketAddr::new(tricky.into(), 1302));
    assert!(egress.dns.is_some());
    traced.end();
}

#[test]
fn icmp_errors_count_if_they_quote_a_query() {
    if !is_root_or_skips("icmp_errors_count_if_they_quote_a_query") {
        return;
    }
    let traced = Traced::new(with_ipv6(), &["lxc1"]);
    let injector = Injector::new(&traced.node.pod, "eth0");
    let error = |kind: u8, code: u8, quoted: &[u8]| {
        let icmp = [&[kind, code, 0, 0, 0, 0, 0, 0][..], quoted].concat();
        v4(&ipv4_between([10, 0, 0, 9], [10, 0, 0, 1], 1, &[], 0, &icmp))
    };
    let query = |source| ipv4(UDP, &[], 0, &udp(source, 53, QUERY));
    let error_v6 =
        |kind: u8, code: u8, quoted: &[u8]| v6(&ipv6(58, &[&[kind, code, 0, 0, 0, 0, 0, 0][..], quoted].concat()));
    let frames = [
        error(3, 1, &query(1401)),
        error(11, 0, &query(1402)[..28]), // as much as RFC 792 asks for
        error(3, 3, &ipv4(UDP, &[1; 8], 0, &udp(1403, 53, QUERY))),
        error(3, 3, &ipv4(TCP, &[], 0, &tcp(1404, 5, &[]))[..28]),
        error_v6(1, 4, &ipv6(UDP, &udp(1405, 53, QUERY))),
        // None of ours: an echo, another port, another address, a quote that is cut short, a later fragment.
        error(8, 0, &query(1411)),
        error(3, 3, &ipv4(UDP, &[], 0, &udp(1412, 54, QUERY))),
        error(3, 3, &ipv4_between([10, 0, 0, 2], [10, 0, 0, 1], UDP, &[], 0, &udp(1413, 53, QUERY))),
        error(3, 3, &query(1414)[..23]),
        error(3, 3, &ipv4(UDP, &[], 0x0010, &udp(1415, 53, QUERY))),
        error_v6(128, 0, &ipv6(UDP, &udp(1416, 53, QUERY))),
    ];
    let events = traced.inject(&injector, HookKind::Ingress, &frames);
    let seen: Vec<_> = events.iter().map(|event| (port(event), event.icmp_error)).collect();
    assert_eq!(
        seen,
        [(1401, Some((3, 1))), (1402, Some((11, 0))), (1403, Some((3, 3))), (1404, Some((3, 3))), (1405, Some((1, 4))),]
    );
    assert!(events.iter().all(|event| event.flow.unwrap().dst.port() == 53));
    traced.end();
}

#[test]
fn what_is_malformed_is_not_taken_for_more_than_it_is() {
    if !is_root_or_skips("what_is_malformed_is_not_taken_for_more_than_it_is") {
        return;
    }
    let traced = Traced::new(with_ipv6(), &["lxc1"]);
    let injector = Injector::new(&traced.node.pod, "eth0");
    let query = |source| ipv4(UDP, &[], 0, &udp(source, 53, QUERY));
    let changed = |mut packet: Vec<u8>, at: usize, byte: u8| {
        packet[at] = byte;
        packet
    };
    // Nothing of these is a query: headers that are cut short, or that lie about themselves.
    let mut frames: Vec<Vec<u8>> = (0..28).filter(|len| *len != 0).map(|len| v4(&query(1500)[..len])).collect();
    frames.extend((0..=4).map(|words| v4(&changed(query(1501), 0, 0x40 | words))));
    frames.push(v4(&changed(query(1502), 0, 0x4f))); // options to the end of the packet
    frames.push(v4(&changed(query(1503), 0, 0x65))); // IPv6 in its first half byte alone
    frames.push(v4(&changed(changed(query(1504), 2, 0), 3, 0))); // total length 0
    frames.push(v4(&changed(changed(query(1505), 2, 0), 3, 27))); // half a UDP header
    frames.push(v6(&query(1506)));
    frames.push(v4(&ipv6(UDP, &udp(1507, 53, QUERY))));
    frames.extend((1..48).map(|len| v6(&ipv6(UDP, &udp(1508, 53, QUERY))[..len])));
    frames.push(v6(&ipv6(0, &[[0, 0, 1, 4, 0, 0, 0, 0].repeat(20), udp(1509, 53, QUERY)].concat()))); // endless
    frames.push(v6(&ipv6(60, &[vec![UDP, 255, 1, 4, 0, 0, 0, 0], udp(1510, 53, QUERY)].concat())));
    frames.push(v4(&ipv4(TCP, &[], 0, &tcp(1511, 5, &[])[..13])));
    frames.push(ethernet(&[(0x8100, 1); 5], 0x0800, &query(1512))); // more tags than anybody uses
    frames.push(ethernet(&[(0x8100, 1)], 0x0800, &[]));
    frames.push(ethernet(&[], 0x8847, &query(1513)));
    let events = traced.inject(&injector, HookKind::Ingress, &frames);
    assert_eq!(ports(&events), [0; 0], "{events:#?}");

    // These have a flow; of a DNS message they show no more than there is.
    let with_payload = |source, payload: &[u8]| v4(&ipv4(UDP, &[], 0, &udp(source, 53, payload)));
    let message = [&2_u16.to_be_bytes()[..], QUERY].concat();
    let frames = [
        with_payload(1601, &[]),
        with_payload(1602, &QUERY[..11]),
        with_payload(1603, &[0xff; 300]),
        with_payload(1604, &[&QUERY[..12], &[0xc0, 12, 0xc0, 12]].concat()), // a name that points at itself
        v4(&changed(query(1605), 2, 0xff)),                                  // longer than the packet
        v4(&ipv4(TCP, &[], 0, &tcp(1606, 0, &message))),                     // a header that ends before it begins
        v4(&ipv4(TCP, &[], 0, &tcp(1607, 15, &message))),                    // one that ends behind the packet
    ];
    let events = traced.inject(&injector, HookKind::Ingress, &frames);
    assert_eq!(ports(&events), [1601, 1602, 1603, 1604, 1605, 1606, 1607]);
    for event in &events {
        let name = event.dns.as_ref().and_then(|dns| dns.qname.as_ref());
        assert_eq!(name, None, "{event:#?}");
    }
    traced.end();
}
