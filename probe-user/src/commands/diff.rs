//! `hostdns-probe diff`: two saved reports, and what changed between them that matters.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::{
    cli::Global,
    commands::{Exit, saved},
    diff::{self, Diff, Named, Outcome},
    printer::Printer,
};

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct DiffArgs {
    /// The report from before, of `check --output json`; - reads stdin
    pub before: PathBuf,
    /// The report from after; - reads stdin
    pub after: PathBuf,
    /// Exit with 1 too where it is still broken, or works with new warnings
    #[arg(long, help_heading = "Output")]
    pub strict: bool,
    /// Form of the output
    #[arg(short, long, value_name = "FORMAT", default_value = "text", help_heading = "Output")]
    pub output: Format,
    /// Write it to a file instead of stdout
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub output_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    /// hostdns-probe/diff/v1
    Json,
    /// For a pull request or a chat
    Markdown,
}

const EXAMPLES: &str = "\
Examples:
  hostdns-probe check --output json --output-file before.json     before an upgrade
  hostdns-probe check --output json --output-file after.json      after it
  hostdns-probe diff before.json after.json
  kubectl -n hostdns-probe exec POD -- /hostdns-probe check --output json | hostdns-probe diff before.json -

Exit codes: 0 nothing is worse (it may still be broken as before: --strict makes that, and new warnings, 1),
1 a regression, 2 one of them could not judge or is not a report, 64 wrong usage.";

/// Both are stdin: there is only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("only one of the two can come from stdin; save the other one to a file")]
pub struct TwiceStdin;

/// # Errors
/// A file cannot be read, or is no report of a version known here.
pub fn run(args: &DiffArgs, global: &Global) -> anyhow::Result<Exit> {
    let stdin = Path::new("-");
    if args.before == stdin && args.after == stdin {
        return Err(TwiceStdin.into());
    }
    let (before, after) = (saved::read(&args.before)?, saved::read(&args.after)?);
    let (old, new) = (saved::name(&args.before), saved::name(&args.after));
    let diff = diff::diff(Named { name: &old, report: &before }, Named { name: &new, report: &after });
    Printer::new(global, args.output_file.as_deref()).print(|options, out| match args.output {
        Format::Text => diff::text(&diff, options, out),
        Format::Markdown => diff::markdown(&diff, options, out),
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &diff)?;
            writeln!(out)
        }
    })?;
    Ok(exit(&diff, args.strict))
}

const fn exit(diff: &Diff, strict: bool) -> Exit {
    match diff.outcome {
        Outcome::Regression | Outcome::BrokenOtherwise => Exit::Problem,
        Outcome::Unknown => Exit::Unknown,
        Outcome::StillBroken | Outcome::Degraded if strict => Exit::Problem,
        Outcome::Fixed if strict && !diff.warnings.is_empty() => Exit::Problem,
        Outcome::StillBroken | Outcome::Degraded | Outcome::Fixed | Outcome::Changed | Outcome::Unchanged => Exit::Ok,
    }
}
