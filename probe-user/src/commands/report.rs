//! `hostdns-probe report`: a saved JSON report, rendered again.

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::{Global, args::OutputArgs},
    commands::{
        Exit, saved,
        what_if::{self, WhatIfArgs},
    },
    printer, verdict,
};

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// A report of `check --output json`; - reads stdin
    pub file: PathBuf,
    #[command(flatten)]
    pub what_if: WhatIfArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

const EXAMPLES: &str = "\
Examples:
  hostdns-probe report report.json
  hostdns-probe report report.json --output markdown --redact --output-file issue.md
  hostdns-probe report report.json --what-if cilium-version=1.19.0-pre.0 --what-if devices=2
  kubectl -n hostdns-probe exec POD -- /hostdns-probe check --output json | hostdns-probe report -

Exit codes: 0 rendered (whatever the report's verdict), 2 not a readable report, 64 wrong usage. With --what-if: 0 it
would work, 1 it would fail, 2 cannot be told.";

/// # Errors
/// The file cannot be read, or is no report of a version known here.
pub fn run(args: &ReportArgs, global: &Global) -> anyhow::Result<Exit> {
    let report = saved::read(&args.file)?;
    if !args.what_if.changes.is_empty() {
        let (targets, deciding) = (report.target_sockets(), verdict::deciding_in(&report));
        return what_if::run(&args.what_if, &report.node.name, &report.facts, &targets, deciding, &args.output, global);
    }
    printer::print_report(&report, &args.output, global)?;
    Ok(Exit::Ok)
}
