//! A broken node has its verdict within 1.5 s, a healthy one within 1 s.
//!
//! So it is on a machine that has nothing else to do. Where others keep the processors busy, the limit is longer by
//! their share, which is measured beside each check; and a check that is late may try again, for others come and go.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

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

/// A late check is repeated this often.
const ATTEMPTS: usize = 3;

/// How many others want a processor at this moment, for each processor there is: 0 on an idle machine.
fn others_for_each_processor() -> f64 {
    const LOOKS: u32 = 20;
    let mut running = 0;
    for _ in 0..LOOKS {
        let text = fs::read_to_string("/proc/loadavg").expect("/proc is there");
        let now = text.split([' ', '/']).nth(3).and_then(|count| count.parse::<u32>().ok()).expect("a count");
        running += now.saturating_sub(1); // this thread is one of them
        thread::sleep(Duration::from_millis(5));
    }
    let processors = thread::available_parallelism().map_or(1, usize::from);
    f64::from(running) / f64::from(LOOKS) / processors as f64
}

#[test]
fn every_verdict_is_there_in_time() {
    if !is_root_or_skips("every_verdict_is_there_in_time") {
        return;
    }
    let mut late = Vec::new();
    for &(scenario, status, limit_ms) in LIMITS {
        let lab = Lab::up(scenario, &format!("speed-{scenario}"));
        let mut tries = Vec::new();
        let in_time = (0..ATTEMPTS).any(|_| {
            let before = others_for_each_processor();
            let started = Instant::now();
            let (report, _output) = lab.check(&[]);
            let took = started.elapsed();
            let others = before.max(others_for_each_processor());
            assert_eq!(report["verdict"]["status"], status, "{scenario}: {}", report["verdict"]);
            tries.push(format!("{} ms, {others:.1} others for each processor", took.as_millis()));
            took <= Duration::from_millis(limit_ms).mul_f64(1.0 + others)
        });
        if !in_time {
            late.push(format!("{scenario}: at most {limit_ms} ms: {tries:?}"));
        }
    }
    assert!(late.is_empty(), "too slow: {late:#?}");
}
