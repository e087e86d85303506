//! One step of a command: says what it does, does it, says how long it took.

use std::{
    io::IsTerminal as _,
    path::Path,
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

/// A command as one would type it, with the variables that make a difference to it.
pub(crate) fn shown(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        if let (Some(name), Some(value)) = (name.to_str().filter(|name| name.starts_with("LLVM_")), value) {
            line.push_str(&format!("{name}={} ", value.to_string_lossy()));
        }
    }
    // cargo by its whole path is only noise: the same one is first in PATH.
    let program = Path::new(command.get_program());
    let program = if program.ends_with("cargo") { Path::new("cargo") } else { program };
    line.push_str(&program.to_string_lossy());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_typed() {
        let mut command = Command::new("/home/me/.rustup/toolchains/stable/bin/cargo");
        command.args(["install", "bpf-linker"]).env("PATH", "/bin").env("LLVM_PREFIX", "/usr/lib/llvm-22");
        assert_eq!(shown(&command), "LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker");
        assert_eq!(shown(Command::new("target/debug/hostdns-probe").arg("lab")), "target/debug/hostdns-probe lab");
    }
}
