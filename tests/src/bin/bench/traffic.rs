//! One lab, one load, every subject in turn, many times: round trips, loss, memory; and what our hooks cost.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::{
    Plan,
    bpf::{Objects, Runs},
    floor::Floor,
    load::{Client, Responder, Sent},
    place::{self, Lab},
    report::Report,
    stats,
    subjects::{Running, Subject, Told, resident},
};

/// The rates of the issue, in queries a second. Beside them: as fast as it goes.
const RATES: [u32; 4] = [1_000, 5_000, 10_000, 20_000];

struct Bench<'a> {
    lab: &'a Lab<'a>,
    client: Client,
    other: Client,
    _responders: [Responder; 2],
}

pub(crate) fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    // The address is there and known to Cilium; its port is free for the fixed responder.
    let lab = Lab::up(&plan.probe, "nobody-listens")?;
    let server = place::server()?;
    let other = place::OTHER_SERVER;
    let bench = Bench {
        _responders: [Responder::start(&lab.node, server)?, Responder::start(&lab.node, other)?],
        client: Client::new(&lab.pod, server)?,
        other: Client::new(&lab.pod, other)?,
        lab: &lab,
    };
    for client in [&bench.client, &bench.other] {
        let answered = !client.round_trips(20)?.is_empty();
        anyhow::ensure!(answered, "no query is answered in the lab, with no tracer at all");
    }
    side_by_side(&bench, plan, report)?;
    hook_cost(&bench, plan, report)
}

#[derive(Default)]
struct Measured {
    round_trip: Vec<f64>,
    slow: Vec<f64>,
    /// For each rate: reached, unanswered and unseen in percent.
    reached: Vec<Vec<f64>>,
    unanswered: Vec<Vec<f64>>,
    unseen: Vec<Vec<f64>>,
    own_lost: Vec<f64>,
    resident: Vec<f64>,
    peak: Vec<f64>,
    maps: Vec<f64>,
}

fn side_by_side(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    // The highest rate is found untraced, first, and is then the same for all.
    let highest = bench.client.load(None, plan.load_time, 0)?.rate;
    report.add("loss", ("highest rate untraced", Subject::None.name()), (&[highest], "q/s"), None, "asked of all");
    let rates: Vec<u32> = if plan.quick { vec![1_000] } else { RATES.into_iter().chain([highest as u32]).collect() };
    let mut all: Vec<(Subject, Measured)> = Subject::ALL
        .iter()
        .map(|&subject| {
            let mut measured = Measured::default();
            for series in [&mut measured.reached, &mut measured.unanswered, &mut measured.unseen] {
                series.resize(rates.len(), Vec::new());
            }
            (subject, measured)
        })
        .collect();
    for round in 0..plan.rounds {
        // Each round begins with another: what drifts drifts for all.
        all.rotate_left(1);
        let mut failed = Vec::new();
        for (subject, measured) in &mut all {
            eprintln!("bench: round {} of {}: {}", round + 1, plan.rounds, subject.name());
            if let Err(error) = one_round(bench, plan, *subject, &rates, measured) {
                report.impossible(subject.name(), format!("{error:#}"));
                failed.push(*subject);
            }
        }
        all.retain(|(subject, _)| !failed.contains(subject));
    }
    all.sort_by_key(|(subject, _)| Subject::ALL.iter().position(|known| known == subject));
    add(&all, &rates, report);
    Ok(())
}

fn one_round(
    bench: &Bench<'_>,
    plan: &Plan,
    subject: Subject,
    rates: &[u32],
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let running = Running::start(subject, bench.lab)?;
    bench.client.round_trips(20)?;
    let times = bench.client.round_trips(plan.round_trips)?;
    measured.round_trip.extend(stats::percentile(&times, 0.5));
    measured.slow.extend(stats::percentile(&times, 0.99));
    let mut first = 100_000;
    let mut loads = Vec::new();
    for &rate in rates {
        let sent = bench.client.load(Some(rate), plan.load_time, first)?;
        first += sent.sent + 1;
        loads.push(sent);
        std::thread::sleep(Duration::from_millis(100));
    }
    if let (Subject::Probe, Some(pid)) = (subject, running.pid()) {
        let (now, peak) = resident(pid)?;
        measured.resident.push(now as f64 / 1024.0);
        measured.peak.push(peak as f64 / 1024.0);
        measured.maps.push(Objects::of(pid)?.map_bytes() as f64 / 1024.0 / 1024.0);
    }
    let told = running.stop();
    measured.own_lost.extend(told.lost.map(|lost| lost as f64));
    for (index, sent) in loads.iter().enumerate() {
        note_load(measured, index, sent, &told);
    }
    Ok(())
}

fn note_load(measured: &mut Measured, index: usize, sent: &Sent, told: &Told) {
    let percent = |count: u32| 100.0 * f64::from(sent.sent - count.min(sent.sent)) / f64::from(sent.sent.max(1));
    measured.reached[index].push(sent.rate);
    measured.unanswered[index].push(percent(sent.answered));
    if let Some(seen) = &told.seen {
        measured.unseen[index].push(percent(seen.count(sent.first..sent.first + sent.sent)));
    }
}

fn add(all: &[(Subject, Measured)], rates: &[u32], report: &mut Report) {
    let of = |wanted| all.iter().find(|(subject, _)| *subject == wanted).map(|(_, measured)| measured);
    for (subject, measured) in all {
        let name = subject.name();
        report.add("round trip", ("round trip, median of a round", name), (&measured.round_trip, "us"), None, "");
        report.add("round trip", ("round trip, 99th percentile of a round", name), (&measured.slow, "us"), None, "");
    }
    if let Some(ours) = of(Subject::Probe) {
        for against in [Subject::None, Subject::TcpdumpToNull, Subject::TcpdumpPrints] {
            let Some(theirs) = of(against) else { continue };
            // Round by round: what both had to bear at the time cancels out.
            let more: Vec<f64> = ours.round_trip.iter().zip(&theirs.round_trip).map(|(a, b)| a - b).collect();
            let Some(estimate) = stats::estimate(&more) else { continue };
            let verdict = if estimate.high < 0.0 {
                "faster"
            } else if estimate.low > 0.0 {
                "slower"
            } else {
                "below the noise: the interval holds 0"
            };
            let what = format!("round trip, more than with {}", against.name());
            // Not worse, or not to be told from the noise, is the goal; without a tracer there is none.
            let goal = (against != Subject::None).then_some(0.0);
            report.add("round trip", (what, Subject::Probe.name()), (&more, "us"), goal, verdict);
            if let Some(measure) = report.measures.last_mut().filter(|measure| measure.goal.is_some()) {
                measure.met = Some(estimate.low <= 0.0);
            }
        }
    }
    for (index, rate) in rates.iter().enumerate() {
        for (subject, measured) in all {
            let name = subject.name();
            let at = |what: &str| format!("at {rate} q/s: {what}");
            report.add("loss", (at("reached"), name), (&measured.reached[index], "q/s"), None, "");
            report.add("loss", (at("unanswered"), name), (&measured.unanswered[index], "%"), None, "");
            let goal = (*subject == Subject::Probe && *rate <= 20_000).then_some(0.0);
            report.add("loss", (at("queries it did not show"), name), (&measured.unseen[index], "%"), goal, "");
        }
    }
    for (subject, measured) in all {
        let unit = if *subject == Subject::Probe { "events" } else { "packets" };
        report.add("loss", ("lost by its own count, a round", subject.name()), (&measured.own_lost, unit), None, "");
    }
    if let Some(ours) = of(Subject::Probe) {
        let name = Subject::Probe.name();
        report.add("memory", ("resident after the load", name), (&ours.resident, "MiB"), None, "");
        report.add("memory", ("resident at its highest", name), (&ours.peak, "MiB"), None, "");
        report.add("memory", ("maps (memlock in fdinfo)", name), (&ours.maps, "MiB"), None, "");
    }
}

/// BPF run-time statistics around packets that match and packets that do not. They hold the two clock reads around
/// each run.
fn hook_cost(bench: &Bench<'_>, plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let name = Subject::Probe.name();
    let _statistics = match aya::sys::enable_stats(aya::sys::Stats::RunTime) {
        Ok(file) => file,
        Err(error) => {
            report.impossible("hook cost", format!("BPF_ENABLE_STATS: {error}; it needs Linux 5.8 and CAP_SYS_ADMIN"));
            return Ok(());
        }
    };
    let floor = floor(bench, plan)?;
    report.add("hooks", ("an empty program: the clock reads of the statistics", "none"), (&floor, "ns"), None, "");
    let floor = stats::percentile(&floor, 0.5).unwrap_or_default();
    let running = Running::start(Subject::Probe, bench.lab)?;
    let pid = running.pid().context("the traced subject has ended")?;
    // The devices' hooks that nobody waits for come a moment later.
    std::thread::sleep(Duration::from_millis(500));
    let (mut foreign, mut foreign_sockets, mut matching, mut transaction, mut tracepoints) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut sightings = Vec::new();
    for _ in 0..plan.hook_rounds {
        let quiet = Objects::of(pid)?;
        std::thread::sleep(Duration::from_millis(100));
        let before = Objects::of(pid)?;
        bench.other.round_trips(plan.round_trips)?;
        let between = Objects::of(pid)?;
        let began = Instant::now();
        let answered = bench.client.round_trips(plan.round_trips)?.len() as f64;
        let took = began.elapsed().as_secs_f64();
        let after = Objects::of(pid)?;
        foreign.extend(mean(between.devices().since(before.devices())));
        foreign_sockets.extend(mean(between.sockets().since(before.sockets())));
        let (devices, sockets) = (after.devices().since(between.devices()), after.sockets().since(between.sockets()));
        let both = Runs { time_ns: devices.time_ns + sockets.time_ns, count: devices.count + sockets.count };
        matching.extend(mean(both));
        // What others' packets cost in the same time is little, but it is not ours: the quiet time's share goes off.
        let noise = before.all().since(quiet.all()).time_ns as f64 / 0.1;
        let all = after.all().since(between.all()).time_ns as f64;
        if answered > 0.0 {
            transaction.push((all - noise * took).max(0.0) / answered / 1000.0);
            sightings.push(both.count as f64 / answered);
        }
        tracepoints.extend(mean(after.tracepoints().since(between.tracepoints())));
    }
    running.stop();
    let add = |report: &mut Report, what: &str, values: &[f64], unit, goal| {
        report.add("hooks", (what, name), (values, unit), goal, "");
    };
    let mut hook = |what: &str, values: &[f64], goal| {
        let above: Vec<f64> = values.iter().map(|value| value - floor).collect();
        add(report, &format!("{what}, as the statistics show it"), values, "ns", None);
        add(report, &format!("{what}, above an empty program"), &above, "ns", Some(goal));
    };
    hook("device hook, packet that does not match", &foreign, 40.0);
    hook("socket hook, packet that does not match", &foreign_sockets, 40.0);
    hook("hook, packet that matches", &matching, 400.0);
    add(report, "all hooks, one transaction", &transaction, "us", Some(5.0));
    add(report, "runs of hooks in one transaction", &sightings, "", None);
    add(report, "tracepoint, mean of all packets", &tracepoints, "ns", None);
    Ok(())
}

/// Nanoseconds that the statistics show for a program that does nothing, on the same way at the same load.
fn floor(bench: &Bench<'_>, plan: &Plan) -> anyhow::Result<Vec<f64>> {
    let _floor = Floor::attach(&bench.lab.node)?;
    let own = std::process::id();
    let mut means = Vec::new();
    for _ in 0..plan.hook_rounds {
        let before = Objects::of(own)?;
        bench.other.round_trips(plan.round_trips)?;
        means.extend(mean(Objects::of(own)?.devices().since(before.devices())));
    }
    Ok(means)
}

fn mean(runs: Runs) -> Option<f64> {
    (runs.count > 0).then(|| runs.time_ns as f64 / runs.count as f64)
}
