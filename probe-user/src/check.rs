//! One check from end to end: gather, ask while following, judge. What it returns is the whole report.

mod following;
mod linking;
mod naming;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use glob::Pattern;
use hickory_proto::rr::RecordType;

use self::following::Following;
use crate::{
    checks::{self, Case},
    ended::Ended,
    facts::{self, Fact, Facts, Sources},
    predict::{Deciding, predict, predict_on_host},
    query::{self, NamedVantage, Query, Vantage, Wanted},
    report::{Node, Report, SCHEMA, Tool},
    target::Targets,
    trace::{EventCounts, Hook, PacketTrace, event::Topology, tracer},
    verdict::{self, outcome::Outcome},
};

/// After the last answer the kernel's events of it are read for so long.
const SETTLE: Duration = tracer::LATENCY.saturating_mul(3);

/// What to check and how.
#[derive(Clone, Debug)]
pub struct Options {
    pub sources: Sources,
    pub named: Vec<NamedVantage>,
    /// More interfaces to hook, by name.
    pub interfaces: Vec<Pattern>,
    pub all_interfaces: bool,
    /// Instead of the two default names.
    pub qname: Option<String>,
    /// Per query.
    pub timeout: Duration,
    /// For the whole check.
    pub budget: Duration,
}

/// Told what the check is doing, for whoever waits for it.
pub trait Progress: Send + Sync {
    fn step(&self, what: &str);
}

/// Runs one check. It always comes to a report: what could not be known is a finding in it.
pub async fn run(options: &Options, progress: &dyn Progress) -> Report {
    let started = Instant::now();
    let taken_at = jiff::Timestamp::now();

    progress.step("gathering facts");
    let (sources, targets) = (&options.sources, &options.sources.targets);
    let mut facts = facts::gather(sources).await;

    let vantages = vantages(options, &facts);

    progress.step("attaching hooks");
    let topology = topology(&facts, targets, &vantages);
    let following = Arc::new(Following::start(options, &facts, topology, &vantages).await);

    progress.step("asking");
    let asks = query::plan(&vantages, targets, &wanted(options));
    let deadline = started + options.budget;
    let mut queries = query::ask_all(&asks, |index, ask| following.follow(index, ask, deadline)).await;
    let followed = following.finish(SETTLE).await;
    facts.cilium.drops_after = facts::cilium_drops(sources).await.since(facts.cilium.drops_map);

    let mut traces = followed.traces;
    linking::link(&mut queries, &mut traces, &asks, &followed.topology);
    naming::ciliums_reason(&mut traces, &facts, targets);
    naming::whom_leaks_pass_for(&mut traces, sources).await;

    progress.step("judging");
    judge(Gathered { targets, facts, hooks: followed.hooks, queries, traces, events: followed.events })
        .stamped(taken_at, started)
}

fn vantages(options: &Options, facts: &Facts) -> Vec<Vantage> {
    let mut named = options.named.clone();
    for vantage in &mut named {
        if let Err(error) = vantage.identify() {
            tracing::warn!("--vantage {}: {error}", vantage.name);
        }
    }
    query::vantages(facts, &named, &options.sources.targets, &options.sources.proc_root)
}

/// Whose queries would decide, if they were asked.
#[must_use]
pub fn deciding(options: &Options, facts: &Facts) -> Deciding {
    let kinds = vantages(options, facts).into_iter().map(|vantage| vantage.kind);
    Deciding::of(kinds.filter(|&kind| verdict::vantage::decides_first(kind)))
}

struct Gathered<'a> {
    targets: &'a Targets,
    facts: Facts,
    hooks: Vec<Hook>,
    queries: Vec<Query>,
    traces: Vec<PacketTrace>,
    events: EventCounts,
}

/// From everything that is known to the report; nothing is opened any more.
fn judge(gathered: Gathered<'_>) -> Report {
    let Gathered { targets, facts, hooks, mut queries, traces, events } = gathered;
    let (of_pods, on_host) = (predict(&facts, targets), predict_on_host(&facts, targets));
    let case = |queries| Case {
        targets,
        facts: &facts,
        hooks: &hooks,
        queries,
        traces: &traces,
        events,
        prediction: &of_pods,
        prediction_on_host: &on_host,
    };
    // What the traces know of a question counts for more than what its socket saw.
    let ends: Vec<Ended> = queries.iter().map(|query| Outcome::of(&case(&[]), query).ended).collect();
    for (query, ended) in queries.iter_mut().zip(ends) {
        query.ended = ended;
    }
    let case = case(&queries);
    let findings = checks::run(&case);
    let verdict = verdict::judge(&case, &findings);
    let prediction = verdict::prediction(&case).clone();
    let or_unknown = |fact: &Fact<String>| fact.get().cloned().unwrap_or_else(|| "unknown".to_owned());
    Report {
        schema: SCHEMA.to_owned(),
        tool: Tool { name: "hostdns-probe".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        taken_at: String::new(),
        duration_ms: 0,
        node: Node {
            name: or_unknown(&facts.kernel.node_name),
            kernel: or_unknown(&facts.kernel.release),
            lockdown: or_unknown(&facts.kernel.lockdown),
            os: or_unknown(&facts.kernel.os),
        },
        targets: targets.sockets().map(|socket| socket.to_string()).collect(),
        facts,
        hooks,
        queries,
        traces,
        events,
        findings,
        prediction,
        verdict,
    }
}

impl Report {
    fn stamped(mut self, taken_at: jiff::Timestamp, started: Instant) -> Self {
        self.taken_at = taken_at.to_string();
        self.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self
    }
}

fn wanted(options: &Options) -> Wanted {
    let mut wanted = Wanted { timeout: options.timeout, ..Wanted::default() };
    if let Some(qname) = &options.qname {
        wanted.names = vec![(qname.clone(), RecordType::A)];
    }
    wanted
}

/// The node as the facts show it, and the namespaces asked from under the vantages' names.
fn topology(facts: &Facts, targets: &Targets, vantages: &[Vantage]) -> Topology {
    let mut topology = Topology::from_facts(facts, targets);
    for vantage in vantages.iter().filter(|vantage| vantage.kind.is_pod() && vantage.netns.cookie != 0) {
        topology.pods.retain(|&(cookie, _)| cookie != vantage.netns.cookie);
        topology.pods.push((vantage.netns.cookie, vantage.name.clone()));
    }
    topology
}
