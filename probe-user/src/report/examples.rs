//! Reports as real nodes give them, for the snapshots: the numbers are those of measured runs.

use std::{io, net::SocketAddr};

use super::{Node, Options, Prediction, Report, SCHEMA, Status, Tool, Verdict};
use crate::{
    checks::{Finding, Remedy, Severity},
    ended::{Direction, Ended},
    facts::{
        AttachPoint, AttachedProgram, Fact, Facts, HostRouting, InterfaceAddress, LxcEntry, Masquerade, NetnsId, Pod,
        PodRole, RoutingMode, Transport,
    },
    query::{Query, VantageKind},
    target::HOST_DNS_V4,
    trace::{CiliumReason, Drop, EventCounts, Flow, Hook, HookKind, Hop, Leak, Lost, PacketTrace},
};

const TARGET: &str = "169.254.116.108:53";
const POD: &str = "10.244.1.132:41334";
const NODE: &str = "192.168.77.2:41334";
const COREDNS: &str = "coredns-7c9d-x2k4p";

type Render = fn(&Report, &Options, &mut dyn io::Write) -> io::Result<()>;

pub(crate) fn rendered(render: Render, report: &Report, options: &Options) -> String {
    let mut out = Vec::new();
    render(report, options, &mut out).expect("memory can be written");
    String::from_utf8(out).expect("UTF-8")
}

pub(crate) fn all() -> [(&'static str, Report); 5] {
    [
        ("leak", leak()),
        ("drop", dropped()),
        ("healthy", healthy()),
        ("unknown", unknown()),
        ("lost_reply", lost_reply()),
    ]
}

/// One external device: the query leaves the node, masqueraded.
pub(crate) fn leak() -> Report {
    let hops = vec![
        hop(0, HookKind::SocketOut, None, POD),
        hop(11, HookKind::Ingress, Some("lxc5f2a1"), POD),
        hop(19, HookKind::Egress, Some("eth0"), POD),
        Hop { note: Some("masqueraded; left the node".into()), ..hop(21, HookKind::Transmit, Some("eth0"), NODE) },
    ];
    let leak = Some(Leak { interface: "eth0".into(), r#as: Some(socket(NODE)) });
    let mut traces = vec![PacketTrace { leak: leak.clone(), ..trace(0, Ended::Leaked, hops.clone()) }];
    // The health endpoint's packet was seen once more, on the bond's port: a worse vantage all the same.
    let more = [hops, vec![hop(23, HookKind::Transmit, Some("enp1s0"), NODE)]].concat();
    traces.push(PacketTrace { leak, ..trace(1, Ended::Leaked, more) });
    Report {
        facts: facts(254, None),
        queries: queries(Ended::Leaked, &[0], &[1]),
        traces,
        findings: vec![
            Finding { story: Some("Cilium 1.18.1 routes in BPF (host routing BPF, masquerade BPF, native routing) and does not know 169.254.116.108 as its own: it is on lo with scope host (254), Cilium takes up to 252. With one external device (eth0) it skips the route lookup and sends the packet out.".into()), remedies: remedies(), ..finding("HDP201", "unknown-address-leaks", Severity::Fail, "Cilium does not know 169.254.116.108 as the host's and sends the packet out of its one external device", &[
                "Cilium 1.18.1 routes in BPF (host routing BPF, masquerade BPF, routing native)",
                "169.254.116.108 is on lo with scope host (254); Cilium takes addresses up to scope 252",
                "cilium_lxc has no entry for it, and the ipcache calls it world (2)",
                "With one external device (eth0) Cilium skips the route lookup; no drop is counted anywhere, which is why cilium monitor shows nothing",
            ]) },
            finding("HDP402", "query-leaked", Severity::Fail, "Queries from 2 of 2 pod vantages left the node through eth0", &[]),
            finding("HDP209", "snat-entry-to-address", Severity::Info, "cilium_snat_v4_external held 212 entries towards 169.254.116.108 before the check asked: this is not new", &[]),
        ],
        prediction: prediction(Ended::Leaked, "HDP201"),
        ..report(710, Verdict {
            status: Status::Fail,
            ended: Some(Ended::Leaked),
            direction: Direction::Request,
            cause: Some("HDP201".into()),
            summary: "Pods on cp-1 cannot reach host DNS 169.254.116.108:53. Their queries leave the node through eth0, masqueraded as 192.168.77.2, instead of reaching the node's own server.".into(),
        })
    }
}

/// Two external devices: Cilium's FIB lookup fails.
pub(crate) fn dropped() -> Report {
    let hops = vec![
        hop(0, HookKind::SocketOut, None, POD),
        hop(12, HookKind::Ingress, Some("lxc5f2a1"), POD),
        Hop { note: Some("TC_INGRESS".into()), ..hop(17, HookKind::Drop, Some("lxc5f2a1"), POD) },
    ];
    let drop = Drop {
        reason: "TC_INGRESS".into(),
        r#where: "lxc5f2a1 on the node".into(),
        direction: Direction::Request,
        cilium_reason: Some(CiliumReason { code: 169, text: "FIB lookup failed".into() }),
    };
    Report {
        facts: facts(254, None),
        queries: queries(Ended::Dropped, &[0], &[]),
        traces: vec![PacketTrace { drop: Some(drop), ..trace(0, Ended::Dropped, hops) }],
        findings: vec![
            Finding { remedies: remedies(), ..finding("HDP202", "unknown-address-dropped", Severity::Fail, "Cilium does not know 169.254.116.108 as the host's, and its route lookup fails on a local route", &[
                "Cilium 1.18.1 routes in BPF, with two external devices (eth0, eth1)",
                "169.254.116.108 is on lo with scope host (254); Cilium takes addresses up to scope 252",
                "cilium_metrics counted 8 more drops of reason 169 (FIB lookup failed) while the check asked",
            ]) },
            finding("HDP401", "query-dropped", Severity::Fail, "Queries from 2 of 2 pod vantages were dropped at lxc5f2a1", &[]),
        ],
        prediction: prediction(Ended::Dropped, "HDP202"),
        ..report(640, Verdict {
            status: Status::Fail,
            ended: Some(Ended::Dropped),
            direction: Direction::Request,
            cause: Some("HDP202".into()),
            summary: "Pods on cp-1 cannot reach host DNS 169.254.116.108:53. Cilium drops their queries at lxc5f2a1: FIB lookup failed.".into(),
        })
    }
}

/// The lo workaround is in place, and another one that is not needed.
pub(crate) fn healthy() -> Report {
    let mut report = report(420, Verdict {
        status: Status::Pass,
        ended: Some(Ended::Answered),
        direction: Direction::None,
        cause: None,
        summary: "Pods on cp-1 reach host DNS 169.254.116.108:53 over UDP and TCP (p50 0.5 ms), through Cilium 1.18.1 with BPF host routing and masquerade: the address is known to Cilium as the host's (lo, scope global).".into(),
    });
    report.facts = facts(0, Some(LxcEntry { ifindex: 0, lxc_id: 0, flags: 1 }));
    report.queries = queries(Ended::Answered, &[], &[]);
    report.findings = vec![finding(
        "HDP205",
        "workaround-redundant",
        Severity::Warn,
        "bpf.hostLegacyRouting is also true; one of the two is enough",
        &[],
    )];
    report.prediction = Prediction { cause: None, status: Status::Pass, ..prediction(Ended::Answered, "") };
    report
}

/// No pod to ask from.
pub(crate) fn unknown() -> Report {
    let why = "no CoreDNS pod, no other pod and no Cilium health endpoint was found through /proc";
    let help = Remedy {
        title: "Run the check where it sees the node's processes (hostPID: true), or name a pod's namespace".into(),
        steps: vec!["hostdns-probe check --vantage netns=/proc/PID/ns/net".into()],
        patch: None,
        variants: Vec::new(),
        caution: None,
    };
    Report {
        queries: queries(Ended::Answered, &[], &[]).into_iter().filter(|query| query.vantage == "node").collect(),
        findings: vec![Finding { remedies: vec![help], ..finding("HDP305", "no-vantage", Severity::Warn, "There is no pod on this node to ask from", &[why]) }],
        prediction: Prediction { because: vec!["the Cilium agent did not answer (/var/run/cilium/cilium.sock: connection refused)".into()], ..Prediction::default() },
        ..report(310, Verdict {
            status: Status::Unknown,
            ended: None,
            direction: Direction::None,
            cause: Some("HDP305".into()),
            summary: "Whether pods on cp-1 reach host DNS 169.254.116.108:53 could not be told: there is no pod to ask from. The node itself is answered, which says nothing about pods.".into(),
        })
    }
}

/// The server answered and the answer never came back; some events were lost too.
pub(crate) fn lost_reply() -> Report {
    let back = |t_us, hook, interface: &str| Hop {
        direction: Direction::Reply,
        src: socket(TARGET),
        dst: socket(POD),
        ..hop(t_us, hook, Some(interface), POD)
    };
    let hops = vec![
        hop(0, HookKind::SocketOut, None, POD),
        hop(11, HookKind::Ingress, Some("lxc5f2a1"), POD),
        Hop {
            note: Some("the node's DNS socket".into()),
            netns: "node".into(),
            ..hop(24, HookKind::SocketIn, None, POD)
        },
        Hop { note: Some("answer, NOERROR".into()), ..back(380, HookKind::Egress, "cilium_host") },
    ];
    let lost = Lost { last_hop: "cilium_host egress".into(), direction: Direction::Reply };
    Report {
        facts: facts(0, Some(LxcEntry { ifindex: 0, lxc_id: 0, flags: 1 })),
        queries: queries(Ended::Lost, &[0], &[]),
        traces: vec![PacketTrace { lost: Some(lost), ..trace(0, Ended::Lost, hops) }],
        findings: vec![finding("HDP403", "reply-lost", Severity::Fail, "The server's answers were last seen at cilium_host egress", &[
            "Every query reached the node's DNS socket, and an answer left it",
            "No drop was reported for any of them",
        ])],
        prediction: Prediction { cause: None, status: Status::Pass, ..prediction(Ended::Answered, "") },
        ..report(5_210, Verdict {
            status: Status::Fail,
            ended: Some(Ended::Lost),
            direction: Direction::Reply,
            cause: Some("HDP403".into()),
            summary: "Pods on cp-1 get no answer from host DNS 169.254.116.108:53. It answers, and the answers are lost behind cilium_host.".into(),
        })
    }
}

fn report(duration_ms: u64, verdict: Verdict) -> Report {
    let hook = |name: &str, interface: Option<&str>| Hook {
        name: name.into(),
        interface: interface.map(Into::into),
        attached: true,
        reason: None,
        since_ns: 0,
    };
    let without =
        Hook { attached: false, reason: Some("no such interface".into()), ..hook("tcx egress", Some("cilium_vxlan")) };
    Report {
        schema: SCHEMA.into(),
        tool: Tool { name: "hostdns-probe".into(), version: "0.1.0".into() },
        taken_at: "2026-03-14T09:26:53Z".into(),
        duration_ms,
        node: Node {
            name: "cp-1".into(),
            kernel: "6.12.48-talos".into(),
            lockdown: "none".into(),
            os: "Talos (v1.11.2)".into(),
        },
        targets: vec![TARGET.into()],
        facts: Facts::default(),
        hooks: vec![hook("cgroup_skb ingress", None), hook("tcx ingress", Some("lxc5f2a1")), without],
        queries: Vec::new(),
        traces: Vec::new(),
        events: EventCounts { seen: 44, lost: 0 },
        findings: Vec::new(),
        prediction: Prediction::default(),
        verdict,
    }
}

fn facts(scope: u8, entry: Option<LxcEntry>) -> Facts {
    const AGENT: &str = "/var/run/cilium/cilium.sock /v1/healthz";
    let mut facts = Facts::default();
    facts.network.addresses = Fact::known(
        vec![InterfaceAddress {
            interface: "lo".into(),
            address: HOST_DNS_V4,
            prefix_len: 32,
            scope,
            flags: vec!["permanent".into()],
        }],
        "rtnetlink",
    );
    facts.cilium.version = Fact::known("1.18.1".into(), AGENT);
    facts.cilium.host_routing = Fact::known(HostRouting::Bpf, AGENT);
    facts.cilium.routing_mode = Fact::known(RoutingMode::Native, AGENT);
    facts.cilium.masquerade = Fact::known(Masquerade::Bpf, AGENT);
    facts.cilium.ipsec = Fact::known(false, AGENT);
    facts.cilium.legacy_because = Fact::known(Vec::new(), AGENT);
    facts.cilium.lxc.insert(HOST_DNS_V4, Fact::known(entry, "/sys/fs/bpf/tc/globals/cilium_lxc"));
    facts.cilium.skip_fib = Fact::unavailable("no such directory", "/var/run/cilium/state");
    let program = |interface: &str, hook, name: &str, id| AttachedProgram {
        interface: interface.into(),
        hook,
        name: name.into(),
        id: Some(id),
        priority: None,
        handle: None,
    };
    facts.cilium.programs = Fact::known(
        vec![
            program("cilium_host", AttachPoint::TcxIngress, "cil_to_host", 210),
            program("lxc5f2a1", AttachPoint::TcxIngress, "audit", 198),
            program("lxc5f2a1", AttachPoint::TcxIngress, "cil_from_contai", 215),
        ],
        "bpf(BPF_PROG_QUERY) and rtnetlink RTM_GETTFILTER",
    );
    let pod = Pod {
        name: COREDNS.into(),
        namespace: Some("kube-system".into()),
        container: None,
        role: PodRole::Coredns,
        pid: 4711,
        netns: NetnsId { dev: 4, inode: 4_026_532_500, cookie: 12 },
        host_network: false,
        interface: Some("lxc5f2a1".into()),
        addresses: vec![socket(POD).ip()],
    };
    facts.pods = Fact::known(vec![pod], "/proc");
    facts
}

/// CoreDNS, the health endpoint and the node, over UDP and TCP; the node is always answered.
fn queries(ended: Ended, coredns: &[u32], health: &[u32]) -> Vec<Query> {
    let mut queries = Vec::new();
    for (vantage, kind, ended, traces) in [
        (COREDNS, VantageKind::Coredns, ended, coredns),
        ("lxc_health", VantageKind::Health, ended, health),
        ("node", VantageKind::Node, Ended::Answered, &[][..]),
    ] {
        for (transport, rtt_us) in [(Transport::Udp, 412), (Transport::Tcp, 634)] {
            let answered = ended == Ended::Answered;
            queries.push(Query {
                vantage: vantage.into(),
                vantage_kind: kind,
                address: socket(TARGET),
                transport,
                qname: "example.com".into(),
                qtype: "A".into(),
                source: (vantage == COREDNS).then(|| socket(POD)),
                id: 0x2b1d,
                ended,
                rcode: answered.then(|| "NOERROR".into()),
                truncated: false,
                answers: if answered { vec!["A 93.184.215.14".into()] } else { Vec::new() },
                rtt_us: answered.then_some(rtt_us),
                note: None,
                traces: if transport == Transport::Udp { traces.to_vec() } else { Vec::new() },
            });
        }
    }
    queries
}

fn trace(id: u32, ended: Ended, hops: Vec<Hop>) -> PacketTrace {
    let flow = Flow { src: socket(POD), dst: socket(TARGET), transport: Transport::Udp };
    PacketTrace {
        id,
        flow,
        started_ns: 81_234_567_890_000,
        hops,
        ended,
        unknown: None,
        drop: None,
        leak: None,
        lost: None,
    }
}

/// A sighting of the query; replies and places outside the pod are made from it.
fn hop(t_us: u64, hook: HookKind, interface: Option<&str>, src: &str) -> Hop {
    Hop {
        t_us,
        hook,
        interface: interface.map(Into::into),
        netns: if interface.is_some() { "node".into() } else { COREDNS.into() },
        direction: Direction::Request,
        src: socket(src),
        dst: socket(TARGET),
        note: None,
    }
}

fn finding(code: &str, slug: &str, severity: Severity, title: &str, evidence: &[&str]) -> Finding {
    Finding {
        code: code.into(),
        slug: slug.into(),
        severity,
        title: title.into(),
        story: None,
        evidence: evidence.iter().map(|&line| line.into()).collect(),
        remedies: Vec::new(),
    }
}

fn prediction(ended: Ended, cause: &str) -> Prediction {
    Prediction {
        status: Status::Fail,
        ended: Some(ended),
        direction: if ended == Ended::Answered { Direction::None } else { Direction::Request },
        cause: Some(cause.into()),
        because: vec!["host routing is BPF".into(), "cilium_lxc has no host entry for 169.254.116.108".into()],
    }
}

fn remedies() -> Vec<Remedy> {
    let remedy = |title: &str, patch: Option<&str>, caution: Option<&str>| Remedy {
        title: title.into(),
        steps: Vec::new(),
        patch: patch.map(Into::into),
        variants: Vec::new(),
        caution: caution.map(Into::into),
    };
    vec![
        remedy(
            "Talos: give lo the address yourself, so that its scope is global. Works live, no restart",
            Some(
                "machine:\n  network:\n    interfaces:\n      - interface: lo\n        addresses: [169.254.116.108/32]\n",
            ),
            Some("the address becomes identity \"host\" for Cilium; egress policies must allow it"),
        )
        .variant(
            "Talos 1.12 and later, as a document",
            "apiVersion: v1alpha1\nkind: LinkConfig\nname: lo\naddresses:\n  - address: 169.254.116.108/32\n",
        ),
        remedy(
            "Cilium: bpf.hostLegacyRouting: true",
            Some("bpf:\n  hostLegacyRouting: true\n"),
            Some("costs the eBPF host routing speed-up"),
        ),
        remedy("Talos: forwardKubeDNSToHost: false, then restart CoreDNS", None, None),
    ]
}

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}
