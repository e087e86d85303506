//! A broken node has its verdict within 1.5 s, a healthy one within 1 s.

use std::time::{Duration, Instant};

use end_to_end::{is_root_or_skips, lab::Lab};

/// Scenario, status of its verdict, and the longest it may take.
const LIMITS: &[(&str, &str, u64)] = &[
    ("healthy-known-address", "pass", 1000),
    ("healthy-legacy", "pass", 1000),
    ("issue-36761-leak", "fail", 1500),
    ("issue-36761-drop", "fail", 1500),
    ("leak-answered-outside", "fail", 1500),
    ("address-absent", "fail", 1500),
    ("nobody-listens", "fail", 1500),
    ("policy-denied", "fail", 1500),
    ("reply-lost", "fail", 1500),
    ("rp-filter-strict", "fail", 1500),
    ("node-firewall-blocks", "fail", 1500),
];

#[test]
fn every_verdict_is_there_in_time() {
    if !is_root_or_skips("every_verdict_is_there_in_time") {
        return;
    }
    let mut late = Vec::new();
    for &(scenario, status, limit_ms) in LIMITS {
        let lab = Lab::up(scenario, &format!("speed-{scenario}"));
        let started = Instant::now();
        let (report, _output) = lab.check(&[]);
        let took = started.elapsed();
        assert_eq!(report["verdict"]["status"], status, "{scenario}: {}", report["verdict"]);
        if took > Duration::from_millis(limit_ms) {
            late.push(format!("{scenario}: {} ms, at most {limit_ms}", took.as_millis()));
        }
    }
    assert!(late.is_empty(), "too slow: {late:#?}");
}
