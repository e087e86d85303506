//! `trace --output json` beside real queries in each kind of trouble: every query has its end, and what proves it.

use end_to_end::{
    is_root_or_skips,
    lab::Lab,
    trace::{Trace, ask},
};
use serde_json::Value;

/// What a UDP query and one over TCP come to: pointers into the transaction, and the values there.
struct Scenario {
    name: &'static str,
    udp: &'static [(&'static str, &'static str)],
    tcp: &'static [(&'static str, &'static str)],
}

const LEAKED: &[(&str, &str)] = &[("/ended", "leaked"), ("/leak/interface", "eth0"), ("/leak/as", "192.168.77.2:*")];
const NO_ROUTE: &[(&str, &str)] = &[
    ("/ended", "dropped"),
    ("/drop/direction", "request"),
    ("/drop/reason", "TC_INGRESS"),
    ("/drop/where", "lxc*"),
    ("/drop/cilium_reason/text", "FIB lookup failed"),
];
const DENIED: &[(&str, &str)] = &[
    ("/ended", "dropped"),
    ("/drop/direction", "request"),
    ("/drop/reason", "TC_INGRESS"),
    ("/drop/cilium_reason/text", "Policy denied"),
];
const EXPIRED: &[(&str, &str)] =
    &[("/ended", "dropped"), ("/drop/direction", "reply"), ("/drop/cilium_reason/text", "TTL exceeded")];
const LOST: &[(&str, &str)] = &[("/ended", "lost"), ("/lost/direction", "reply"), ("/lost/last_hop", "lxc*")];
const REFUSED: &[(&str, &str)] = &[("/ended", "port_unreachable")];
const ANSWERED: &[(&str, &str)] = &[("/ended", "answered"), ("/rcode", "NOERROR")];
/// What comes back does not make it the node's answer.
const ANSWERED_OUTSIDE: &[(&str, &str)] =
    &[("/ended", "leaked"), ("/leak/interface", "eth0"), ("/leak/as", "192.168.77.2:*"), ("/rcode", "NOERROR")];

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "issue-36761-leak", udp: LEAKED, tcp: LEAKED },
    Scenario { name: "issue-36761-drop", udp: NO_ROUTE, tcp: NO_ROUTE },
    Scenario { name: "reply-lost", udp: LOST, tcp: LOST },
    Scenario { name: "reply-ttl-expired", udp: EXPIRED, tcp: EXPIRED },
    Scenario { name: "policy-denied", udp: DENIED, tcp: DENIED },
    Scenario { name: "tcp-only-broken", udp: ANSWERED, tcp: REFUSED },
    Scenario { name: "nobody-listens", udp: REFUSED, tcp: REFUSED },
    Scenario { name: "leak-answered-outside", udp: ANSWERED_OUTSIDE, tcp: ANSWERED_OUTSIDE },
];

#[test]
fn every_query_in_trouble_has_its_end_and_what_proves_it() {
    if !is_root_or_skips("every_query_in_trouble_has_its_end_and_what_proves_it") {
        return;
    }
    let wrong: Vec<String> = SCENARIOS.iter().flat_map(run).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn run(scenario: &Scenario) -> Vec<String> {
    let name = format!("ends-{}", scenario.name);
    let lab = Lab::up(scenario.name, &name);
    let trace = Trace::start(&lab, &["--output", "json", "--duration", "6s"]);
    ask(&name, "app", "udp");
    // The first one showed the pod: by now its device is hooked.
    std::thread::sleep(std::time::Duration::from_millis(300));
    for transport in ["udp", "udp", "tcp"] {
        ask(&name, "app", transport);
    }
    let told = trace.transactions();
    let of = |transport: &str| told.iter().filter(|one| one["flow"]["transport"] == transport).collect::<Vec<_>>();
    let mut wrong = Vec::new();
    // A connection that is not answered is tried again.
    if of("udp").len() != 3 || of("tcp").is_empty() {
        wrong.push(format!("{}: {} over UDP, {} over TCP", scenario.name, of("udp").len(), of("tcp").len()));
    }
    for (transaction, expected) in [("udp", scenario.udp), ("tcp", scenario.tcp)]
        .into_iter()
        .flat_map(|(transport, expected)| of(transport).into_iter().map(move |one| (one, expected)))
    {
        let first = transaction == &told[0];
        // Before its device was hooked the last place was another one.
        let judged = expected.iter().filter(|(pointer, _)| !(first && *pointer == "/lost/last_hop"));
        wrong.extend(
            judged
                .filter(|(pointer, value)| !fits(transaction, pointer, value))
                .map(|(pointer, value)| format!("{}: {pointer} is not {value}: {transaction}", scenario.name)),
        );
        if transaction["pod"]["name"].as_str().is_none_or(|pod| !pod.starts_with("app-")) {
            wrong.push(format!("{}: not told whose it is: {transaction}", scenario.name));
        }
    }
    wrong
}

/// A value that ends with `*` is a beginning.
fn fits(transaction: &Value, pointer: &str, wanted: &str) -> bool {
    let value = transaction.pointer(pointer).and_then(Value::as_str);
    value
        .is_some_and(|value| wanted.strip_suffix('*').map_or(value == wanted, |beginning| value.starts_with(beginning)))
}
