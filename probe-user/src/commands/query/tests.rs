use clap::Parser;

use super::*;
use crate::{
    facts::{Fact, InterfaceAddress, Transport},
    query::VantageKind,
};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: QueryArgs,
}

fn args(line: &[&str]) -> Result<QueryArgs, clap::Error> {
    Line::try_parse_from([&["query"], line].concat()).map(|line| line.args)
}

fn query(vantage: &str, transport: Transport, ended: Ended) -> Query {
    let answered = ended == Ended::Answered;
    Query {
        vantage: vantage.into(),
        vantage_kind: VantageKind::Coredns,
        address: "169.254.116.108:53".parse().unwrap(),
        transport,
        qname: "example.com".into(),
        qtype: "A".into(),
        source: Some("10.244.1.132:41334".parse().unwrap()),
        id: 4711,
        ended,
        rcode: answered.then(|| "NOERROR".into()),
        truncated: false,
        answers: if answered {
            ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"].map(Into::into).into()
        } else {
            Vec::new()
        },
        rtt_us: answered.then_some(420),
        note: (!answered).then(|| "no answer within 5 s; sent again after 1 s".into()),
        traces: Vec::new(),
    }
}

fn report(rounds: u32, queries: Vec<Query>) -> QueryReport {
    QueryReport {
        schema: SCHEMA.into(),
        tool: Tool { name: "hostdns-probe".into(), version: "0.1.0".into() },
        taken_at: "2025-11-22T20:00:00Z".into(),
        duration_ms: 5012,
        targets: vec!["169.254.116.108:53".parse().unwrap()],
        rounds,
        interval_ms: 1000,
        summary: summarize(&queries),
        queries,
    }
}

fn rendered(
    render: impl FnOnce(&QueryReport, &mut dyn std::io::Write) -> std::io::Result<()>,
    report: &QueryReport,
) -> String {
    let mut out = Vec::new();
    render(report, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn mixed(rounds: u32) -> QueryReport {
    let round = [
        query("coredns-7c9d-x2k4p", Transport::Udp, Ended::Answered),
        query("coredns-7c9d-x2k4p", Transport::Tcp, Ended::Unknown),
        query("node", Transport::Udp, Ended::Answered),
    ];
    report(rounds, (0..rounds).flat_map(|_| round.clone()).collect())
}

#[test]
fn once() {
    insta::assert_snapshot!(rendered(render::text, &mixed(1)), @r"
    coredns-7c9d-x2k4p  169.254.116.108:53  udp  example.com A  0.4 ms  NOERROR  192.0.2.1, 192.0.2.2, 192.0.2.3 and 1 more
    coredns-7c9d-x2k4p  169.254.116.108:53  tcp  example.com A  unknown: no answer within 5 s; sent again after 1 s
    node                169.254.116.108:53  udp  example.com A  0.4 ms  NOERROR  192.0.2.1, 192.0.2.2, 192.0.2.3 and 1 more
    1 of 3 not answered; `hostdns-probe check` says where they die.
    ");
}

#[test]
fn repeated() {
    insta::assert_snapshot!(rendered(render::text, &mixed(2)), @r"
    coredns-7c9d-x2k4p  169.254.116.108:53  udp  example.com A  2/2 answered  p50 0.4 ms, p90 0.4 ms, p99 0.4 ms, max 0.4 ms
    coredns-7c9d-x2k4p  169.254.116.108:53  tcp  example.com A  0/2 answered, 100.0 % lost
    node                169.254.116.108:53  udp  example.com A  2/2 answered  p50 0.4 ms, p90 0.4 ms, p99 0.4 ms, max 0.4 ms
      2 × unknown: no answer within 5 s; sent again after 1 s
    2 of 6 not answered; `hostdns-probe check` says where they die.
    ");
}

#[test]
fn json_can_be_read_again() {
    let report = mixed(1);
    let text = rendered(render::json, &report);
    assert!(text.contains("\"schema\": \"hostdns-probe/query/v1\""), "{text}");
    assert_eq!(serde_json::from_str::<QueryReport>(&text).unwrap(), report);
    for rounds in [1, 2] {
        crate::commands::schema::tests::assert_valid(&mixed(rounds));
    }
}

#[test]
fn an_answer_cannot_move_the_cursor() {
    let mut bad = query("node", Transport::Udp, Ended::Answered);
    bad.answers = vec!["\u{1b}[2J".into()];
    let text = rendered(render::text, &report(1, vec![bad]));
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn exit_codes() {
    let answered = || query("node", Transport::Udp, Ended::Answered);
    assert_eq!(exit(&report(1, vec![answered()])), Exit::Ok);
    assert_eq!(exit(&report(1, vec![answered(), query("node", Transport::Tcp, Ended::Unknown)])), Exit::Problem);
    assert_eq!(exit(&report(0, Vec::new())), Exit::Unknown, "nothing asked is nothing known");
}

#[test]
fn the_load_is_bounded() {
    let second = Duration::from_secs(1);
    assert_eq!(pace(second, 12), second);
    assert_eq!(pace(Duration::ZERO, 12), Duration::from_millis(120));
    assert_eq!(pace(Duration::from_millis(10), 300), second * 3);
}

#[test]
fn what_is_asked_for() {
    let names = |line: &[&str]| wanted(&args(line).unwrap()).names;
    assert_eq!(names(&[]), Wanted::default().names);
    assert_eq!(names(&["--qname", "kubernetes.io"]), [("kubernetes.io".into(), RecordType::A)]);
    assert_eq!(names(&["--qtype", "aaaa"]), [("example.com".into(), RecordType::AAAA)]);
    assert_eq!(wanted(&args(&["--timeout", "300ms"]).unwrap()).timeout, Duration::from_millis(300));
}

#[test]
fn nonsense_is_refused() {
    let lines =
        [["--qtype", "COW"], ["--timeout", "0s"], ["--repeat", "0"], ["--repeat", "10001"], ["--vantage", "/proc/1"]];
    for line in lines {
        assert!(args(&line).is_err(), "{line:?}");
    }
}

#[test]
fn a_vantage_that_is_not_there_is_named() {
    let vantage = "netns=/nonexistent/net".parse().unwrap();
    let error = format!("{:#}", named(&[vantage]).unwrap_err());
    assert!(error.contains("--vantage netns=/nonexistent/net cannot be used"), "{error}");
}

#[test]
fn the_ipv6_address_is_asked_where_it_is_on_lo() {
    let on = |interface: &str| {
        let mut facts = Facts::default();
        let address = InterfaceAddress {
            interface: interface.into(),
            address: HOST_DNS_V6,
            prefix_len: 128,
            scope: 254,
            flags: Vec::new(),
        };
        facts.network.addresses = Fact::known(vec![address], "test");
        targets(&args(&[]).unwrap(), &facts).addresses.len()
    };
    assert_eq!((on("lo"), on("eth0")), (2, 1));
}
