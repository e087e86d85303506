//! `cargo xtask test`: every test there is, each kind a step of its own; one that fails does not hide the next.

use std::{ffi::OsStr, fs, process::Command, time::Instant};

use anyhow::{Context as _, bail};

use crate::{
    cli, setup,
    step::{seconds, step, succeed},
    vm,
    workspace::{self, BINARY},
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
    if workspace::is_root() {
        setup::tools(options.consent, &setup::TESTING)?;
    }
    step("build everything", || succeed(&mut build()))?;
    let binary = workspace::target_dir().join("debug").join(BINARY);

    let mut failed = Vec::new();
    for (what, mut command) in steps(binary.as_os_str(), &end_to_end_tests()?) {
        if step(what, || succeed(&mut command)).is_err() {
            failed.push(what);
        }
    }
    if options.vm || workspace::is_ci() {
        let wanted = cli::Vm { consent: options.consent, ..cli::Vm::default() };
        let ran = vm::prepare(&wanted).and_then(|ready| step(VIRTUAL, || vm::boot_all(&ready, &wanted)));
        if let Err(error) = ran {
            eprintln!("{error:#}");
            failed.push(VIRTUAL);
        }
    } else {
        eprintln!("LEFT OUT: {VIRTUAL}, which take a release build and five minutes or more: cargo xtask test --vm");
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

/// The tests and the command itself, which the tests of the command line need.
fn build() -> Command {
    let mut build = workspace::cargo("test");
    build.args(["--workspace", "--all-targets", "--no-run"]);
    build
}

/// Names of the end-to-end tests: of the files they are in.
fn end_to_end_tests() -> anyhow::Result<Vec<String>> {
    let directory = workspace::root().join("tests/tests");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", directory.display()))?.path();
        if path.extension() == Some(OsStr::new("rs")) {
            names.extend(path.file_stem().and_then(OsStr::to_str).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

/// What is run, cheapest to tell first. All but the one without eBPF select the whole workspace in one profile, and with it the same features of
/// every dependency: so dependencies and the eBPF programs are compiled once (and checked once, for clippy).
fn steps(binary: &OsStr, end_to_end_tests: &[String]) -> Vec<(&'static str, Command)> {
    let mut format = workspace::cargo("fmt");
    format.args(["--all", "--check"]);

    let mut unit = workspace::cargo("test");
    unit.args(["--workspace", "--exclude", END_TO_END, "--all-targets", "--no-fail-fast"]);

    let mut documentation = workspace::cargo("test");
    documentation.args(["--workspace", "--exclude", END_TO_END, "--doc", "--no-fail-fast"]);

    let mut lints = workspace::cargo("clippy");
    lints.args(["--workspace", "--all-targets", "--", "-D", "warnings"]);

    let mut without_ebpf = workspace::cargo("test");
    without_ebpf.args(["--package", "probe-user", "--test", "offline"]).args(workspace::without_probe());

    let mut steps = vec![
        ("format", format),
        ("unit and snapshot tests", unit),
        ("documentation tests", documentation),
        ("lints", lints),
        ("explain, diff, report and schema without eBPF", without_ebpf),
    ];
    if workspace::is_root() {
        let mut end_to_end = workspace::cargo("test");
        end_to_end.args(["--workspace", "--no-fail-fast"]).env(BINARY_ENV, binary);
        for test in end_to_end_tests {
            end_to_end.args(["--test", test]);
        }
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
        let steps = steps(OsStr::new("/target/debug/hostdns-probe"), &["kill".to_owned()]);
        let end_to_end = steps.iter().find(|(what, _)| what.starts_with("end-to-end"));
        assert_eq!(end_to_end.is_some(), workspace::is_root());
        if let Some((_, command)) = end_to_end {
            let binary = command.get_envs().find(|(name, _)| *name == BINARY_ENV).and_then(|(_, value)| value);
            assert_eq!(binary, Some(OsStr::new("/target/debug/hostdns-probe")));
            assert!(command.get_args().any(|arg| arg == "kill"));
        }
    }

    #[test]
    fn end_to_end_tests_are_found() {
        let names = end_to_end_tests().unwrap();
        assert!(names.iter().any(|name| name == "kill"), "{names:?}");
        assert!(names.iter().all(|name| workspace::root().join(format!("tests/tests/{name}.rs")).is_file()));
    }

    /// What the command is built of.
    fn packages(arguments: &[&str]) -> Vec<String> {
        let mut tree = workspace::cargo("tree");
        tree.args(["--package", "probe-user", "--edges", "normal,build", "--prefix", "none"]).args(arguments);
        let output = tree.output().expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    }

    /// What needs a kernel, or a compiler for it, comes with the `probe` feature alone.
    #[test]
    fn without_the_probe_nothing_of_ebpf_is_built() {
        let of_the_probe =
            ["aya", "aya-obj", "aya-build", "tokio", "nix", "rtnetlink", "hickory-proto", "kube", "hyper", "rustls"];
        let (with, without) = (packages(&[]), packages(&["--no-default-features"]));
        for name in of_the_probe {
            assert!(with.iter().any(|package| package == name), "{name} is no dependency any more");
            assert!(!without.iter().any(|package| package == name), "{name} is built without the probe too");
        }
    }

    #[test]
    fn without_the_kubernetes_feature_nothing_of_it_is_built() {
        let of_kubernetes = ["kube", "kube-client", "k8s-openapi", "hyper", "rustls"];
        let without = packages(&["--no-default-features", "--features", "probe"]);
        assert!(without.iter().any(|package| package == "aya"));
        for name in of_kubernetes {
            assert!(!without.iter().any(|package| package == name), "{name}");
        }
    }

    /// A static binary has no library of the system's.
    #[test]
    fn tls_comes_without_openssl() {
        let with = packages(&[]);
        for name in ["openssl", "openssl-sys", "native-tls", "aws-lc-rs"] {
            assert!(!with.iter().any(|package| package == name), "{name}");
        }
    }

    #[test]
    fn no_step_may_leave_ebpf_out() {
        for (what, command) in steps(OsStr::new("x"), &[]) {
            let required = command
                .get_envs()
                .any(|(name, value)| name == crate::ebpf_tools::REQUIRE_ENV && value == Some(OsStr::new("1")));
            assert!(required, "{what}");
        }
    }
}
