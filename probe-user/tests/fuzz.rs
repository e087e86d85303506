//! Fuzzing of everything that reads bytes off the kernel, and of the joining behind it. In `cargo test` each target runs
//! for a second, on inputs of a random generator. With `cargo install cargo-bolero`, a coverage-guided engine goes on for as
//! long as wanted: `cargo bolero test -p probe-user --test fuzz NAME` (nightly; `-e libfuzzer`, `afl`, `honggfuzz`).

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use bolero::{TypeGenerator, check};
use hostdns_probe::{
    facts::Transport,
    trace::{
        Flow, HookKind,
        correlate::{Correlator, Horizon, MAX_OPEN, correlate},
        decode::{self, packet},
        event::{Cover, Device, DeviceRole, DnsHead, Event, Topology},
    },
};
use hostdns_probe_ebpf::Packet;

const TIME: Duration = Duration::from_secs(1);

fn printable(name: &str) -> bool {
    name.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
}

#[test]
fn records() {
    let reasons = BTreeMap::from([(3, "NO_SOCKET".to_owned())]);
    check!().with_test_time(TIME).for_each(|bytes: &[u8]| {
        if let Ok(event) = decode::event(bytes, &reasons) {
            assert!(event.payload.is_none_or(|payload| payload.len() <= bytes.len()));
            assert!(event.dns.and_then(|dns| dns.qname).is_none_or(|name| printable(&name)));
        }
    });
}

#[test]
fn packets() {
    check!().with_test_time(TIME).for_each(|bytes: &[u8]| {
        let (remembered, bytes) = bytes.split_at(bytes.len().min(48));
        let word = |at: usize| {
            remembered.get(at..at + 4).map_or(0, |four| u32::from_ne_bytes(four.try_into().unwrap_or_default()))
        };
        let mut known =
            Packet { family: if word(0) & 1 == 0 { 4 } else { 6 }, transport: 17, dst_port: 53, ..Packet::default() };
        (known.src, known.dst) = ([4, 8, 12, 16].map(word), [20, 24, 28, 32].map(word));
        (known.src_port, known.head) = (word(36) as u16, word(40).to_ne_bytes());
        known.icmp_type = word(44) as u8 & 3;
        let address = |words: [u32; 4]| SocketAddr::new(words[0].to_ne_bytes().into(), 0);
        let flow = Flow { src: address(known.src), dst: address(known.dst), transport: Transport::Udp };
        if let packet::Same::Whole(whole) = packet::same(bytes, &known, flow) {
            assert!(whole.payload.len() < bytes.len());
        }
    });
}

/// Two readers of the same message agree on what both can read. The other one comes with the probe.
#[cfg(feature = "probe")]
#[test]
fn messages() {
    use hostdns_probe::trace::decode::dns;

    check!().with_test_time(TIME).for_each(|bytes: &[u8]| {
        let ours = dns::head(bytes, Transport::Udp);
        let _ = (dns::head(bytes, Transport::Tcp), dns::is_broken(bytes));
        let Ok(theirs) = hickory_proto::op::Message::from_vec(bytes) else { return };
        let ours = ours.expect("it has a header");
        assert_eq!(ours.id, theirs.metadata.id);
        if let Some(question) = theirs.queries.first() {
            assert!(!dns::is_broken(bytes));
            assert_eq!(ours.qtype, Some(u16::from(question.query_type())));
        }
    });
}

/// One sighting out of few values, so that they collide.
#[derive(Clone, Debug, TypeGenerator)]
struct Sight {
    after_us: u16,
    hook: u8,
    place: u8,
    ifindex: u8,
    skb: u8,
    port: u8,
    id: u8,
    flags: u8,
    tcp: bool,
    shows: u8,
}

const HOOKS: [HookKind; 6] =
    [HookKind::SocketOut, HookKind::SocketIn, HookKind::Ingress, HookKind::Egress, HookKind::Transmit, HookKind::Drop];

fn topology(strangers: bool, complete: bool) -> Topology {
    let device = |index, role| Device {
        index,
        name: format!("dev{index}"),
        role,
        stacked_on: None,
        covered_since_ns: None,
        pod: None,
    };
    Topology {
        node: 1,
        pods: vec![(2, "pod".into())],
        devices: vec![device(1, DeviceRole::External), device(2, DeviceRole::Pod), device(3, DeviceRole::CiliumHost)],
        servers: vec![(7, ([169, 254, 116, 108], 53).into())],
        targets: vec![([169, 254, 116, 108], 53).into()],
        strangers,
        cover: Cover { sockets: true, drops: true, transmit: true, exits: true, complete },
        ..Topology::default()
    }
}

impl Sight {
    fn event(&self, time_ns: u64) -> Event {
        let transport = if self.tcp { Transport::Tcp } else { Transport::Udp };
        let client = SocketAddr::from(([10, 0, 0, self.port >> 6], 40_000 + u16::from(self.port & 3)));
        let server = SocketAddr::from(([169, 254, 116, 108], 53));
        let reply = self.flags & 1 != 0;
        let (src, dst) = if reply { (server, client) } else { (client, server) };
        let dns = DnsHead {
            id: u16::from(self.id & 3),
            flags: if reply { 0x8180 } else { 0x0100 },
            qname: (self.shows & 2 != 0).then(|| "example.".to_owned()),
            qtype: (self.shows & 2 != 0).then_some(1),
        };
        Event {
            time_ns,
            hook: HOOKS[usize::from(self.hook) % HOOKS.len()],
            netns: u64::from(self.place & 3),
            ifindex: u32::from(self.ifindex & 3),
            skb: u64::from(self.skb & 7),
            came_by: u32::from(self.ifindex >> 6),
            socket: u64::from(self.skb & 7),
            flow: (self.shows & 4 != 0).then_some(Flow { src, dst, transport }),
            dns: (self.shows & 1 != 0).then_some(dns),
            tcp_flags: if self.tcp { self.flags >> 1 & 31 } else { 0 },
            sequence: [0; 2],
            ttl: 64,
            drop_reason: None,
            icmp_error: (self.flags & 0xc0 == 0xc0).then_some((3, 3)),
            payload: None,
            payload_len: 0,
        }
    }
}

/// However it goes: each sighting belongs to one transaction at most, none to another question over UDP, and what is kept
/// is bounded.
#[test]
fn joining() {
    check!().with_test_time(TIME).with_type::<(Vec<Sight>, bool, bool)>().for_each(|(sights, strangers, complete)| {
        let mut time_ns = 1;
        let events: Vec<Event> = sights
            .iter()
            .map(|sight| {
                time_ns += u64::from(sight.after_us) * 1000 * u64::from(sight.after_us & 63);
                sight.event(time_ns)
            })
            .collect();
        let topology = topology(*strangers, *complete);
        let traces = correlate(&events, &topology, Horizon { now_ns: time_ns, last: true });
        assert!(traces.iter().map(|trace| trace.hops.len()).sum::<usize>() <= events.len());
        let mut correlator = Correlator::default();
        let mut finished = Vec::new();
        for event in &events {
            correlator.push(event.clone(), &topology);
            finished.extend(correlator.take_finished(&topology, Horizon { now_ns: event.time_ns, last: false }));
            assert!(correlator.open() <= MAX_OPEN);
        }
        finished.extend(correlator.take_finished(&topology, Horizon { now_ns: u64::MAX, last: true }));
        assert_eq!(correlator.open(), 0);
        assert!(finished.iter().map(|one| one.events.len()).sum::<usize>() <= events.len());
        for one in &finished {
            assert_eq!(one.events.len(), one.trace.hops.len());
            assert!(one.events.is_sorted_by_key(|event| event.time_ns));
            let mut ids = one.events.iter().filter(|event| event.flow.is_some() && event.icmp_error.is_none());
            let ids = ids.by_ref().filter_map(|event| event.dns.as_ref().map(|dns| dns.id));
            if one.trace.flow.transport == Transport::Udp {
                let ids: std::collections::BTreeSet<u16> = ids.collect();
                assert!(ids.len() <= 1, "two questions in one: {:?}", one.events);
            }
        }
    });
}
