//! One file per subcommand: its arguments and its `run`.

#[cfg(all(feature = "probe", target_os = "linux"))]
pub mod check;
pub mod completions;
pub mod diff;
pub mod explain;
#[cfg(all(feature = "probe", target_os = "linux"))]
pub mod lab;
pub mod man;
#[cfg(all(feature = "probe", target_os = "linux"))]
pub mod query;
pub mod report;
pub mod saved;
pub mod schema;
#[cfg(all(feature = "probe", target_os = "linux"))]
pub mod trace;
#[cfg(all(feature = "probe", target_os = "linux"))]
pub mod wait;
pub mod what_if;

use std::process::ExitCode;

use crate::{
    checks::Severity,
    cli::{Cli, Command},
    printer::Printer,
    report::{Report, Status},
};

/// How a command ends, for whoever reads exit codes: node-problem-detector's custom plugins do as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Healthy, or done.
    Ok = 0,
    /// A problem was found.
    Problem = 1,
    /// Could not judge, or not do it.
    Unknown = 2,
    /// Wrong usage; EX_USAGE of sysexits(3). clap's own 2 would read as "could not judge".
    Usage = 64,
}

impl Exit {
    /// What a report means for the exit code; `strict` makes warnings count.
    #[must_use]
    pub fn of(report: &Report, strict: bool) -> Self {
        let warned = report.findings.iter().any(|finding| finding.severity != Severity::Info);
        match report.verdict.status {
            Status::Pass if strict && warned => Self::Problem,
            Status::Pass => Self::Ok,
            Status::Fail => Self::Problem,
            Status::Unknown => Self::Unknown,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs what was asked for.
///
/// # Errors
/// It could not be done.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let global = &cli.global;
    let exit = match cli.command {
        #[cfg(all(feature = "probe", target_os = "linux"))]
        Command::Lab(args) => return lab::run(&args, global),
        #[cfg(all(feature = "probe", target_os = "linux"))]
        Command::Wait => return wait::run(),
        #[cfg(all(feature = "probe", target_os = "linux"))]
        Command::Check(args) => check::run(&args, global)?,
        #[cfg(all(feature = "probe", target_os = "linux"))]
        Command::Query(args) => query::run(&args, global)?,
        #[cfg(all(feature = "probe", target_os = "linux"))]
        Command::Trace(args) => trace::run(&args, global)?,
        Command::Explain(args) => {
            let mut text = Vec::new();
            explain::run(&args, &mut text)?;
            Printer::new(global, None).print(|_, out| out.write_all(&text))?;
            Exit::Ok
        }
        Command::Report(args) => report::run(&args, global)?,
        Command::Diff(args) => diff::run(&args, global)?,
        Command::Completions(args) => completions::run(&args, global)?,
        Command::Man(args) => man::run(&args, global)?,
        Command::Schema(args) => schema::run(&args, global)?,
    };
    Ok(exit.into())
}

/// Tells the user what went wrong, from the outermost to the root cause.
#[must_use]
pub fn explain_failure(error: anyhow::Error) -> ExitCode {
    // Not through tracing: with RUST_LOG=off the user would be left with an exit code alone.
    eprintln!("hostdns-probe: {}", chain(&error));
    #[cfg(all(feature = "probe", target_os = "linux"))]
    if error.downcast_ref().is_some_and(crate::lab::Error::is_wrong_usage) {
        return Exit::Usage.into();
    }
    if error.is::<diff::TwiceStdin>() || error.is::<what_if::NoSuchForm>() {
        return Exit::Usage.into();
    }
    Exit::Unknown.into()
}

/// From the outermost cause to the root. A cause that the one before has told already is not told again.
fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        _ if said.contains(&cause) => said,
        _ => format!("{said}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::examples;

    #[test]
    fn exit_codes_follow_the_verdict() {
        assert_eq!(Exit::of(&examples::leak(), false), Exit::Problem);
        assert_eq!(Exit::of(&examples::unknown(), true), Exit::Unknown);
        assert_eq!(Exit::of(&examples::healthy(), false), Exit::Ok);
    }

    #[test]
    fn strict_makes_warnings_count_and_nothing_else() {
        let mut report = examples::healthy();
        assert_eq!(Exit::of(&report, true), Exit::Problem, "the example has a warning");
        report.findings.retain(|finding| finding.severity == Severity::Info);
        assert_eq!(Exit::of(&report, true), Exit::Ok);
    }
}
