//! `lab check`: a scenario brought up, checked and taken down, or a standing lab checked.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::Args;

use super::{exec::wait, find, program};
use crate::{
    cli,
    lab::{
        enter, matrix, scenarios,
        standing::{self, Lab},
    },
};

#[derive(Debug, Args)]
pub(super) struct Check {
    /// A standing lab to check, in place of a scenario.
    #[arg(long)]
    lab: Option<String>,
    /// A real CoreDNS to run in its pod.
    #[arg(long, value_name = "PATH", value_parser = program, conflicts_with = "lab")]
    coredns: Option<PathBuf>,
    /// The scenario to bring up, check and take down; then arguments for check.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "SCENARIO] [CHECK ARGS")]
    rest: Vec<String>,
}

impl Check {
    /// The scenario, if one is named, and the arguments for check.
    fn split(&self) -> (Option<&str>, &[String]) {
        match self.rest.split_first() {
            Some((first, rest)) if self.lab.is_none() && !first.starts_with('-') => {
                (Some(first), rest.strip_prefix(&["--".to_owned()]).unwrap_or(rest))
            }
            _ => (None, &self.rest),
        }
    }
}

/// Arguments of check are looked at before a lab stands: what is wrong with them is heard of at once.
pub(super) fn run(args: &Check) -> anyhow::Result<ExitCode> {
    let (scenario, check_args) = args.split();
    let Some(name) = scenario else {
        let lab = standing::find(args.lab.as_deref())?;
        let of_scenario = scenarios::find(&lab.scenario).map(|scenario| scenario.check_args).unwrap_or_default();
        let line = command_line(&of_scenario, check_args);
        if let Err(said) = cli::parse_from(&line) {
            return Ok(said);
        }
        let mut command = enter::this_program();
        command.args(line.iter().skip(1));
        return Ok(wait(enter::spawn(&lab, None, command)?)?);
    };
    let scenario = find(name)?;
    let line = command_line(&scenario.check_args, check_args);
    if let Err(said) = cli::parse_from(&line) {
        return Ok(said);
    }
    let mut command = enter::this_program();
    command.args(line.iter().skip(1));
    eprintln!("{}: {}", scenario.name, scenario.description);
    let lab = Lab::up(&matrix::plan(&scenario, args.coredns.clone()))?;
    let code =
        enter::spawn(&lab.standing, None, command).map_err(anyhow::Error::from).and_then(|child| Ok(wait(child)?));
    lab.down()?;
    code
}

/// `hostdns-probe check`, with what the scenario needs and what the user adds.
fn command_line(of_scenario: &[String], of_user: &[String]) -> Vec<OsString> {
    ["hostdns-probe", "check"]
        .into_iter()
        .map(str::to_owned)
        .chain(of_scenario.iter().cloned())
        .chain(of_user.iter().cloned())
        .map(OsString::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: super::super::LabCommand,
    }

    fn check(args: &[&str]) -> Check {
        let line = ["lab", "check"].iter().chain(args);
        match Cli::try_parse_from(line).expect("a good command line").command {
            super::super::LabCommand::Check(check) => check,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn arguments_of_check_come_after_the_scenario_or_the_lab() {
        let with_scenario = check(&["issue-36761-leak", "--output", "json"]);
        let json = ["--output".to_owned(), "json".to_owned()];
        assert_eq!(with_scenario.split(), (Some("issue-36761-leak"), &json[..]));
        assert_eq!(check(&["x", "--", "-v"]).split(), (Some("x"), &["-v".to_owned()][..]));
        let with_lab = check(&["--lab", "mine", "--output", "json"]);
        assert_eq!((with_lab.lab.as_deref(), with_lab.split()), (Some("mine"), (None, &json[..])));
        assert_eq!(check(&["--", "--output", "json"]).split(), (None, &json[..]));
        assert_eq!(check(&[]).split(), (None, &[][..]));
    }
}
