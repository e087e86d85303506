//! `diff` over pairs of real reports that an upgrade could cause: each gets the right word, exit code and culprit.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Mutex,
};

use end_to_end::{is_root_or_skips, lab::Lab, run, schema, stderr, stdout};
use serde_json::Value;

struct Pair {
    before: &'static str,
    after: &'static str,
    outcome: &'static str,
    exit: i32,
    /// Changes that by the model did it.
    culprits: &'static [&'static str],
    /// A change that must be told.
    changed: Option<&'static str>,
    /// A finding that is new.
    new: Option<&'static str>,
}

const fn pair(
    before: &'static str,
    after: &'static str,
    (outcome, exit): (&'static str, i32),
    culprits: &'static [&'static str],
    changed: Option<&'static str>,
    new: Option<&'static str>,
) -> Pair {
    Pair { before, after, outcome, exit, culprits, changed, new }
}

const REGRESSION: (&str, i32) = ("regression", 1);
const FIXED: (&str, i32) = ("fixed", 0);
const STILL: (&str, i32) = ("still_broken", 0);
const OTHERWISE: (&str, i32) = ("broken_otherwise", 1);
const DEGRADED: (&str, i32) = ("degraded", 0);

/// A scenario's name, and `again` for a second report of the same.
const PAIRS: &[Pair] = &[
    // 1.16.4 to 1.16.5 in tunnel mode, and back.
    pair("tunnel-1.16.4", "tunnel-1.16.5", REGRESSION, &["cilium-version"], Some("cilium.version"), Some("HDP201")),
    pair("tunnel-1.16.5", "tunnel-1.16.4", FIXED, &["cilium-version"], Some("cilium.version"), None),
    // 1.18 to 1.19, with two devices and with one.
    pair("issue-36761-drop", "fixed-1.19-two-devices", FIXED, &["cilium-version"], Some("cilium.version"), None),
    pair("fixed-1.19-two-devices", "issue-36761-drop", REGRESSION, &["cilium-version"], None, Some("HDP202")),
    pair("issue-36761-leak", "still-leaks-1.19-one-device", STILL, &[], Some("cilium.version"), None),
    // A node loses its override of lo, or gets it.
    pair(
        "healthy-known-address",
        "issue-36761-leak",
        REGRESSION,
        &["addresses"],
        Some("address.169.254.116.108"),
        Some("HDP201"),
    ),
    pair("issue-36761-leak", "healthy-known-address", FIXED, &["addresses"], Some("address.169.254.116.108"), None),
    // eBPF masquerade, or host routing, switched on.
    pair(
        "iptables-masquerade",
        "issue-36761-leak",
        REGRESSION,
        &["masquerade"],
        Some("cilium.masquerade"),
        Some("HDP201"),
    ),
    pair(
        "healthy-legacy",
        "issue-36761-leak",
        REGRESSION,
        &["host-routing"],
        Some("cilium.host-routing"),
        Some("HDP201"),
    ),
    pair(
        "local-max-addr-scope-254",
        "issue-36761-leak",
        REGRESSION,
        &["local-max-addr-scope"],
        Some("cilium.local-max-addr-scope"),
        Some("HDP201"),
    ),
    // Another device, or endpoint routes: what leaked is dropped.
    pair("issue-36761-leak", "issue-36761-drop", OTHERWISE, &["devices"], Some("cilium.devices"), Some("HDP202")),
    pair("issue-36761-leak", "endpoint-routes-drop", OTHERWISE, &["endpoint-routes"], None, Some("HDP202")),
    // CoreDNS moves to the node's own network: nothing that Cilium makes of the address matters to it any more.
    pair("issue-36761-leak", "coredns-on-host-network", FIXED, &["coredns.network"], Some("coredns.network"), None),
    pair("coredns-on-host-network", "issue-36761-leak", REGRESSION, &["coredns.network"], None, None),
    pair("healthy-known-address", "coredns-on-host-network", REGRESSION, &[], Some("coredns.network"), Some("HDP304")),
    // What the model of the datapath knows nothing of.
    pair("healthy-known-address", "policy-denied", REGRESSION, &[], None, Some("HDP213")),
    pair("healthy-known-address", "address-absent", REGRESSION, &["addresses"], None, Some("HDP101")),
    pair("healthy-known-address", "upstream-slow", DEGRADED, &[], None, Some("HDP410")),
    pair("healthy-known-address", "upstream-down", DEGRADED, &[], None, Some("HDP407")),
    // Nothing at all: two checks of the same are the same, whatever the times of their answers.
    pair("healthy-known-address", "healthy-known-address again", ("unchanged", 0), &[], None, None),
    pair("issue-36761-leak", "issue-36761-leak again", STILL, &[], None, None),
];

/// How often a pair is measured before its times count: what else runs here may begin or end between its two reports.
const ATTEMPTS: usize = 4;

/// One report of each scenario of these pairs, by its name in the table.
fn reports(directory: &Path, pairs: &[&Pair]) -> BTreeMap<&'static str, PathBuf> {
    let names: BTreeSet<&str> = pairs.iter().flat_map(|pair| [pair.before, pair.after]).collect();
    let waiting = Mutex::new(names.iter().copied().enumerate().collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("no worker panics while it holds this").pop();
                    let Some((number, name)) = next else { break };
                    let scenario = name.trim_end_matches(" again");
                    let lab = Lab::up(scenario, &format!("diff-{}-{number}", std::process::id()));
                    let (report, _output) = lab.check(&[]);
                    std::fs::write(directory.join(number.to_string()), report.to_string()).expect("a file");
                }
            });
        }
    });
    names.into_iter().enumerate().map(|(number, name)| (name, directory.join(number.to_string()))).collect()
}

/// What came out for one pair.
struct Compared {
    wrong: Vec<String>,
    /// Answers are told to be slower where nothing but the machine itself can have made them so.
    disturbed: bool,
}

fn compare(pair: &Pair, reports: &BTreeMap<&str, PathBuf>) -> Compared {
    let (before, after) = (&reports[pair.before], &reports[pair.after]);
    let output = run([Path::new("diff"), before, after, Path::new("--output"), Path::new("json")]);
    let diff: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no diff ({error}): {}{}", stdout(&output), stderr(&output)));
    schema::assert_valid(&diff);
    let strings = |list: &str, member: &str| -> Vec<String> {
        let all = diff.pointer(list).and_then(Value::as_array).expect(list);
        all.iter().filter_map(|one| one[member].as_str()).map(str::to_owned).collect()
    };
    let mut wrong = Vec::new();
    let mut expect = |what: &str, holds: bool| {
        if !holds {
            wrong.push(format!("{} to {}: {what}: {diff:#}", pair.before, pair.after));
        }
    };
    expect(&format!("not {}", pair.outcome), diff["outcome"] == pair.outcome);
    expect(&format!("exit code {:?}", output.status.code()), output.status.code() == Some(pair.exit));
    expect("another culprit", strings("/culprits", "what") == pair.culprits);
    if let Some(change) = pair.changed {
        expect(&format!("{change} is not among the changes"), strings("/changes", "what").iter().any(|c| c == change));
    }
    if let Some(code) = pair.new {
        expect(&format!("{code} is not new"), strings("/findings/new", "code").iter().any(|c| c == code));
    }
    let slower = strings("/latency", "judged").iter().any(|judged| judged == "slower");
    let by_design = pair.after == "upstream-slow";
    expect("slower, or not", slower == by_design);
    Compared { wrong, disturbed: slower && !by_design }
}

#[test]
fn every_pair_that_an_upgrade_could_cause_has_its_word() {
    if !is_root_or_skips("every_pair_that_an_upgrade_could_cause_has_its_word") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut left: Vec<&Pair> = PAIRS.iter().collect();
    let mut wrong = Vec::new();
    for attempt in 1..=ATTEMPTS {
        let reports = reports(directory.path(), &left);
        left.retain(|pair| {
            let compared = compare(pair, &reports);
            let again = compared.disturbed && attempt < ATTEMPTS;
            if !again {
                wrong.extend(compared.wrong);
            }
            again
        });
        if attempt == 1 {
            read_by_people(&reports);
        }
        if left.is_empty() {
            break;
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The story of issue 36761, as the upgrade's gate tells it.
fn read_by_people(reports: &BTreeMap<&str, PathBuf>) {
    let files = [&reports["tunnel-1.16.4"], &reports["tunnel-1.16.5"]];
    for format in ["text", "markdown"] {
        let output = run([Path::new("diff"), files[0], files[1], Path::new("--output"), Path::new(format)]);
        let text = stdout(&output);
        for part in ["REGRESSION", "cilium-version: 1.16.4 → 1.16.5", "This alone turns the prediction", "HDP201"] {
            assert!(text.contains(part), "{format} does not say {part}:\n{text}");
        }
        println!("{text}");
    }
    // Strict, what is still broken is not good enough.
    let still = &reports["issue-36761-leak"];
    assert_eq!(run([Path::new("diff"), still, still]).status.code(), Some(0));
    assert_eq!(run([Path::new("diff"), still, still, Path::new("--strict")]).status.code(), Some(1));
}

#[test]
fn what_is_no_report_is_told_with_its_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let whole = r#"{"schema": "hostdns-probe/report/v1", "tool": {"name": "hostdns-probe", "version": 7}}"#;
    for (name, text, parts) in [
        ("cut.json", &whole[..40], &["cut.json", "cut off", "line 1 column"][..]),
        ("member.json", whole, &["member.json", "at tool.version", "line 1 column"]),
        ("schema.json", r#"{"schema": "hostdns-probe/matrix/v1"}"#, &["schema.json", "hostdns-probe/matrix/v1"]),
        ("empty.json", "", &["empty.json"]),
    ] {
        let path = file(name, text);
        let output = run([Path::new("diff"), &path, &path]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{name}: {said}");
        assert!(stdout(&output).is_empty());
    }
    let missing = run(["diff", "/nonexistent/before.json", "-"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("/nonexistent/before.json"));
}

#[test]
fn wrong_usage_is_64() {
    for args in [&["diff"][..], &["diff", "one.json"], &["diff", "-", "-"], &["diff", "a", "b", "--output", "xml"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", stderr(&output));
    }
}
