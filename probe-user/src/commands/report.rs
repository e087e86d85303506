//! `hostdns-probe report`: a saved JSON report, rendered again.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;

use crate::{
    cli::{Global, args::OutputArgs},
    commands::Exit,
    printer,
    report::saved,
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
    let name = if args.file == Path::new("-") { "stdin".to_owned() } else { args.file.display().to_string() };
    let text = read(&args.file).with_context(|| format!("cannot read {name}"))?;
    let report = saved::parse(&text).with_context(|| format!("{name} is not a report that can be rendered"))?;
    printer::print_report(&report, &args.output, global)?;
    Ok(Exit::Ok)
}

fn read(path: &Path) -> io::Result<String> {
    if path != Path::new("-") {
        return fs::read_to_string(path);
    }
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text)?;
    Ok(text)
}
