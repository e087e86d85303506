//! `hostdns-probe query`: the test queries alone, once or again and again.

mod render;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use hickory_proto::rr::RecordType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    cli::{
        Global,
        args::{PlainFormat, PlainOutputArgs, SourceArgs, TargetArgs, VantageArg},
    },
    commands::Exit,
    ended::Ended,
    facts::{self, Facts},
    printer::Printer,
    query::{
        Ask, NamedVantage, QNAME, QTYPE, Query, Summary, Unobserved, Vantage, Wanted, ask_all, plan, summarize,
        vantages,
    },
    report::Tool,
    target::{HOST_DNS_V6, Targets},
};

/// The form of `query --output json`.
pub const SCHEMA: &str = "hostdns-probe/query/v1";

/// No more than this many questions a second, whatever `--interval` says: it is a test, not a load.
const MAX_PER_SECOND: u32 = 100;

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct QueryArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Ask from this network namespace too: netns=PATH[,name=NAME]; may be given several times
    #[arg(long, value_name = "VANTAGE", help_heading = "Questions")]
    pub vantage: Vec<VantageArg>,
    /// The name to ask for, instead of example.com and one fixed variant that no cache keeps for long
    #[arg(long, value_name = "NAME", help_heading = "Questions")]
    pub qname: Option<String>,
    /// The record type to ask for [default: A]
    #[arg(long, value_name = "TYPE", value_parser = record_type, help_heading = "Questions")]
    pub qtype: Option<RecordType>,
    /// Longest wait for one answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration, help_heading = "Questions")]
    pub timeout: Duration,
    /// Ask everything this many times, and say how many answers were lost and how long they took
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Questions")]
    pub repeat: u32,
    /// From one round to the next; longer where that would be more than 100 questions a second
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration, help_heading = "Questions")]
    pub interval: Duration,
    #[command(flatten)]
    pub output: PlainOutputArgs,
    #[command(flatten)]
    pub sources: SourceArgs,
}

const EXAMPLES: &str = "\
Examples:
  hostdns-probe query                                            once, from every vantage, over UDP and TCP
  hostdns-probe query --repeat 100 --interval 200ms              loss and percentiles
  hostdns-probe query --vantage netns=/proc/4711/ns/net,name=web from that process' namespace too
  hostdns-probe query --qname kubernetes.io --qtype AAAA --output json

Exit codes: 0 everything was answered, 1 not everything, 2 could not ask, 64 wrong usage.
An answer from outside the node counts as one here: only `check` follows the packets.";

/// `query --output json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QueryReport {
    /// [`SCHEMA`].
    #[schemars(extend("const" = SCHEMA))]
    pub schema: String,
    pub tool: Tool,
    /// RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub taken_at: String,
    pub duration_ms: u64,
    pub targets: Vec<SocketAddr>,
    /// Rounds that were finished.
    pub rounds: u32,
    /// From the start of one round to the next, at least.
    pub interval_ms: u64,
    /// Per question, over all rounds.
    pub summary: Vec<Summary>,
    /// Every query of every round, in the order in which they were asked.
    pub queries: Vec<Query>,
}

impl QueryReport {
    fn unanswered(&self) -> usize {
        self.queries.iter().filter(|query| query.ended != Ended::Answered).count()
    }
}

/// Asks from where the facts say that there is something to ask from.
///
/// # Errors
/// A `--vantage` is no namespace, or the output cannot be written.
pub fn run(args: &QueryArgs, global: &Global) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start reading")?;
    let facts = runtime.block_on(facts::gather(&args.sources.sources(args.target.targets(false))));
    run_on(args, global, &facts)
}

/// The same, on facts that are known.
///
/// # Errors
/// As [`run`].
pub fn run_on(args: &QueryArgs, global: &Global, facts: &Facts) -> anyhow::Result<Exit> {
    let targets = targets(args, facts);
    let vantages = vantages(facts, &named(&args.vantage)?, &targets, &args.sources.proc_root());
    let report = measure(args, &vantages, &targets, global)?;
    Printer::new(global, args.output.output_file.as_deref()).print(|_, out| match args.output.output {
        PlainFormat::Text => render::text(&report, out),
        PlainFormat::Json => render::json(&report, out),
    })?;
    Ok(exit(&report))
}

fn exit(report: &QueryReport) -> Exit {
    if report.queries.is_empty() {
        Exit::Unknown
    } else if report.unanswered() == 0 {
        Exit::Ok
    } else {
        Exit::Problem
    }
}

fn targets(args: &QueryArgs, facts: &Facts) -> Targets {
    let addresses = facts.network.addresses.get().map_or(&[][..], Vec::as_slice);
    let v6 = addresses.iter().any(|address| address.interface == "lo" && address.address == HOST_DNS_V6);
    args.target.targets(v6)
}

/// The `--vantage`s, each looked at: a path that is no namespace is a mistake to hear of now.
fn named(args: &[VantageArg]) -> anyhow::Result<Vec<NamedVantage>> {
    args.iter()
        .map(|arg| {
            let mut named = NamedVantage::new(arg.netns.clone(), arg.name.clone());
            named.identify().with_context(|| format!("--vantage netns={} cannot be used", arg.netns.display()))?;
            Ok(named)
        })
        .collect()
}

fn wanted(args: &QueryArgs) -> Wanted {
    let default = Wanted { timeout: args.timeout, ..Wanted::default() };
    match (&args.qname, args.qtype) {
        (None, None) => default,
        (qname, qtype) => {
            let name = qname.clone().unwrap_or_else(|| QNAME.into());
            Wanted { names: vec![(name, qtype.unwrap_or(QTYPE))], ..default }
        }
    }
}

fn measure(args: &QueryArgs, vantages: &[Vantage], targets: &Targets, global: &Global) -> anyhow::Result<QueryReport> {
    let asks = plan(vantages, targets, &wanted(args));
    let interval = pace(args.interval, asks.len());
    if args.repeat > 1 && interval > args.interval && !global.quiet {
        let every = humantime::format_duration(interval);
        eprintln!("asking every {every}: {} questions a round, at most {MAX_PER_SECOND} a second", asks.len());
    }
    let (taken_at, started) = (jiff::Timestamp::now(), Instant::now());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start asking")?;
    let (rounds, queries) = runtime.block_on(ask_repeatedly(&asks, args.repeat, interval, global));
    Ok(QueryReport {
        schema: SCHEMA.into(),
        tool: Tool { name: "hostdns-probe".into(), version: env!("CARGO_PKG_VERSION").into() },
        taken_at: taken_at.to_string(),
        duration_ms: millis(started.elapsed()),
        targets: targets.sockets().collect(),
        rounds,
        interval_ms: millis(interval),
        summary: summarize(&queries),
        queries,
    })
}

/// Round after round; Ctrl-C ends it after the rounds that are finished, with what they found.
async fn ask_repeatedly(asks: &[Ask], repeat: u32, interval: Duration, global: &Global) -> (u32, Vec<Query>) {
    let mut queries = Vec::new();
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
    // A round that took longer than the interval is not made up for: that would be a burst.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 1..=repeat {
        let one = async {
            ticks.tick().await;
            ask_all(asks, |_, _| (Unobserved, std::future::pending())).await
        };
        let asked = if repeat == 1 {
            one.await
        } else {
            tokio::select! {
                asked = one => asked,
                Ok(()) = tokio::signal::ctrl_c() => return (round - 1, queries),
            }
        };
        if repeat > 1 && !global.quiet {
            let answered = asked.iter().filter(|query| query.ended == Ended::Answered).count();
            eprintln!("round {round}/{repeat}: {answered} of {} answered", asked.len());
        }
        queries.extend(asked);
    }
    (repeat, queries)
}

/// The interval, or as much longer as it takes to stay below [`MAX_PER_SECOND`].
fn pace(interval: Duration, questions: usize) -> Duration {
    let least = Duration::from_secs(1) * u32::try_from(questions).unwrap_or(u32::MAX) / MAX_PER_SECOND;
    interval.max(least)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn record_type(text: &str) -> Result<RecordType, String> {
    text.to_ascii_uppercase().parse().map_err(|_unknown| "not a DNS record type; A, AAAA, TXT, SRV, ... are".into())
}

/// A timeout of nothing would call every server silent.
fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be more than nothing, as in 500ms or 5s".into()),
        other => other.map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests;
