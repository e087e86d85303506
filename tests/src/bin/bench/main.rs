//! `cargo xtask bench`: what tracing costs, beside no tracer, tcpdump and bpftrace, in the same lab at the same load.
//! docs/performance.md says what is measured and how to read it.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use end_to_end::{load, names};

mod bpf;
mod covered;
mod floor;
mod place;
mod report;
mod start;
mod stats;
mod subjects;
mod traffic;
mod verdict;

use report::{Machine, Report};

#[derive(Debug, Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Hidden>,
}

/// Measure what tracing costs, beside no tracer, tcpdump and bpftrace
#[derive(Args, Debug)]
struct Options {
    /// Small loads and few rounds: to try the command, not to quote
    #[arg(long)]
    quick: bool,
    /// Rounds of the comparison; each runs every subject once
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Where the JSON goes
    #[arg(long, value_name = "FILE", default_value = "bench.json")]
    json: PathBuf,
    /// The command that is measured; by default the one built beside this
    #[arg(long, value_name = "PATH")]
    probe: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// The library's tracer, in a process of its own.
    #[command(name = "__trace", hide = true)]
    Trace,
}

/// How much of everything.
struct Plan {
    probe: PathBuf,
    quick: bool,
    rounds: usize,
    /// Queries of a round whose round trips are measured.
    round_trips: u32,
    /// Of each rate.
    load_time: Duration,
    hook_rounds: usize,
    /// Numbers of veths, each with its rounds.
    veths: Vec<(usize, usize)>,
    verdicts: usize,
    digs: usize,
}

impl Plan {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let probe = match &options.probe {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("hostdns-probe"),
        };
        if !probe.is_file() {
            bail!("{} is not there; run `cargo xtask bench`, which builds it", probe.display());
        }
        let probe = probe.canonicalize().with_context(|| format!("cannot resolve {}", probe.display()))?;
        let plan = if options.quick {
            Self {
                probe,
                quick: true,
                rounds: 2,
                round_trips: 50,
                load_time: Duration::from_millis(200),
                hook_rounds: 3,
                veths: vec![(10, 1)],
                verdicts: 1,
                digs: 0,
            }
        } else {
            Self {
                probe,
                quick: false,
                rounds: 8,
                round_trips: 500,
                load_time: Duration::from_secs(1),
                hook_rounds: 20,
                veths: vec![(10, 6), (110, 3), (500, 1)],
                verdicts: 6,
                digs: 1,
            }
        };
        Ok(Self { rounds: options.rounds.unwrap_or(plan.rounds), ..plan })
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Some(Hidden::Trace) => covered::run(),
        None => bench(&cli.options),
    };
    if let Err(error) = outcome {
        eprintln!("error: {error:#}");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

/// A goal that is missed, or a measure that cannot be taken, is part of the result and no failure.
fn bench(options: &Options) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("bench makes network namespaces and loads eBPF, which needs root: sudo -E cargo xtask bench");
    }
    let plan = Plan::new(options)?;
    let mut report = Report { machine: machine(plan.quick), measures: Vec::new(), impossible: Vec::new() };
    type Part = fn(&Plan, &mut Report) -> anyhow::Result<()>;
    let parts: [(&str, Part); 3] = [
        ("hooks, round trips, loss and memory", traffic::run),
        ("start with many interfaces", start::run),
        ("time to a verdict", verdict::run),
    ];
    for (what, part) in parts {
        if let Err(error) = part(&plan, &mut report) {
            report.impossible(what, format!("{error:#}"));
        }
    }
    report.machine.load_after = load_average();
    let json = serde_json::to_string_pretty(&report).context("the report as JSON")?;
    std::fs::write(&options.json, json + "\n").with_context(|| format!("cannot write {}", options.json.display()))?;
    println!("{}", report.table());
    eprintln!("bench: the same as JSON: {}", options.json.display());
    Ok(())
}

/// Waits until `done`, for `limit` at most.
fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < limit {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    done()
}

fn machine(quick: bool) -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let processor = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    Machine {
        kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        processor: processor.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
        processors: std::thread::available_parallelism().map_or(1, Into::into),
        load_before: load_average(),
        load_after: String::new(),
        version: env!("CARGO_PKG_VERSION"),
        quick,
    }
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}
