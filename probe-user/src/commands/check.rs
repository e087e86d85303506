//! `hostdns-probe check`: the main job.

use std::{io::IsTerminal as _, time::Duration};

use anyhow::Context as _;
use clap::Args;
use glob::Pattern;

use crate::{
    check::{self, Options, Progress},
    cli::{
        Global,
        args::{KubernetesArgs, OutputArgs, SourceArgs, TargetArgs, VantageArg},
    },
    commands::{
        Exit,
        what_if::{self, WhatIfArgs},
    },
    facts::{self, Sources},
    printer,
    query::NamedVantage,
    target::HOST_DNS_V6,
};

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Ask from this network namespace too: netns=PATH[,name=NAME]; may be given several times
    #[arg(long, value_name = "VANTAGE", help_heading = "Questions")]
    pub vantage: Vec<VantageArg>,
    /// The name to ask for, instead of example.com and one fixed variant
    #[arg(long, value_name = "NAME", help_heading = "Questions")]
    pub qname: Option<String>,
    /// Longest wait for one answer; evidence ends it sooner
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration, help_heading = "Questions")]
    pub timeout: Duration,
    /// Longest time for the whole check
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = humantime::parse_duration, help_heading = "Questions")]
    pub budget: Duration,
    /// Follow packets on these interfaces too, by name or glob; may be given several times
    #[arg(long, value_name = "GLOB", value_parser = Pattern::new, help_heading = "Tracing")]
    pub interface: Vec<Pattern>,
    /// Follow packets on every interface of the node
    #[arg(long, help_heading = "Tracing")]
    pub all_interfaces: bool,
    #[command(flatten)]
    pub what_if: WhatIfArgs,
    /// Let warnings count: exit with 1 where the verdict is pass and there are any
    #[arg(long, help_heading = "Output")]
    pub strict: bool,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub sources: SourceArgs,
    #[command(flatten)]
    pub kubernetes: KubernetesArgs,
}

const EXAMPLES: &str = "\
Examples:
  hostdns-probe check
  hostdns-probe check --address 169.254.20.10                     node-local-dns
  hostdns-probe check --vantage netns=/proc/4711/ns/net,name=web  ask from that process' namespace too
  hostdns-probe check --output json --output-file report.json --junit report.xml
  hostdns-probe check --host-root /host                           under `kubectl debug node`
  hostdns-probe check --what-if cilium-version=1.18.2 --what-if lo-scope=global   before anyone changes it

Exit codes: 0 healthy, 1 a problem was found, 2 could not judge, 64 wrong usage.";

/// # Errors
/// The report cannot be written. What could not be known about the node is in the report, and no error.
pub fn run(args: &CheckArgs, global: &Global) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the check's threads")?;
    let progress = OnStderr { silent: global.quiet || !std::io::stderr().is_terminal() };
    if !args.what_if.changes.is_empty() {
        progress.step("gathering facts");
        let options = options(args);
        let facts = runtime.block_on(facts::gather(&options.sources));
        progress.clear();
        let node = facts.kernel.node_name.get().map_or("this node", |name| name.trim());
        let (targets, deciding) = (&options.sources.targets, check::deciding(&options, &facts));
        return what_if::run(&args.what_if, node, &facts, targets, deciding, &args.output, global);
    }
    let report = runtime.block_on(check::run(&options(args), &progress));
    progress.clear();
    // Detaching takes a while; the kernel does it when the process ends, and the verdict need not wait for it.
    runtime.shutdown_background();
    printer::print_report(&report, &args.output, global)?;
    Ok(Exit::of(&report, args.strict))
}

fn options(args: &CheckArgs) -> Options {
    let sources = args.sources.sources(args.target.targets(facts::is_on_lo(HOST_DNS_V6)));
    let cluster = args.kubernetes.cluster(std::env::var_os("KUBECONFIG").as_deref());
    Options {
        sources: Sources { kubernetes: Some(cluster), ..sources },
        named: args.vantage.iter().map(|arg| NamedVantage::new(arg.netns.clone(), arg.name.clone())).collect(),
        interfaces: args.interface.clone(),
        all_interfaces: args.all_interfaces,
        qname: args.qname.clone(),
        timeout: args.timeout,
        budget: args.budget,
    }
}

/// One line on a terminal, replaced as the check goes on.
struct OnStderr {
    silent: bool,
}

impl Progress for OnStderr {
    fn step(&self, what: &str) {
        if !self.silent {
            eprint!("\r\x1b[K{what} ...");
        }
    }
}

impl OnStderr {
    fn clear(&self) {
        if !self.silent {
            eprint!("\r\x1b[K");
        }
    }
}
