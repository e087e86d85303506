//! `cargo xtask test`: every test there is, each kind a step of its own; one that fails does not hide the next.

use std::{ffi::OsStr, process::Command, time::Instant};

use anyhow::bail;

use crate::{
    build, cli, setup,
    step::{seconds, step, succeed},
    vm, workspace,
};

/// The package whose tests need root and network namespaces.
const END_TO_END: &str = "end-to-end";
const VIRTUAL: &str = "Debian's kernels in virtual machines";
/// Tells the end-to-end tests which binary to run.
const BINARY_ENV: &str = "HOSTDNS_PROBE_BIN";
/// Set to 1, an end-to-end test that cannot run fails instead of being left out.
const REQUIRE_ROOT_ENV: &str = "HOSTDNS_PROBE_REQUIRE_ROOT_TESTS";

pub(crate) fn run(options: cli::Test) -> anyhow::Result<()> {
    let started = Instant::now();
    setup::run(options.consent)?;
    let binary = build::development(None)?;

    let mut failed = Vec::new();
    for (what, mut command) in steps(binary.as_os_str()) {
        if step(what, || succeed(&mut command)).is_err() {
            failed.push(what);
        }
    }
    if options.vm || workspace::is_ci() {
        let wanted = cli::Vm { consent: options.consent, ..cli::Vm::default() };
        match vm::prepare(&wanted) {
            Ok(ready) => {
                if let Err(error) = step(VIRTUAL, || vm::boot_all(&ready, &wanted)) {
                    eprintln!("{error:#}");
                    failed.push(VIRTUAL);
                }
            }
            Err(error) => {
                eprintln!("LEFT OUT: {VIRTUAL}: {error:#}");
                if workspace::is_ci() {
                    failed.push("Debian's kernels in virtual machines (not to be had, and CI=true)");
                }
            }
        }
    } else {
        eprintln!("LEFT OUT: {VIRTUAL}, which take a quarter of an hour: cargo xtask test --vm");
    }
    let took = seconds(started.elapsed());
    if !workspace::is_root() {
        let left_out = "LEFT OUT: the end-to-end tests, which need root: sudo -E env \"PATH=$PATH\" cargo xtask test";
        if workspace::is_ci() {
            failed.push("end-to-end tests (no root, and CI=true)");
        }
        eprintln!("{left_out}");
    }
    if !failed.is_empty() {
        bail!("failed after {took}: {}", failed.join("; "));
    }
    eprintln!("every step passed, in {took}");
    Ok(())
}

/// What is run, cheapest to tell first. All use one profile, so that dependencies are compiled once (and checked
/// once, for clippy).
fn steps(binary: &OsStr) -> Vec<(&'static str, Command)> {
    let mut format = workspace::cargo("fmt");
    format.args(["--all", "--check"]);

    let mut unit = workspace::cargo("test");
    unit.args(["--workspace", "--exclude", END_TO_END, "--all-targets", "--no-fail-fast"]);

    let mut documentation = workspace::cargo("test");
    documentation.args(["--workspace", "--exclude", END_TO_END, "--doc", "--no-fail-fast"]);

    let mut lints = workspace::cargo("clippy");
    lints.args(["--workspace", "--all-targets", "--", "-D", "warnings"]);

    let mut steps = vec![
        ("format", format),
        ("unit and snapshot tests", unit),
        ("documentation tests", documentation),
        ("lints", lints),
    ];
    if workspace::is_root() {
        let mut end_to_end = workspace::cargo("test");
        end_to_end.args(["--package", END_TO_END, "--no-fail-fast"]).env(BINARY_ENV, binary);
        if workspace::is_ci() {
            end_to_end.env(REQUIRE_ROOT_ENV, "1");
        }
        steps.push(("end-to-end tests, as root", end_to_end));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_to_end_tests_get_the_binary_that_was_built() {
        let steps = steps(OsStr::new("/target/debug/hostdns-probe"));
        let end_to_end = steps.iter().find(|(what, _)| what.starts_with("end-to-end"));
        assert_eq!(end_to_end.is_some(), workspace::is_root());
        if let Some((_, command)) = end_to_end {
            let binary = command.get_envs().find(|(name, _)| *name == BINARY_ENV).and_then(|(_, value)| value);
            assert_eq!(binary, Some(OsStr::new("/target/debug/hostdns-probe")));
        }
    }

    #[test]
    fn no_step_may_leave_ebpf_out() {
        for (what, command) in steps(OsStr::new("x")) {
            let required = command
                .get_envs()
                .any(|(name, value)| name == crate::ebpf_tools::REQUIRE_ENV && value == Some(OsStr::new("1")));
            assert!(required, "{what}");
        }
    }
}
