//! What real Cilium agents were recorded as, read by the readers as from a node: facts, and a prediction that agrees
//! with what was observed there.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

#[path = "recorded/lies.rs"]
mod lies;
#[path = "recorded/maps.rs"]
#[expect(dead_code, reason = "shared with the tests of lies")]
mod maps;
#[path = "tracer/net.rs"]
#[expect(dead_code, reason = "shared with the tracer's tests")]
mod net;
#[path = "recorded/stage.rs"]
mod stage;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use end_to_end::{is_root_or_skips, schema};
use hostdns_probe::{
    ended::Ended,
    facts::{Cilium, Facts, Link},
    predict::predict,
    report::{Node, Prediction, Report, SCHEMA, Tool, Verdict},
    target::{HOST_DNS_V4, Targets},
    trace::EventCounts,
};
use serde::Deserialize;
use serde_json::{Value, json};
use stage::{Stage, gather};

/// A directory with the full recordings, where they are at hand.
const RECORDINGS: &str = "HOSTDNS_PROBE_RECORDINGS";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/recorded")
}

/// `cilium-VERSION/CASE` below a directory, in order.
fn cases(root: &Path) -> Vec<(String, PathBuf)> {
    let below = |dir: &Path| {
        let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
        found.sort();
        found
    };
    let paths = below(root).into_iter().flat_map(|version| below(&version));
    paths.map(|path| (path.strip_prefix(root).unwrap().display().to_string(), path)).collect()
}

/// How the query ended there: by dig in the pod, packets outside of the node, and Cilium's monitor.
fn observed(recording: &Path) -> Ended {
    let read = |name: &str| fs::read_to_string(recording.join("observed").join(name)).unwrap();
    if read("dig").contains("ANSWER SECTION") {
        return Ended::Answered;
    }
    if read("out.tcpdump").lines().any(|line| line.contains("> 169.254.116.108.53:")) {
        return Ended::Leaked;
    }
    let dropped = |line: &str| line.contains("FIB lookup failed, 4") && line.contains("-> 169.254.116.108:53");
    assert!(read("monitor-drop.txt").lines().any(dropped), "{}: nothing was observed", recording.display());
    Ended::Dropped
}

/// A row of what was measured (tests/truth).
#[derive(Debug, Deserialize)]
struct Row {
    cilium: String,
    routing: String,
    host_routing: String,
    scope: Option<String>,
    external_devices: usize,
    options: String,
    cilium_lxc: String,
    ipcache_identity: Option<u32>,
    ended: Ended,
}

impl Row {
    fn name(&self) -> String {
        let Self { cilium, routing, external_devices, .. } = self;
        let scope = self.scope.as_deref().unwrap_or("absent");
        format!("cilium-{cilium}/{routing}-{}-{scope}-{external_devices}dev", self.host_routing.to_lowercase())
    }

    fn all() -> Vec<Self> {
        let rows: Vec<Self> = serde_json::from_str(include_str!("../truth/cases.json")).unwrap();
        rows.into_iter().filter(|row| row.options.is_empty()).collect()
    }
}

/// A report of nothing but these facts.
fn report(facts: &Facts, prediction: &Prediction) -> Report {
    Report {
        schema: SCHEMA.into(),
        tool: Tool { name: "hostdns-probe".into(), version: String::new() },
        taken_at: "2025-11-24T08:00:00Z".into(),
        duration_ms: 0,
        node: Node { name: String::new(), kernel: String::new(), lockdown: String::new(), os: String::new() },
        targets: Vec::new(),
        facts: facts.clone(),
        hooks: Vec::new(),
        queries: Vec::new(),
        traces: Vec::new(),
        events: EventCounts::default(),
        findings: Vec::new(),
        prediction: prediction.clone(),
        verdict: Verdict::default(),
    }
}

/// Reads a recording and holds it against what was observed.
fn agrees(name: &str, recording: &Path) -> (Facts, Prediction) {
    let facts = gather(recording, Stage::default());
    let prediction = predict(&facts, &Targets::default());
    schema::assert_valid(&serde_json::to_value(report(&facts, &prediction)).unwrap());
    let observed = observed(recording);
    assert_eq!(prediction.ended, Some(observed), "{name}: {:#?}", prediction.because);
    let rows = Row::all();
    let row = rows.iter().find(|row| row.name() == name).unwrap_or_else(|| panic!("{name} is no row of tests/truth"));
    assert_eq!(row.ended, observed, "{name}");
    let cilium = &facts.cilium;
    assert_eq!(cilium.version.get(), Some(&row.cilium), "{name}");
    assert_eq!(cilium.devices.get().map(Vec::len), Some(row.external_devices), "{name}");
    let entry = cilium.lxc[&HOST_DNS_V4].get().unwrap_or_else(|| panic!("{name}: {:?}", cilium.lxc));
    assert_eq!(entry.is_some_and(|entry| entry.is_host()), row.cilium_lxc == "host", "{name}");
    let identity = cilium.ipcache[&HOST_DNS_V4].get().unwrap_or_else(|| panic!("{name}: {:?}", cilium.ipcache));
    // Where the address has no entry of its own, the longest match says world.
    assert_eq!(*identity, row.ipcache_identity.or(Some(2)), "{name}");
    let leaked = cilium.snat_entries[&HOST_DNS_V4].get().is_some_and(|&count| count > 0);
    assert_eq!(leaked, observed == Ended::Leaked, "{name}: {:?}", cilium.snat_entries);
    let fib = cilium.drops_before.get().unwrap().iter().any(|drop| drop.reason == 169);
    assert_eq!(fib, observed == Ended::Dropped, "{name}: {:?}", cilium.drops_before);
    (facts, prediction)
}

#[test]
fn every_recording_is_read_and_predicted_as_it_was_observed() {
    if !is_root_or_skips("every_recording_is_read_and_predicted_as_it_was_observed") {
        return;
    }
    let cases = cases(&fixtures());
    assert_eq!(cases.len(), 10, "a recording was added or taken away");
    for (name, recording) in cases {
        let (facts, prediction) = agrees(&name, &recording);
        // The kernel gives another number each time.
        assert!(facts.cilium.drops_map.is_some());
        let mut value = recorded(&facts, &stage::devices(&recording));
        value["prediction"] = serde_json::to_value(prediction).unwrap();
        let text = serde_json::to_string_pretty(&value).unwrap();
        let text = text.replace(&recording.display().to_string(), "RECORDING");
        let text = in_place_of_temporary_directories(&text);
        insta::assert_snapshot!(name.replace('/', "_"), text);
    }
}

/// The facts that the recording decides. Left out is what the machine of the test does:
/// - its kernel and its processes, and with those pods, CoreDNS and whom the node asks;
/// - what a new namespace has of its own: forwarding (net.core.devconf_inherit_init_net), fallback devices such as tunl0
///   (net.core.fb_tunnels_only_for_init_net), and whether there is nf_tables;
/// - what the kernel gives another of each time: indexes, Ethernet addresses, cookies, process and map ids.
fn recorded(facts: &Facts, devices: &[String]) -> Value {
    let Facts { cilium, network, listeners, .. } = facts.clone();
    let is_staged = |name: &String| devices.contains(name);
    let link = |link: Link| {
        let Link { name, kind, up, master, layer3, .. } = link;
        json!({"name": name, "kind": kind, "up": up, "master": master, "layer3": layer3})
    };
    let links = network
        .links
        .map(|links| -> Vec<Value> { links.into_iter().filter(|link| is_staged(&link.name)).map(link).collect() });
    let rp_filter = network.rp_filter.map(|mut all| {
        all.retain(|name, _| is_staged(name));
        all
    });
    let listeners = listeners.map(|all| -> Vec<Value> {
        all.into_iter().map(|one| json!({"local": one.local, "transport": one.transport})).collect()
    });
    json!({
        "cilium": Cilium { drops_map: None, ..cilium },
        "listeners": listeners,
        "network": {
            "addresses": network.addresses,
            "links": links,
            "routes": network.routes,
            "rp_filter": rp_filter,
            "rules": network.rules,
        },
    })
}

/// Directories that are made for a run have other names in each.
fn in_place_of_temporary_directories(text: &str) -> String {
    let start = env::temp_dir().join(".tmp").display().to_string();
    let mut pieces = text.split(&start);
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |whole, piece| whole + "DIR" + piece.trim_start_matches(|c: char| c.is_ascii_alphanumeric()))
}

#[test]
fn the_full_recordings_agree_too() {
    if !is_root_or_skips("the_full_recordings_agree_too") {
        return;
    }
    let Some(root) = env::var_os(RECORDINGS) else {
        eprintln!("skipped: {RECORDINGS} does not name the directory of the full recordings");
        return;
    };
    let cases = cases(Path::new(&root));
    assert!(!cases.is_empty(), "no recordings below {}", root.display());
    for (name, recording) in cases {
        let _agreed = agrees(&name, &recording);
    }
}
