//! `lab exec`: a command inside a lab.

use std::{
    io,
    process::{Child, Command, ExitCode, ExitStatus},
};

use anyhow::Context as _;
use clap::Args;

use crate::lab::{enter, standing};

#[derive(Debug, Args)]
pub(super) struct Exec {
    /// The lab; needed when several are standing.
    #[arg(long)]
    lab: Option<String>,
    /// A pod: its name, the beginning of it, or its device (lxc_health).
    #[arg(long)]
    pod: Option<String>,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

pub(super) fn run(args: &Exec) -> anyhow::Result<ExitCode> {
    let lab = standing::find(args.lab.as_deref())?;
    let (program, arguments) = args.command.split_first().context("no command to run")?;
    let mut command = if program == "hostdns-probe" { enter::this_program() } else { Command::new(program) };
    command.args(arguments);
    Ok(wait(enter::spawn(&lab, args.pod.as_deref(), command)?)?)
}

/// The command's exit code, passed through; 128 + signal as a shell says it.
pub(super) fn wait(mut child: Child) -> io::Result<ExitCode> {
    use std::os::unix::process::ExitStatusExt as _;
    let status: ExitStatus = child.wait()?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
