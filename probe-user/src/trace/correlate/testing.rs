//! A small node for the tests, queries on it, and what becomes of them.

use std::net::SocketAddr;

use super::{joiner::Joiner, *};
use crate::{
    facts::Transport,
    trace::{
        Flow, HookKind,
        event::{Cover, Device, DeviceRole, DnsHead},
    },
};

pub(super) const NODE: u64 = 1;
pub(super) const POD: u64 = 2;
pub(super) const ELSEWHERE: u64 = 99;
pub(super) const SERVER_SOCKET: u64 = 77;
pub(super) const ETH0: u32 = 2;
const CILIUM_HOST: u32 = 4;
pub(super) const LXC: u32 = 6;
pub(super) const TARGET: &str = "169.254.116.108:53";

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub(super) fn topology() -> Topology {
    let device = |index, name: &str, role| Device {
        index,
        name: name.into(),
        role,
        stacked_on: None,
        covered_since_ns: Some(0),
        pod: None,
    };
    Topology {
        node: NODE,
        pods: vec![(POD, "coredns-x".into())],
        devices: vec![
            device(ETH0, "eth0", DeviceRole::External),
            device(CILIUM_HOST, "cilium_host", DeviceRole::CiliumHost),
            device(LXC, "lxcaa", DeviceRole::Pod),
        ],
        servers: vec![(SERVER_SOCKET, addr(TARGET))],
        clients: Vec::new(),
        targets: vec![addr(TARGET)],
        strangers: false,
        cover: Cover { sockets: true, drops: true, transmit: true, exits: true, complete: true },
    }
}

/// One query of a pod: its port and id tell it apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) port: u16,
    pub(super) id: u16,
    pub(super) start: u64,
    pub(super) skb: u64,
}

impl Asked {
    pub(super) fn event(
        self,
        after_us: u64,
        hook: HookKind,
        (netns, ifindex): (u64, u32),
        src: &str,
        dst: &str,
        reply: bool,
    ) -> Event {
        Event {
            netns,
            ifindex,
            skb: self.skb + u64::from(reply),
            flow: Some(Flow { src: addr(src), dst: addr(dst), transport: Transport::Udp }),
            dns: Some(DnsHead {
                id: self.id,
                flags: if reply { 0x8180 } else { 0x0100 },
                qname: Some("example.com.".into()),
                qtype: Some(1),
            }),
            ttl: 64,
            ..Event::bare(hook, self.start + after_us * 1000)
        }
    }

    pub(super) fn pod(self) -> String {
        format!("10.244.1.132:{}", self.port)
    }

    pub(super) fn out_of_the_pod(self) -> Vec<Event> {
        let pod = self.pod();
        vec![
            self.event(0, HookKind::SocketOut, (POD, 0), &pod, TARGET, false),
            self.event(11, HookKind::Ingress, (NODE, LXC), &pod, TARGET, false),
        ]
    }

    /// The seven sightings of a healthy query.
    pub(super) fn healthy(self) -> Vec<Event> {
        let pod = self.pod();
        let mut events = self.out_of_the_pod();
        let mut at_server = self.event(19, HookKind::SocketIn, (NODE, LXC), &pod, TARGET, false);
        at_server.socket = SERVER_SOCKET;
        events.push(at_server);
        events.push(self.event(300, HookKind::SocketOut, (NODE, 0), TARGET, &pod, true));
        events.push(self.event(310, HookKind::Egress, (NODE, CILIUM_HOST), TARGET, &pod, true));
        events.push(self.event(320, HookKind::Egress, (NODE, LXC), TARGET, &pod, true));
        events.push(self.event(330, HookKind::SocketIn, (POD, 0), TARGET, &pod, true));
        events
    }

    /// Out through the one external device, as the node.
    pub(super) fn leaked(self) -> Vec<Event> {
        let pod = self.pod();
        let node = format!("192.168.77.2:{}", self.port);
        let mut events = self.out_of_the_pod();
        events.push(self.event(19, HookKind::Egress, (NODE, ETH0), &pod, TARGET, false));
        events.push(self.event(21, HookKind::Transmit, (NODE, ETH0), &node, TARGET, false));
        events
    }

    /// What a server outside makes of it.
    pub(super) fn answered_from_outside(self) -> Vec<Event> {
        let node = format!("192.168.77.2:{}", self.port);
        vec![
            self.event(500, HookKind::Ingress, (NODE, ETH0), TARGET, &node, true),
            self.event(510, HookKind::SocketIn, (POD, 0), TARGET, &self.pod(), true),
        ]
    }

    pub(super) fn dropped(self) -> Vec<Event> {
        let mut events = self.out_of_the_pod();
        let mut drop = self.event(13, HookKind::Drop, (NODE, LXC), &self.pod(), TARGET, false);
        drop.drop_reason = Some("TC_INGRESS".into());
        drop.dns = None;
        events.push(drop);
        events
    }
}

pub(super) fn at_last(events: &[Event]) -> Vec<PacketTrace> {
    correlate(events, &topology(), Horizon { now_ns: 10_000_000_000, last: true })
}

/// A stream in order of time, looked at every 20 ms.
pub(super) fn live(events: &[Event]) -> Vec<PacketTrace> {
    finished(events).into_iter().map(|finished| finished.trace).collect()
}

/// The same, with the events of each.
pub(super) fn finished(events: &[Event]) -> Vec<Finished> {
    finished_on(events, &topology())
}

/// The same on another node.
pub(super) fn finished_on(events: &[Event], topology: &Topology) -> Vec<Finished> {
    let mut sorted = events.to_vec();
    sorted.sort_by_key(|event| event.time_ns);
    let (mut correlator, mut ended, mut looked_ns) = (Correlator::default(), Vec::new(), 0);
    for event in &sorted {
        if event.time_ns > looked_ns + 20_000_000 {
            looked_ns = event.time_ns;
            ended.extend(correlator.take_finished(topology, Horizon { now_ns: looked_ns, last: false }));
        }
        correlator.push(event.clone(), topology);
    }
    ended.extend(correlator.take_finished(topology, Horizon { now_ns: u64::MAX, last: true }));
    assert_eq!(correlator.open(), 0);
    let Joiner { by_key, by_ends, waiting, by_skb, .. } = &correlator.joiner;
    assert!(by_key.is_empty() && by_ends.is_empty() && waiting.is_empty(), "ends are left behind");
    assert!(by_skb.is_empty(), "packets are left behind");
    ended
}
