//! A small builder of cases: a healthy node, and what is changed about it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{Case, Finding};
use crate::{
    ended::{Direction, Ended},
    facts::{
        Cilium, Corefile, Fact, Facts, HostRouting, InterfaceAddress, Link, Listener, LxcEntry, Masquerade, NetnsId,
        Pod, PodRole, Route, RoutingMode, Transport,
    },
    query::{Query, VantageKind},
    report::Prediction,
    target::Targets,
    trace::{CiliumReason, Drop, EventCounts, Flow, Hook, HookKind, Hop, Leak, Lost, PacketTrace},
};

pub(crate) const HOST_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 116, 108));

pub(crate) fn known<T>(value: T) -> Fact<T> {
    Fact::known(value, "test")
}

pub(crate) fn address(interface: &str, address: IpAddr, scope: u8) -> InterfaceAddress {
    let prefix_len = if address.is_ipv4() { 32 } else { 128 };
    InterfaceAddress { interface: interface.into(), address, prefix_len, scope, flags: vec!["permanent".into()] }
}

pub(crate) fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.into(),
        kind: None,
        mac: None,
        up: true,
        peer_index: None,
        peer_nsid: None,
        master: None,
        layer3: false,
    }
}

pub(crate) fn listener(local: &str, transport: Transport) -> Listener {
    Listener { local: local.parse().unwrap(), transport, cookie: 1, process: None, pid: None, interface: None }
}

pub(crate) fn local_route(address: IpAddr) -> Route {
    let len = if address.is_ipv4() { 32 } else { 128 };
    Route {
        destination: format!("{address}/{len}"),
        kind: "local".into(),
        table: 255,
        interface: Some("lo".into()),
        gateway: None,
    }
}

pub(crate) fn default_route() -> Route {
    Route {
        destination: "0.0.0.0/0".into(),
        kind: "unicast".into(),
        table: 254,
        interface: Some("eth0".into()),
        gateway: None,
    }
}

pub(crate) fn pod(name: &str, role: PodRole) -> Pod {
    Pod {
        name: name.into(),
        namespace: None,
        container: None,
        role,
        pid: 1,
        netns: NetnsId { dev: 4, inode: 5, cookie: 6 },
        host_network: false,
        interface: Some("lxc1".into()),
        addresses: Vec::new(),
    }
}

/// A healthy Talos node: Cilium 1.18.1, BPF host routing, native, one device, the address on `lo` with scope global.
pub(crate) fn facts() -> Facts {
    let mut facts = Facts::default();
    facts.kernel.node_name = known("n1".into());
    facts.kernel.os = known("Talos (v1.11.2)".into());
    facts.network.addresses = known(vec![address("lo", HOST_DNS, 0)]);
    facts.network.routes = known(vec![local_route(HOST_DNS), default_route()]);
    facts.network.links = known(vec![link(1, "lo"), link(2, "eth0"), link(3, "cilium_host")]);
    facts.network.rp_filter = known(BTreeMap::from([("lxc1".into(), 0)]));
    facts.listeners =
        known(vec![listener("169.254.116.108:53", Transport::Udp), listener("169.254.116.108:53", Transport::Tcp)]);
    facts.pods = known(vec![pod("coredns-1", PodRole::Coredns)]);
    facts.coredns = known(vec![Corefile {
        pod: "coredns-1".into(),
        path: "/etc/coredns/Corefile".into(),
        forwards_to: vec!["169.254.116.108".into()],
        forwards: Vec::new(),
    }]);
    facts.cilium = Cilium {
        version: known("1.18.1".into()),
        state: known("Ok".into()),
        host_routing: known(HostRouting::Bpf),
        legacy_routing_configured: known(false),
        routing_mode: known(RoutingMode::Native),
        masquerade: known(Masquerade::Bpf),
        kube_proxy_replacement: known("True".into()),
        ipsec: known(false),
        legacy_because: known(Vec::new()),
        endpoint_routes: known(false),
        address_scope_max: known(252),
        exclude_local_addresses: known(Vec::new()),
        devices: known(vec!["eth0".into()]),
        lxc: BTreeMap::from([(HOST_DNS, known(Some(LxcEntry { ifindex: 0, lxc_id: 0, flags: 1 })))]),
        ..Cilium::default()
    };
    facts
}

/// As Talos leaves it: scope host, so Cilium does not know the address.
pub(crate) fn hide(facts: &mut Facts) {
    facts.network.addresses = known(vec![address("lo", HOST_DNS, 254)]);
    facts.cilium.lxc.insert(HOST_DNS, known(None));
}

/// What becomes of one query in a test.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// By the node's own server.
    Answered,
    Rcode(&'static str),
    Slow(u64),
    Leaked,
    /// It left the node, and a server outside answered.
    LeakedButAnswered,
    /// Kernel reason, half, Cilium's reason.
    Dropped(&'static str, Direction, Option<u8>),
    Lost(Direction),
    Refused,
    Unanswered,
    Malformed,
    /// It timed out, and the trace saw nothing.
    Silent,
    /// It was answered, and the trace saw nothing.
    Unseen,
}

pub(crate) struct Scene {
    pub targets: Targets,
    pub facts: Facts,
    pub hooks: Vec<Hook>,
    pub queries: Vec<Query>,
    pub traces: Vec<PacketTrace>,
    pub events: EventCounts,
    pub prediction: Prediction,
    pub prediction_on_host: Prediction,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self {
            targets: Targets::default(),
            facts: facts(),
            hooks: vec![
                hook("cgroup_skb ingress", None, true),
                hook("cgroup_skb egress", None, true),
                hook("tcx ingress", Some("lxc1"), true),
                hook("tcx egress", Some("eth0"), true),
            ],
            queries: Vec::new(),
            traces: Vec::new(),
            events: EventCounts { seen: 20, lost: 0 },
            prediction: Prediction::default(),
            prediction_on_host: Prediction::default(),
        }
    }

    pub(crate) fn facts(mut self, change: impl FnOnce(&mut Facts)) -> Self {
        change(&mut self.facts);
        self
    }

    /// UDP and TCP from a CoreDNS pod.
    pub(crate) fn coredns(self, fate: Fate) -> Self {
        self.asks(VantageKind::Coredns, Transport::Udp, fate.clone()).asks(VantageKind::Coredns, Transport::Tcp, fate)
    }

    pub(crate) fn asks(self, kind: VantageKind, transport: Transport, fate: Fate) -> Self {
        self.asks_at(kind, SocketAddr::new(HOST_DNS, 53), transport, fate)
    }

    pub(crate) fn asks_at(mut self, kind: VantageKind, to: SocketAddr, transport: Transport, fate: Fate) -> Self {
        let id = u32::try_from(self.traces.len()).unwrap() + 1;
        let source: SocketAddr = if to.is_ipv4() { "10.0.0.5:40000" } else { "[fd00::5]:40000" }.parse().unwrap();
        let vantage = match kind {
            VantageKind::Coredns => "coredns-1",
            VantageKind::CorednsOnHost => "coredns-host",
            VantageKind::Named => "mine",
            VantageKind::Pod => "app-1",
            VantageKind::Health => "lxc_health",
            VantageKind::Node => "node",
            VantageKind::NodeLoopback => "node@127.0.0.53",
        };
        let mut query = Query {
            vantage: vantage.into(),
            vantage_kind: kind,
            address: to,
            transport,
            qname: "example.com".into(),
            qtype: "A".into(),
            source: Some(source),
            id: 1,
            ended: Ended::Unanswered,
            rcode: None,
            truncated: false,
            answers: Vec::new(),
            rtt_us: None,
            note: Some("timed out after 5 s".into()),
            traces: vec![id],
        };
        let mut trace = PacketTrace {
            id,
            flow: Flow { src: source, dst: to, transport },
            started_ns: 0,
            hops: vec![hop(HookKind::Ingress, Some("lxc1"), Direction::Request, source, to)],
            ended: Ended::Unknown,
            unknown: None,
            drop: None,
            leak: None,
            lost: None,
        };
        let mut answered = |rcode: &str, rtt_us| {
            query.ended = Ended::Answered;
            query.rcode = Some(rcode.into());
            query.answers = vec!["192.0.2.1".into()];
            query.rtt_us = Some(rtt_us);
            query.note = None;
        };
        let leaked = Some(Leak { interface: "eth0".into(), r#as: Some("192.0.2.7:40000".parse().unwrap()) });
        match fate {
            Fate::Answered | Fate::Rcode(_) | Fate::Slow(_) => {
                let (rcode, rtt) = match fate {
                    Fate::Rcode(rcode) => (rcode, 400),
                    Fate::Slow(us) => ("NOERROR", us),
                    _ => ("NOERROR", 400),
                };
                answered(rcode, rtt);
                trace.ended = Ended::Answered;
            }
            Fate::LeakedButAnswered => {
                answered("NOERROR", 900);
                (trace.ended, trace.leak) = (Ended::Leaked, leaked);
            }
            Fate::Leaked => (trace.ended, trace.leak) = (Ended::Leaked, leaked),
            Fate::Dropped(reason, direction, code) => {
                let cilium_reason = code.map(|code| CiliumReason { code, text: "reason".into() });
                let r#where = "lxc1 on the node".into();
                trace.ended = Ended::Dropped;
                trace.drop = Some(Drop { reason: reason.into(), r#where, direction, cilium_reason });
            }
            Fate::Lost(direction) => {
                trace.ended = Ended::Lost;
                trace.lost = Some(Lost { last_hop: "lxc1 ingress".into(), direction });
            }
            Fate::Refused => {
                query.ended = Ended::PortUnreachable;
                query.note = Some("connection refused".into());
                trace.ended = Ended::PortUnreachable;
            }
            Fate::Unanswered => {
                trace.ended = Ended::Unanswered;
                trace.hops.push(hop(HookKind::SocketIn, None, Direction::Request, source, to));
            }
            Fate::Malformed => query.ended = Ended::Malformed,
            Fate::Unseen => answered("NOERROR", 400),
            Fate::Silent => {}
        }
        if matches!(fate, Fate::Unseen | Fate::Silent) {
            query.traces.clear();
        } else {
            self.traces.push(trace);
        }
        self.queries.push(query);
        self
    }

    pub(crate) fn case(&self) -> Case<'_> {
        Case {
            targets: &self.targets,
            facts: &self.facts,
            hooks: &self.hooks,
            queries: &self.queries,
            traces: &self.traces,
            events: self.events,
            prediction: &self.prediction,
            prediction_on_host: &self.prediction_on_host,
        }
    }

    pub(crate) fn findings(&self) -> Vec<Finding> {
        super::run(&self.case())
    }

    /// The findings' codes, as in `HDP201`.
    pub(crate) fn codes(&self) -> Vec<String> {
        self.findings().into_iter().map(|finding| finding.code).collect()
    }

    pub(crate) fn finding(&self, code: &str) -> Option<Finding> {
        self.findings().into_iter().find(|finding| finding.code == code)
    }
}

pub(crate) fn hook(name: &str, interface: Option<&str>, attached: bool) -> Hook {
    let reason = (!attached).then(|| "the kernel refused it".into());
    Hook { name: name.into(), interface: interface.map(Into::into), attached, reason, since_ns: 0 }
}

fn hop(hook: HookKind, interface: Option<&str>, direction: Direction, src: SocketAddr, dst: SocketAddr) -> Hop {
    Hop { t_us: 0, hook, interface: interface.map(Into::into), netns: "node".into(), direction, src, dst, note: None }
}
