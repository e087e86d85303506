//! What works anywhere: no root, no eBPF, no Linux. `cargo xtask test` runs this without the `probe` feature too.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;

/// Snapshots of what `check --output json` writes: a head between two lines of dashes, and the report.
const BEFORE: &str = include_str!("../src/report/snapshots/hostdns_probe__report__json__tests__json_healthy.snap");
const AFTER: &str = include_str!("../src/report/snapshots/hostdns_probe__report__json__tests__json_leak.snap");

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hostdns-probe")).args(args).output().expect("the command was built")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// A report in a file of its own.
fn saved(directory: &tempfile::TempDir, name: &str, snapshot: &str) -> PathBuf {
    let report = snapshot.splitn(3, "---\n").nth(2).expect("a head and a body");
    let path = directory.path().join(name);
    fs::write(&path, report).expect("a file");
    path
}

fn files() -> (tempfile::TempDir, [String; 2]) {
    let directory = tempfile::tempdir().expect("a directory");
    let files = [saved(&directory, "before.json", BEFORE), saved(&directory, "after.json", AFTER)];
    let names = files.map(|path| path.to_str().expect("UTF-8").to_owned());
    (directory, names)
}

#[test]
fn two_reports_are_compared() {
    let (_directory, [before, after]) = files();
    let output = run(&["diff", &before, &after, "--output", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let diff: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(diff["outcome"], "regression");
    assert_eq!(run(&["diff", &after, &before]).status.code(), Some(0));
}

#[test]
fn a_report_is_rendered_in_every_form() {
    let (_directory, [_, after]) = files();
    for (form, part) in [
        ("text", "FAIL  "),
        ("json", "\"verdict\""),
        ("junit", "<testsuite"),
        ("markdown", "## FAIL"),
        ("oneline", "FAIL HDP201"),
    ] {
        let output = run(&["report", &after, "--output", form, "--redact"]);
        assert!(output.status.success() && stdout(&output).contains(part), "{form}: {}", stdout(&output));
    }
    let output = run(&["report", &after, "--what-if", "host-routing=legacy", "--output", "json"]);
    let what_if: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(what_if["schema"], "hostdns-probe/what-if/v1");
}

#[test]
fn every_schema_is_one() {
    let list = stdout(&run(&["schema"]));
    for name in ["hostdns-probe/report/v1", "hostdns-probe/diff/v1", "hostdns-probe/what-if/v1"] {
        assert!(list.lines().any(|line| line == name), "{name} is not in {list}");
    }
    for name in list.lines() {
        let schema: Value = serde_json::from_slice(&run(&["schema", name]).stdout).expect(name);
        assert_eq!(schema["$id"], name);
        assert!(schema["properties"].is_object(), "{name}");
    }
}

#[test]
fn the_page_of_findings_is_what_explain_says() {
    let page = include_str!("../../docs/findings.md");
    let made = stdout(&run(&["explain", "--output", "markdown"]));
    assert!(page == made, "docs/findings.md is not what the checks say any more; `cargo xtask docs` writes it anew");
}

#[test]
fn the_page_of_findings_links_to_itself() {
    let page = include_str!("../../docs/findings.md");
    let links: Vec<&str> = page.split("](#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() > 30, "{} links", links.len());
    for link in links {
        assert!(page.contains(&format!("<a id=\"{link}\"></a>")), "no {link}");
    }
    // Outside of code nothing would be taken for HTML.
    let prose: String =
        page.replace("<a id=\"", "").replace("\"></a>", "").replace("<!--", "").split('`').step_by(2).collect();
    assert!(!prose.contains('<'), "{:?}", prose.split_once('<').map(|(_, rest)| &rest[..40]));
}
