//! What can be typed: clap derive, nothing else.

pub mod args;

use std::{ffi::OsString, process::ExitCode};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, error::ErrorKind};

use crate::commands::{self, Exit};

/// Does CoreDNS forwarding to the node's own DNS survive eBPF masquerade here, and if not, which packet died where,
/// why, and what fixes it?
#[derive(Debug, Parser)]
#[command(name = "hostdns-probe", version, propagate_version = true, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  hostdns-probe check                     judge this node
  hostdns-probe check -v                  ... with every fact, hook and trace
  hostdns-probe check --output json       ... for a program to read

Exit codes: 0 healthy, 1 a problem was found, 2 could not judge, 64 wrong usage.
The tool observes only: it changes nothing on the node.";

/// Flags that every subcommand has.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Global {
    /// Say more: every finding, fact and trace in the text report, progress on stderr; -vv for debugging
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// Log errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: bool,
    /// When to colour the text report; NO_COLOR turns `auto` off
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Global options")]
    pub color: Color,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal
    #[default]
    Auto,
    Always,
    Never,
}

/// The subcommands, in the order in which a user meets them. Each one's arguments stand beside its `run`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Judge this node: gather, ask, follow the packets, and say what is wrong and what fixes it
    #[cfg(all(feature = "probe", target_os = "linux"))]
    Check(commands::check::CheckArgs),
    /// Show DNS transactions to and from the address live, hop by hop, and where each ended
    #[cfg(all(feature = "probe", target_os = "linux"))]
    Trace(commands::trace::TraceArgs),
    /// Reproduce the issue, its relatives and its fixes in network namespaces on this machine
    #[cfg(all(feature = "probe", target_os = "linux"))]
    Lab(commands::lab::LabArgs),
    /// Ask the test questions alone, once or again and again
    #[cfg(all(feature = "probe", target_os = "linux"))]
    Query(commands::query::QueryArgs),
    /// Tell what a finding means, why it happens and how to fix it; without a code, list them
    Explain(commands::explain::ExplainArgs),
    /// Do nothing until told to end: what the DaemonSet's container runs, so that `kubectl exec` has somewhere to go
    #[cfg(all(feature = "probe", target_os = "linux"))]
    #[command(after_help = commands::wait::EXAMPLES)]
    Wait,
    /// Render a saved JSON report again, in another format
    Report(commands::report::ReportArgs),
    /// Compare two saved reports: what an upgrade changed, and whether something broke
    Diff(commands::diff::DiffArgs),
    /// Print a completion script for a shell
    Completions(commands::completions::CompletionsArgs),
    /// Print the manual page, or write all of them into a directory
    Man(commands::man::ManArgs),
    /// Print the JSON Schema of an output
    Schema(commands::schema::SchemaArgs),
}

/// Reads the command line. What clap has to say itself (help, version, wrong usage) is said here.
///
/// # Errors
/// The exit code of what was said: 0 for help and version, 64 for wrong usage.
pub fn parse() -> Result<Cli, ExitCode> {
    parse_from(std::env::args_os())
}

/// The same for any command line, the program's name first.
///
/// # Errors
/// As [`parse`].
pub fn parse_from<T: Into<OsString> + Clone>(line: impl IntoIterator<Item = T>) -> Result<Cli, ExitCode> {
    Cli::try_parse_from(line).map_err(|error| {
        // Nothing is left to do where even this cannot be written.
        let _ = error.print();
        exit_code(error.kind())
    })
}

fn exit_code(kind: ErrorKind) -> ExitCode {
    match kind {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => Exit::Usage.into(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_shows_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("hostdns-probe"), "{} has no example", command.get_name());
        }
    }

    #[test]
    fn wrong_usage_is_64_and_help_is_0() {
        let kind = |line: &[&str]| Cli::try_parse_from(line).expect_err("not a command to run").kind();
        for line in [&["hostdns-probe", "--nonsense"][..], &["hostdns-probe", "nonsense"], &["hostdns-probe"]] {
            assert_eq!(exit_code(kind(line)), ExitCode::from(64), "{line:?}");
        }
        for line in [&["hostdns-probe", "--help"][..], &["hostdns-probe", "--version"], &["hostdns-probe", "help"]] {
            assert_eq!(exit_code(kind(line)), ExitCode::SUCCESS, "{line:?}");
        }
    }
}
