//! Where something is missing, the check says what it could not know and what that costs, and does the rest.

use std::{os::unix::process::CommandExt as _, process::Command};

use end_to_end::{hostdns_probe, is_root_or_skips, lab::Lab, schema, stderr, stdout};
use hostdns_probe::netns::Netns;
use serde_json::Value;

fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().map_or_else(Vec::new, |all| all.iter().filter_map(|f| f["code"].as_str()).collect())
}

fn finding<'a>(report: &'a Value, code: &str) -> &'a Value {
    report["findings"]
        .as_array()
        .and_then(|all| all.iter().find(|finding| finding["code"] == code))
        .unwrap_or_else(|| panic!("no {code} among {:?}", codes(report)))
}

#[test]
fn without_root_it_says_which_capabilities_are_missing() {
    if !is_root_or_skips("without_root_it_says_which_capabilities_are_missing") {
        return;
    }
    // Where nobody may look: the binary may lie in root's own directory.
    let dir = std::env::temp_dir().join(format!("hostdns-probe-unprivileged-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let copy = dir.join("hostdns-probe");
    std::fs::copy(hostdns_probe(), &copy).expect("a copy");
    // In an empty namespace: its questions are nobody's business.
    let ask = || {
        Command::new(&copy)
            .args(["check", "--output", "json", "--timeout", "300ms"])
            .uid(65534)
            .gid(65534)
            .output()
            .expect("it starts")
    };
    let output = Netns::new().and_then(|nowhere| nowhere.run(ask)).expect("a namespace");
    std::fs::remove_dir_all(&dir).expect("the directory goes");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stdout(&output)));
    schema::assert_valid(&report);
    assert_eq!(report["verdict"]["status"], "unknown");
    let text = finding(&report, "HDP001").to_string();
    assert!(text.contains("CAP_"), "no capability is named: {text}");
}

#[test]
fn a_missing_source_costs_what_it_tells_and_nothing_else() {
    if !is_root_or_skips("a_missing_source_costs_what_it_tells_and_nothing_else") {
        return;
    }
    let lab = Lab::up("healthy-known-address", "degraded");
    for (args, code) in [
        (&["--cilium-socket", "/nonexistent/cilium.sock"][..], "HDP006"),
        (&["--bpf-root", "/nonexistent"], "HDP006"),
        (&["--cgroup-root", "/nonexistent"], "HDP004"),
        (&["--interface", "nosuch0"], "HDP003"),
    ] {
        let (report, _output) = lab.check(args);
        let found = finding(&report, code);
        assert!(!found["evidence"].as_array().is_none_or(Vec::is_empty), "{args:?}: no evidence in {found}");
        assert_eq!(report["verdict"]["status"], "pass", "{args:?}: {}", report["verdict"]);
    }
}

/// It was asked for by name, so without it there is no verdict to pass.
#[test]
fn a_named_vantage_that_is_not_there_leaves_the_verdict_open() {
    if !is_root_or_skips("a_named_vantage_that_is_not_there_leaves_the_verdict_open") {
        return;
    }
    let lab = Lab::up("healthy-known-address", "vantage");
    let (report, output) = lab.check(&["--vantage", "netns=/proc/999999/ns/net,name=ghost"]);
    finding(&report, "HDP008");
    assert_eq!(report["verdict"]["status"], "unknown", "{}", report["verdict"]);
    assert_eq!(output.status.code(), Some(2));
}
