//! `cargo xtask setup`: an eBPF compiler and bpf-linker, installed only where they are missing.

use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    process::Command,
};

use anyhow::{Context as _, bail};

mod advice;
mod found;
mod plan;
mod tools;

use crate::{
    cli::Consent,
    step::{shown, step, succeed},
    workspace,
};
use found::Found;
use plan::{Plan, Step};
pub(crate) use tools::{MEASURING, TESTING, tools};

const LISTS: &str = "package lists";

/// Prepares this machine, or says with which commands its owner can.
pub(crate) fn run(consent: Consent) -> anyhow::Result<()> {
    let found = Found::look();
    let steps = match plan::decide(&found) {
        Plan::Ready => {
            eprintln!("setup: everything is there ({})", found.summary());
            return Ok(());
        }
        Plan::Stop(missing) => bail!("{}", advice::text(missing, &found)),
        Plan::Install(steps) => steps,
    };
    let mut commands = Vec::new();
    for step in &steps {
        commands.extend(step.commands(&found)?);
    }
    carry_out(consent, "To build the eBPF programs this machine lacks something.", commands)?;
    let found = Found::look();
    if plan::decide(&found) != Plan::Ready {
        bail!("installed, and still not complete: {}\n{}", found.summary(), advice::report_it());
    }
    eprintln!("setup: ready ({})", found.summary());
    Ok(())
}

/// Installs Debian packages that only some command needs.
pub(crate) fn install(consent: Consent, what: &str, packages: &[&'static str]) -> anyhow::Result<()> {
    let found = Found::look();
    if !found.apt {
        bail!("{what} is missing, and this is no machine with apt: install {} by hand", packages.join(" "));
    }
    let commands = Step::Packages(packages.to_vec()).commands(&found)?;
    carry_out(consent, &format!("{what} is missing."), commands)
}

/// Refreshes apt's package lists; one unreachable source of many is no error.
pub(crate) fn update_lists() -> anyhow::Result<()> {
    let mut update = Found::look().as_root("apt-get")?;
    update.args(["-q", "update"]);
    let _tells_itself = step(LISTS, || succeed(&mut update));
    Ok(())
}

fn carry_out(consent: Consent, why: &str, commands: Vec<(String, Command)>) -> anyhow::Result<()> {
    if !agreed(consent, why, &commands)? {
        bail!("nothing was installed; the commands above do it by hand");
    }
    for (what, mut command) in commands {
        let outcome = step(&format!("{what}: {}", shown(&command)), || succeed(&mut command));
        // One unreachable package source of many fails the update; the install then tells whether it mattered.
        if what != LISTS {
            outcome?;
        }
    }
    Ok(())
}

/// Asks once, where there is somebody to ask.
fn agreed(consent: Consent, why: &str, commands: &[(String, Command)]) -> anyhow::Result<bool> {
    let nobody_to_ask = !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal();
    if consent.yes || workspace::is_ci() || nobody_to_ask {
        return Ok(true);
    }
    eprintln!("{why} To be run:");
    for (what, command) in commands {
        eprintln!("  # {what}\n  {}", shown(command));
    }
    eprint!("Go ahead? [Y/n] ");
    std::io::stderr().flush().context("cannot write to the terminal")?;
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    // End of file is not an answer: do nothing then.
    Ok(read > 0 && matches!(answer.trim(), "" | "y" | "Y" | "yes"))
}

impl Step {
    /// The commands of this step, each with what it is for.
    fn commands(&self, found: &Found) -> anyhow::Result<Vec<(String, Command)>> {
        Ok(match self {
            Self::Packages(packages) => {
                let mut update = found.as_root("apt-get")?;
                update.args(["-q", "update"]);
                let mut install = found.as_root("apt-get")?;
                install.args(["-q", "-y", "install", "--no-install-recommends"]).args(packages);
                vec![(LISTS.to_owned(), update), (Self::purpose(packages).to_owned(), install)]
            }
            Self::BuildLinker { llvm } => {
                let mut command = workspace::cargo("install");
                command.args(["bpf-linker", "--version", plan::LINKER, "--locked", "--force"]);
                command.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
                let prefix = format!("/usr/lib/llvm-{llvm}");
                // bpf-linker's own build script reads LLVM_PREFIX, llvm-sys reads the other.
                command.env("LLVM_PREFIX", &prefix).env(format!("LLVM_SYS_{llvm}1_PREFIX"), &prefix);
                // A workspace's target directory is no place for another project's build.
                command.env_remove("CARGO_TARGET_DIR");
                vec![("bpf-linker (a minute)".to_owned(), command)]
            }
            Self::FetchLinker => {
                let mut command = workspace::cargo("binstall");
                command.args(["--no-confirm", "--force", &format!("bpf-linker@{}", plan::LINKER)]);
                vec![("bpf-linker, prebuilt".to_owned(), command)]
            }
        })
    }

    fn purpose(packages: &[&str]) -> &'static str {
        if let Some(tools) = [&TESTING, &MEASURING].into_iter().find(|tools| tools.hold_all(packages)) {
            return tools.purpose;
        }
        match (packages.contains(&"rustc-web"), packages.contains(&"llvm-22-dev")) {
            (true, true) => "eBPF compiler, and LLVM for bpf-linker",
            (true, false) => "eBPF compiler",
            (false, true) => "LLVM for bpf-linker",
            (false, false) if packages.contains(&"qemu-system-x86") => "QEMU",
            (false, false) => "C compiler",
        }
    }
}
