//! Asking from one network namespace a server in another: what comes back, what does not, and how soon that is known.
#![expect(clippy::unwrap_used, reason = "a test that cannot set up fails")]

#[path = "query/dns_server.rs"]
mod dns_server;
#[path = "query/topology.rs"]
mod topology;

use std::{
    future::pending,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hickory_proto::rr::RecordType;
use hostdns_probe::{
    cli::{
        Global,
        args::{PlainFormat, PlainOutputArgs, SourceArgs, TargetArgs, VantageArg},
    },
    commands::{
        self, Exit,
        query::{QueryArgs, QueryReport},
    },
    ended::Ended,
    facts::{Facts, Transport},
    query::{Ask, Evidence, Observer, Query, Question, Unobserved, ask, ask_all},
};
use topology::{BLACKHOLE, NO_ROUTE, SERVER, Topology};

const BOTH: [Transport; 2] = [Transport::Udp, Transport::Tcp];

/// Long enough for a busy machine: whoever waits for an answer does not wait for it to pass.
const LONG: Duration = Duration::from_secs(4);
/// For questions that nobody answers.
const SHORT: Duration = Duration::from_millis(400);

fn question(qname: &str, address: impl Into<SocketAddr>, transport: Transport) -> Question {
    Question { qname: qname.into(), qtype: RecordType::A, address: address.into(), transport, timeout: LONG }
}

fn short(question: Question) -> Question {
    Question { timeout: SHORT, ..question }
}

async fn asked(topology: &Topology, question: &Question) -> Query {
    ask(&topology.pod, question, &Unobserved, pending()).await
}

#[tokio::test]
async fn an_answer_comes_back_over_both_transports() {
    let topology = Topology::with_server();
    for transport in BOTH {
        let query = asked(&topology, &question("ok.test", SERVER, transport)).await;
        assert_eq!(query.ended, Ended::Answered, "{query:?}");
        assert_eq!(query.rcode.as_deref(), Some("NOERROR"));
        assert_eq!(query.answers, ["192.0.2.7"]);
        assert_eq!(query.source.unwrap().ip(), topology::CLIENT, "asked from inside the pod's namespace");
        assert!(query.rtt_us.is_some_and(|rtt| rtt > 0));
        assert!(!query.truncated);

        let arrived = topology.server().arrived();
        let last = arrived.last().unwrap();
        assert_eq!((last.transport, last.id, Some(last.from)), (transport, query.id, query.source));
        assert_eq!(last.qname, "ok.test.", "asked exactly that name, once");
    }
    assert_eq!(topology.server().arrived().len(), 2);
}

#[tokio::test]
async fn every_rcode_is_an_answer() {
    let topology = Topology::with_server();
    let cases = [("servfail.test", "SERVFAIL"), ("nxdomain.test", "NXDOMAIN"), ("refused.test", "REFUSED")];
    for (qname, rcode) in cases {
        for transport in BOTH {
            let query = asked(&topology, &question(qname, SERVER, transport)).await;
            assert_eq!((query.ended, query.rcode.as_deref()), (Ended::Answered, Some(rcode)), "{query:?}");
        }
    }
    assert_eq!(topology.server().arrived().len(), 2 * cases.len(), "an error is not asked again");
}

#[tokio::test]
async fn a_truncated_answer_is_recorded_and_not_asked_again_over_tcp() {
    let topology = Topology::with_server();
    let query = asked(&topology, &question("truncated.test", SERVER, Transport::Udp)).await;
    assert_eq!((query.ended, query.truncated), (Ended::Answered, true), "{query:?}");
    let arrived = topology.server().arrived();
    assert_eq!(arrived.iter().map(|query| query.transport).collect::<Vec<_>>(), [Transport::Udp]);
}

#[tokio::test]
async fn a_closed_port_is_known_at_once() {
    let topology = Topology::with_server();
    for transport in BOTH {
        let started = Instant::now();
        let closed = SocketAddr::new(SERVER.ip(), 5399);
        let query = asked(&topology, &question("ok.test", closed, transport)).await;
        assert_eq!(query.ended, Ended::PortUnreachable, "{query:?}");
        assert!(started.elapsed() < LONG / 2, "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn silence_ends_with_the_timeout_and_says_so() {
    let topology = Topology::with_server();
    let cases = [
        (short(question("ok.test", BLACKHOLE, Transport::Udp)), "no answer within 0.4 s"),
        (short(question("ok.test", BLACKHOLE, Transport::Tcp)), "no TCP connection within 0.4 s"),
        (short(question("silent.test", SERVER, Transport::Tcp)), "connected, but no answer within 0.4 s"),
    ];
    for (question, note) in cases {
        let started = Instant::now();
        let query = asked(&topology, &question).await;
        assert_eq!((query.ended, query.note.as_deref()), (Ended::Unknown, Some(note)), "{query:?}");
        assert!(started.elapsed() >= SHORT && started.elapsed() < LONG, "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn evidence_ends_a_query_at_once() {
    let topology = Topology::with_server();
    for transport in BOTH {
        let question = Question { timeout: Duration::from_secs(30), ..question("ok.test", BLACKHOLE, transport) };
        let started = Instant::now();
        let leaked = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Evidence { ended: Ended::Leaked, note: "left the node through eth0".into() }
        };
        let query = ask(&topology.pod, &question, &Unobserved, leaked).await;
        assert_eq!((query.ended, query.note.as_deref()), (Ended::Leaked, Some("left the node through eth0")));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        assert!(query.source.is_some());
    }
}

#[tokio::test]
async fn the_retransmission_keeps_socket_and_id() {
    let topology = Topology::with_server();
    let question = question("second.test", SERVER, Transport::Udp);
    let query = asked(&topology, &question).await;
    assert_eq!(query.ended, Ended::Answered, "{query:?}");
    let rtt = Duration::from_micros(query.rtt_us.unwrap());
    assert!(rtt >= Duration::from_secs(1) && rtt < Duration::from_secs(2), "{rtt:?}");
    let arrived = topology.server().arrived();
    assert_eq!(arrived.len(), 2);
    assert_eq!((arrived[0].from, arrived[0].id), (arrived[1].from, arrived[1].id));
}

#[tokio::test]
async fn what_is_not_dns_is_malformed() {
    let topology = Topology::with_server();
    for transport in BOTH {
        let query = asked(&topology, &question("garbage.test", SERVER, transport)).await;
        assert_eq!(query.ended, Ended::Malformed, "{query:?}");
    }
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_reached_a_server() {
    let topology = Topology::with_server();
    let query = asked(&topology, &question("close.test", SERVER, Transport::Tcp)).await;
    assert_eq!(query.ended, Ended::Unanswered, "{query:?}");
}

#[tokio::test]
async fn without_a_route_it_says_so() {
    let topology = Topology::with_server();
    for transport in BOTH {
        let query = asked(&topology, &question("ok.test", NO_ROUTE, transport)).await;
        assert_eq!(query.ended, Ended::Unknown);
        assert!(query.note.as_deref().unwrap().contains("no route"), "{query:?}");
    }
}

#[tokio::test]
async fn a_namespace_that_is_gone_is_named() {
    let mut topology = Topology::with_server();
    topology.pod.netns_path = Some("/proc/0/ns/net".into());
    let query = asked(&topology, &question("ok.test", SERVER, Transport::Udp)).await;
    assert_eq!((query.ended, query.id, query.source), (Ended::Unknown, 0, None));
    assert!(query.note.as_deref().unwrap().contains("/proc/0/ns/net"), "{query:?}");
}

/// What the observer was told, with how much had reached the server by then.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(Transport, SocketAddr, u64)>>>);

impl Observer for Told {
    fn bound(&self, transport: Transport, local: SocketAddr, socket_cookie: u64) {
        self.0.lock().unwrap().push((transport, local, socket_cookie));
    }
}

#[tokio::test]
async fn the_observer_knows_every_socket() {
    let topology = Topology::with_server();
    let told = Told::default();
    let asks: Vec<Ask> = BOTH
        .into_iter()
        .map(|transport| Ask { vantage: topology.pod.clone(), question: question("ok.test", SERVER, transport) })
        .collect();
    let queries = ask_all(&asks, |_, _| (told.clone(), pending())).await;
    assert_eq!(queries.iter().map(|query| query.transport).collect::<Vec<_>>(), BOTH);

    let told = told.0.lock().unwrap().clone();
    assert_eq!(told.len(), 2);
    for query in &queries {
        let (_, local, cookie) = told.iter().find(|(transport, ..)| *transport == query.transport).unwrap();
        assert_eq!(local.port(), query.source.unwrap().port());
        assert_ne!(*cookie, 0);
    }
    assert_ne!(told[0].2, told[1].2);
    let udp = told.iter().find(|(transport, ..)| *transport == Transport::Udp).unwrap();
    assert_eq!(udp.1.ip(), topology::CLIENT);
}

#[test]
fn the_command_reports_loss_and_times_from_every_vantage() {
    let topology = Topology::with_server();
    let directory = std::env::temp_dir().join(format!("hostdns-probe-query-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("query.json");
    let args = QueryArgs {
        target: TargetArgs { address: vec![SERVER.ip()], port: SERVER.port() },
        vantage: vec![VantageArg { netns: topology.pod.netns_path.clone().unwrap(), name: Some("web".into()) }],
        qname: Some("ok.test".into()),
        qtype: None,
        timeout: LONG,
        repeat: 3,
        interval: Duration::from_millis(50),
        output: PlainOutputArgs { output: PlainFormat::Json, output_file: Some(file.clone()) },
        sources: SourceArgs::default(),
    };
    let quiet = Global { quiet: true, ..Global::default() };
    let run = |args: &QueryArgs| {
        // In the node's namespace, as on a node.
        let exit = topology.node.run(|| commands::query::run_on(args, &quiet, &Facts::default()).unwrap()).unwrap();
        (exit, serde_json::from_str::<QueryReport>(&std::fs::read_to_string(&file).unwrap()).unwrap())
    };

    let (exit, report) = run(&args);
    assert_eq!(exit, Exit::Ok, "{report:#?}");
    let asked: Vec<_> = report.summary.iter().map(|one| (one.vantage.as_str(), one.transport, one.answered)).collect();
    let (udp, tcp) = (Transport::Udp, Transport::Tcp);
    assert_eq!(asked, [("web", udp, 3), ("web", tcp, 3), ("node", udp, 3), ("node", tcp, 3)]);
    assert!(report.summary.iter().all(|one| one.rtt_us.is_some_and(|rtt| rtt.p50 <= rtt.p99 && rtt.max > 0)));
    assert_eq!(topology.server().arrived().len(), 12);

    let (exit, report) = run(&QueryArgs { qname: Some("silent.test".into()), timeout: SHORT, repeat: 1, ..args });
    assert_eq!(exit, Exit::Problem);
    assert!(report.summary.iter().all(|one| one.answered == 0 && one.rtt_us.is_none()));
    std::fs::remove_dir_all(&directory).unwrap();
}
