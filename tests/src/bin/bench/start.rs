//! From the start of the process to the first event, and to the last interface covered, with many veths; and how long
//! `ip link add` takes elsewhere meanwhile: attaching holds the kernel's one RTNL lock.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hostdns_probe::{netns::Netns, trace::tracer::boot_ns};

use crate::{
    Plan,
    load::{Client, Responder},
    place,
    report::Report,
    stats,
    subjects::Subject,
    wait_until,
};

pub(crate) fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let elsewhere = Netns::new()?;
    for &(veths, rounds) in &plan.veths {
        eprintln!("bench: start with {veths} veths, {rounds} times");
        let node = place::many_veths(veths)?;
        let address = place::server()?;
        let _responder = Responder::start(&node, address)?;
        let (mut first, mut covered, mut idle, mut meanwhile) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            idle.extend(stats::percentile(&link_adds(&elsewhere, |_| Ok(()), 10)?, 0.5));
            let limit = Duration::from_millis(2_000 + 100 * veths as u64);
            first.push(first_event(&plan.probe, &node, address, limit)?);
            let mut time = None;
            let adds = link_adds(
                &elsewhere,
                |_| {
                    time = all_covered(&node, limit)?;
                    Ok(())
                },
                1,
            )?;
            meanwhile.extend(stats::percentile(&adds, 0.5));
            match time {
                Some(time) => covered.push(time),
                None => report.impossible(
                    format!("time to the last of {veths} interfaces"),
                    format!("not all were covered within {limit:?}"),
                ),
            }
        }
        let name = Subject::Probe.name();
        let at = |what: &str| format!("{veths} veths: {what}");
        report.add("start", (at("start to first event"), name), (&first, "ms"), Some(300.0), "");
        report.add("start", (at("start to last interface covered"), name), (&covered, "ms"), None, "");
        report.add("start", (at("ip link add elsewhere"), Subject::None.name()), (&idle, "ms"), None, "");
        report.add("start", (at("ip link add elsewhere meanwhile"), name), (&meanwhile, "ms"), None, "");
    }
    Ok(())
}

/// Starts `trace` among queries that never cease; milliseconds to the first event of its first transaction.
fn first_event(probe: &Path, node: &Netns, address: SocketAddr, limit: Duration) -> anyhow::Result<f64> {
    let client = Client::new(node, address)?;
    let mut command = Command::new(probe);
    command.args(["trace", "--output", "json", "--count", "1"]);
    let mut told = started(&mut command, node)?;
    // A query each millisecond or so: that is how finely the first event can be told.
    wait_until(limit, || {
        let _ = client.round_trips(1);
        told.said("started_ns").is_some()
    });
    told.ms("started_ns").with_context(|| format!("trace showed no event within {limit:?}"))
}

/// Starts the tracer on every device; milliseconds until the last one is covered, if that was within `limit`.
fn all_covered(node: &Netns, limit: Duration) -> anyhow::Result<Option<f64>> {
    let mut told = started(Command::new(std::env::current_exe()?).arg("__trace"), node)?;
    wait_until(limit, || told.said("covered").is_some());
    Ok(told.ms("covered"))
}

/// A process and the JSON objects that it says, one a line.
struct Told {
    /// Boot clock, nanoseconds, when it was started.
    began: u64,
    child: Child,
    lines: Arc<Mutex<Vec<serde_json::Value>>>,
}

fn started(command: &mut Command, node: &Netns) -> anyhow::Result<Told> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let began = boot_ns();
    let mut child = node.run(|| command.spawn())?.context("cannot start the tracer")?;
    let out = child.stdout.take().context("its output")?;
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if let Ok(line) = serde_json::from_str(&line) {
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        }
    });
    Ok(Told { began, child, lines })
}

impl Told {
    /// The number that the first line with this member holds.
    fn said(&self, member: &str) -> Option<u64> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().find_map(|line| line.get(member)?.as_u64())
    }

    /// The same, a time of the boot clock, in milliseconds since the start.
    fn ms(&mut self, member: &str) -> Option<f64> {
        self.said(member).map(|at| at.saturating_sub(self.began) as f64 / 1e6)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if !wait_until(Duration::from_secs(5), || self.child.try_wait().is_ok_and(|status| status.is_some())) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Runs `ip link add` again and again while `work` runs, `at_least` so many times; milliseconds of each.
fn link_adds(
    elsewhere: &Netns,
    work: impl FnOnce(&Netns) -> anyhow::Result<()>,
    at_least: usize,
) -> anyhow::Result<Vec<f64>> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| {
            elsewhere.run(|| {
                let mut times = Vec::new();
                while times.len() < at_least || !done.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let output = Command::new("ip")
                        .args(["link", "add", "bench0", "type", "veth", "peer", "bench1"])
                        .output()?;
                    times.push(began.elapsed().as_secs_f64() * 1000.0);
                    place::succeeded(&output, "ip link add")?;
                    place::succeeded(&Command::new("ip").args(["link", "del", "bench0"]).output()?, "ip link del")?;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Ok::<_, anyhow::Error>(times)
            })
        });
        let worked = work(elsewhere);
        done.store(true, Ordering::Relaxed);
        let times = adding.join().map_err(|_panic| anyhow::anyhow!("the thread that adds links panicked"))??;
        worked?;
        times
    })
}
