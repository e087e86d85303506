//! `hostdns-probe report`: a saved JSON report, rendered again.

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::{Global, args::OutputArgs},
    commands::{Exit, saved},
    printer,
};

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// A report of `check --output json`; - reads stdin
    pub file: PathBuf,
    #[command(flatten)]
    pub output: OutputArgs,
}

const EXAMPLES: &str = "\
Examples:
  hostdns-probe report report.json
  hostdns-probe report report.json --output markdown --output-file issue.md
  kubectl -n hostdns-probe exec POD -- /hostdns-probe check --output json | hostdns-probe report -

Exit codes: 0 rendered (whatever the report's verdict), 2 not a readable report, 64 wrong usage.";

/// # Errors
/// The file cannot be read, or is no report of a version known here.
pub fn run(args: &ReportArgs, global: &Global) -> anyhow::Result<Exit> {
    let report = saved::read(&args.file)?;
    printer::print_report(&report, &args.output, global)?;
    Ok(Exit::Ok)
}
