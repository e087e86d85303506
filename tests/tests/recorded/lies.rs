//! Facts that lie: each is an explained unknown within its time limit, costs nothing else, and no prediction is made
//! up from it.

use std::{
    io::Write as _,
    os::unix::net::UnixStream,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use end_to_end::is_root_or_skips;
use hostdns_probe::{
    facts::{self, Facts, HostRouting},
    predict::predict,
    report::{Prediction, Status},
    target::{HOST_DNS_V4, Targets},
};

use crate::{
    fixtures, maps,
    stage::{Stage, gather, on_stage, whole},
};

/// A recorded node that leaks; with true facts that is what is predicted.
fn recording() -> PathBuf {
    fixtures().join("cilium-1.18.1/native-bpf-host-1dev")
}

/// Every reader has less than a second for an answer, and all run at once; making the node is in it.
const LIMIT: Duration = Duration::from_secs(4);

fn lied_to(stage: Stage) -> (Facts, Prediction) {
    let started = Instant::now();
    let facts = gather(&recording(), stage);
    assert!(started.elapsed() < LIMIT, "it took {:?}", started.elapsed());
    let prediction = predict(&facts, &Targets::default());
    (facts, prediction)
}

/// The agent says nothing that can be believed; the rest is there.
fn agent_is_unknown(facts: &Facts, prediction: &Prediction, why: &str) {
    let cilium = &facts.cilium;
    for said in [cilium.version.why(), cilium.host_routing.why(), cilium.state.why()] {
        assert!(said.is_some_and(|said| said.contains(why)), "{said:?}");
    }
    assert!(cilium.lxc[&HOST_DNS_V4].get().is_some(), "the maps are another source");
    assert!(facts.network.addresses.get().is_some() && facts.listeners.get().is_some());
    assert_eq!(prediction.status, Status::Unknown, "{:#?}", prediction.because);
    let last = prediction.because.last().unwrap();
    assert!(last.starts_with("cannot say"), "{last}");
}

fn head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
}

/// The connection ends in the middle of the body.
fn cut_short(recorded: &[u8], stream: &mut UnixStream) {
    let _gone = stream.write_all(head(recorded.len()).as_bytes()).and_then(|()| stream.write_all(&recorded[..200]));
}

/// All of a length, but not all of the JSON.
fn half_a_document(recorded: &[u8], stream: &mut UnixStream) {
    whole(&recorded[..recorded.len() / 2], stream);
}

fn hangs(_recorded: &[u8], stream: &mut UnixStream) {
    let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le");
    thread::sleep(Duration::from_secs(30));
}

/// Never done, never silent.
fn drips(_recorded: &[u8], stream: &mut UnixStream) {
    let _gone = stream.write_all(head(1_000_000).as_bytes());
    while stream.write_all(b" ").is_ok() {
        thread::sleep(Duration::from_millis(20));
    }
}

fn ten_mebibytes(_recorded: &[u8], stream: &mut UnixStream) {
    let body = format!("{{\"cilium\":{{\"msg\":\"9.9.9\"}},\"controllers\":[{}0]}}", "1,".repeat(5 << 20));
    whole(body.as_bytes(), stream);
}

fn deeper_than_any(_recorded: &[u8], stream: &mut UnixStream) {
    whole("[".repeat(1 << 20).as_bytes(), stream);
}

fn restarting(_recorded: &[u8], stream: &mut UnixStream) {
    let _gone = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
}

fn gone(_recorded: &[u8], _stream: &mut UnixStream) {}

#[test]
fn an_agent_that_lies_is_an_explained_unknown() {
    if !is_root_or_skips("an_agent_that_lies_is_an_explained_unknown") {
        return;
    }
    for (answer, why) in [
        (cut_short as crate::stage::Answer, "ends too early"),
        (half_a_document, "/v1/healthz is not JSON: EOF while parsing"),
        (hangs, "no answer within 1s"),
        (drips, "no answer within 1s"),
        (ten_mebibytes, "longer than 4 MiB"),
        (deeper_than_any, "recursion limit exceeded"),
        (restarting, "status 503"),
        (gone, "ends too early"),
    ] {
        let (facts, prediction) = lied_to(Stage { health: answer, config: answer, ..Stage::default() });
        agent_is_unknown(&facts, &prediction, why);
    }
}

/// Between two questions the agent goes away: what it said stands, the rest is unknown.
#[test]
fn an_agent_that_restarts_in_between_is_half_known() {
    if !is_root_or_skips("an_agent_that_restarts_in_between_is_half_known") {
        return;
    }
    let (facts, _prediction) = lied_to(Stage { config: gone, ..Stage::default() });
    assert_eq!(facts.cilium.version.get().map(String::as_str), Some("1.18.1"));
    assert!(facts.cilium.address_scope_max.why().is_some_and(|why| why.starts_with("/v1/config: ")));

    let (facts, prediction) = lied_to(Stage { health: restarting, ..Stage::default() });
    assert_eq!(facts.cilium.host_routing.get(), Some(&HostRouting::Bpf), "/v1/config knows it too");
    assert!(facts.cilium.version.why().is_some_and(|why| why.contains("/v1/healthz: ")));
    assert_eq!(prediction.status, Status::Unknown, "{:#?}", prediction.because);
    assert!(prediction.because.last().unwrap().contains("Cilium's version"), "{:#?}", prediction.because);
}

/// Names that are right around values that are not.
fn nonsense(_recorded: &[u8], stream: &mut UnixStream) {
    let body = r#"{"cilium":{"msg":"","state":7},"routing":{"intra-host-routing-mode":"Quantum"},
        "masquerading":"yes","kube-proxy-replacement":[],"attach-mode":null,
        "status":{"daemonConfigurationMap":{"AddressScopeMax":-1,"EnableHostLegacyRouting":"perhaps","Devices":{},
        "EnableEndpointRoutes":2,"RoutingMode":["native"]}}}"#;
    whole(body.as_bytes(), stream);
}

#[test]
fn values_of_another_type_are_not_guessed_at() {
    if !is_root_or_skips("values_of_another_type_are_not_guessed_at") {
        return;
    }
    let (facts, prediction) = lied_to(Stage { health: nonsense, config: nonsense, ..Stage::default() });
    agent_is_unknown(&facts, &prediction, "does not say it");
    // The settings say what the agent does not, and what that is worth.
    let source = facts.cilium.routing_mode.source();
    assert!(source.ends_with("config (what its agent would start with)"), "{source}");
}

/// An agent that restarts may pin other maps under the old names. Their counts begin at zero, and what differs then is no
/// drop of ours.
#[test]
fn counters_that_were_made_anew_in_between_are_not_compared() {
    if !is_root_or_skips("counters_that_were_made_anew_in_between_are_not_compared") {
        return;
    }
    on_stage(&recording(), Stage::default(), async |sources| {
        let before = facts::gather(sources).await.cilium;
        assert!(before.drops_map.is_some_and(|id| id > 0));
        let same = facts::cilium_drops(sources).await;
        assert_eq!(same.map, before.drops_map);
        assert_eq!(same.since(before.drops_map).get(), before.drops_before.get());

        let pin = sources.bpf_root.join("tc/globals/cilium_metrics");
        std::fs::remove_file(&pin).unwrap();
        maps::pin(&recording(), "cilium_metrics", &pin, |_info| {});
        let replaced = facts::cilium_drops(sources).await;
        assert_eq!(replaced.counts.get(), before.drops_before.get(), "only the map is another");
        let since = replaced.since(before.drops_map);
        assert!(since.why().is_some_and(|why| why.contains("was replaced by map")), "{since:?}");
    });
}

#[test]
fn a_map_of_another_layout_is_not_read() {
    if !is_root_or_skips("a_map_of_another_layout_is_not_read") {
        return;
    }
    let (facts, prediction) = lied_to(Stage { layout: |_name, info| info.bytes_value += 8, ..Stage::default() });
    let cilium = &facts.cilium;
    let whys = [
        cilium.lxc[&HOST_DNS_V4].why(),
        cilium.ipcache[&HOST_DNS_V4].why(),
        cilium.snat_entries[&HOST_DNS_V4].why(),
        cilium.drops_before.why(),
    ];
    assert!(whys.iter().all(|why| why.is_some_and(|why| why.starts_with("unknown layout: key "))), "{whys:?}");
    // Scope and release say the same as the map would have.
    assert_eq!(prediction.cause.as_deref(), Some("HDP201"), "{:#?}", prediction.because);
    assert!(prediction.because.iter().any(|why| why.contains("scope host (254)")), "{:#?}", prediction.because);
}
