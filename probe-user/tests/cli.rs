//! The command from outside: exit codes, streams, and what it says about bad input.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostdns-probe"));
    command.args(args).env_remove("RUST_LOG");
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().expect("the command was built")
}

fn run_with_stdin(args: &[&str], input: &str) -> Output {
    let mut command = command(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A report with nothing in it but what is required.
const REPORT: &str = r#"{
    "schema": "hostdns-probe/report/v1", "tool": {"name": "hostdns-probe", "version": "0.1.0"},
    "taken_at": "2026-03-14T09:26:53Z", "duration_ms": 12,
    "node": {"name": "cp-1", "kernel": "6.12.48", "lockdown": "none", "os": "Talos"},
    "targets": ["169.254.116.108:53"], "facts": {}, "hooks": [], "queries": [], "traces": [],
    "events": {"seen": 0, "lost": 0}, "findings": [],
    "prediction": {"status": "unknown", "ended": null, "direction": "none", "cause": null, "because": []},
    "verdict": {"status": "fail", "ended": "leaked", "direction": "request", "cause": "HDP201", "summary": "It leaks."}
}"#;

#[test]
fn wrong_usage_exits_with_64_and_says_so_on_stderr_alone() {
    for args in [
        &["--nonsense"][..],
        &["report"],
        &["completions", "teletype"],
        &["report", "x", "--output", "yaml"],
        &["explain", "HDP999"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_go_to_stdout_and_exit_with_0() {
    for args in [&["--help"][..], &["--version"], &["report", "--help"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_saved_report_is_rendered_from_stdin_in_every_form() {
    for (format, start) in [
        ("text", "FAIL  It leaks."),
        ("json", "{"),
        ("junit", "<?xml"),
        ("markdown", "## FAIL"),
        ("oneline", "FAIL HDP201"),
    ] {
        let output = run_with_stdin(&["report", "-", "--output", format], REPORT);
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{format}: {}", stderr(&output));
        assert!(stdout.starts_with(start), "{format}: {stdout}");
    }
}

#[test]
fn files_are_written_beside_stdout() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let (text, junit) = (path("report.md"), path("report.xml"));
    let args = ["report", "-", "--output", "markdown", "--output-file", &text, "--junit", &junit];
    let output = run_with_stdin(&args, REPORT);
    assert!(output.status.success() && output.stdout.is_empty(), "{}", stderr(&output));
    assert!(std::fs::read_to_string(text).expect("written").starts_with("## FAIL"));
    assert!(std::fs::read_to_string(junit).expect("written").contains("failures=\"1\""));
}

#[test]
fn a_bad_report_is_refused_with_its_place_and_exit_code_2() {
    let cut = &REPORT[..REPORT.len() / 2];
    for (input, says) in [
        (cut, "line 5 column"),
        ("{}", "no \"schema\" member"),
        (&REPORT.replace("report/v1", "report/v9"), "hostdns-probe/report/v9"),
        (&REPORT.replace("\"leaked\"", "\"evaporated\""), "evaporated"),
    ] {
        let output = run_with_stdin(&["report", "-"], input);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(says) && output.stdout.is_empty(), "{says}: {}", stderr(&output));
    }
    let output = run(&["report", "/nonexistent.json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("/nonexistent.json"), "{}", stderr(&output));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child =
        command(&["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn schemas_are_listed_and_printed() {
    let list = String::from_utf8(run(&["schema"]).stdout).expect("text");
    assert!(list.lines().any(|line| line == "hostdns-probe/report/v1"), "{list}");
    for name in list.lines() {
        let schema: serde_json::Value = serde_json::from_slice(&run(&["schema", name]).stdout).expect("JSON");
        assert_eq!(schema["$id"], name);
    }
    assert_eq!(run(&["schema", "nonsense"]).status.code(), Some(64));
}
