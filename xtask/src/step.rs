//! One step of a command: says what it does, does it, says how long it took.

use std::{
    io::IsTerminal as _,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// Runs `work` under a heading on stderr.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    eprintln!("{} {what}", paint("==>"));
    let started = Instant::now();
    let outcome = work();
    let how = if outcome.is_ok() { "done" } else { "failed" };
    eprintln!("{} {what}: {how} in {}", paint("==>"), seconds(started.elapsed()));
    outcome
}

/// Runs a command whose output goes to the terminal; anything but success is an error.
pub(crate) fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn paint(text: &str) -> String {
    if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[1;36m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
