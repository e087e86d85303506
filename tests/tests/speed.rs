//! A broken node has its verdict within 1.5 s, a healthy one within 1 s.
//!
//! So it is on a machine that has nothing else to do. Where others keep the processors busy, the limit is longer by
//! their share, which is measured beside each check; and a check that is late may try again, for others come and go.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use end_to_end::{is_root_or_skips, lab::Lab, run, schema};
use serde::Deserialize;

/// Scenarios whose check waits for something that is slow by itself, and for what.
const SLOW: &[(&str, &str)] = &[("upstream-slow", "its upstream takes 1.5 s, and answers in time are waited for")];

/// A scenario, as `lab list` has it.
#[derive(Deserialize)]
struct Scenario {
    scenario: String,
    expected: Expected,
    check_args: Vec<String>,
}

#[derive(Deserialize)]
struct Expected {
    status: String,
    cause: Option<String>,
}

impl Scenario {
    fn all() -> Vec<Self> {
        #[derive(Deserialize)]
        struct Listing {
            scenarios: Vec<Scenario>,
        }
        let output = run(["lab", "list", "--output", "json"]);
        serde_json::from_slice::<Listing>(&output.stdout).expect("a listing").scenarios
    }

    fn limit(&self) -> Duration {
        let healthy = self.expected.status == "pass" && self.expected.cause.is_none();
        Duration::from_millis(if healthy { 1000 } else { 1500 })
    }
}

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
    let scenarios = Scenario::all();
    assert!(scenarios.len() >= 33, "{} scenarios", scenarios.len());
    for (slow, _why) in SLOW {
        assert!(scenarios.iter().any(|row| row.scenario == *slow), "{slow} is gone");
    }
    let mut late = Vec::new();
    for row in scenarios.iter().filter(|row| SLOW.iter().all(|(slow, _why)| *slow != row.scenario)) {
        let (scenario, limit) = (&row.scenario, row.limit());
        let args: Vec<&str> = row.check_args.iter().map(String::as_str).collect();
        let lab = Lab::up(scenario, &format!("speed-{scenario}"));
        let mut tries = Vec::new();
        let in_time = (0..ATTEMPTS).any(|_| {
            let before = others_for_each_processor();
            let started = Instant::now();
            let (report, _output) = lab.check_unread(&args);
            let took = started.elapsed();
            let others = before.max(others_for_each_processor());
            schema::assert_valid(&report);
            let verdict = &report["verdict"];
            assert_eq!(verdict["status"], row.expected.status, "{scenario}: {verdict}");
            tries.push(format!("{} ms, {others:.1} others for each processor", took.as_millis()));
            took <= limit.mul_f64(1.0 + others)
        });
        println!("{scenario}: {tries:?}");
        if !in_time {
            late.push(format!("{scenario}: at most {limit:?}: {tries:?}"));
        }
    }
    assert!(late.is_empty(), "too slow: {late:#?}");
}
