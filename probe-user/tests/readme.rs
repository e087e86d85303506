//! The README promises finding codes and command lines: held against what the command itself says.

use std::{
    collections::BTreeMap,
    process::{Command, Output},
};

use clap::Parser as _;
use hostdns_probe::cli::Cli;

const README: &str = include_str!("../../README.md");

fn hostdns_probe(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hostdns-probe")).args(args).output().expect("the command was built")
}

/// `HDP201` and its name from every row of the README's table.
fn readme_codes() -> BTreeMap<String, String> {
    let rows = README.lines().filter(|line| line.starts_with("| HDP"));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    let codes: Vec<_> = cells.map(|cells| (cells[1].to_owned(), cells[2].to_owned())).collect();
    assert!(codes.is_sorted(), "the README's table is not in order");
    let map: BTreeMap<_, _> = codes.iter().cloned().collect();
    assert_eq!(map.len(), codes.len(), "a code stands twice in the README's table");
    map
}

/// A code at the beginning of a line, and its name behind it.
fn explained_codes(list: &str) -> BTreeMap<String, String> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some((words.next().filter(|code| code.starts_with("HDP"))?, words.next()?))
    };
    list.lines().filter_map(entry).collect()
}

#[test]
fn the_table_of_findings_is_what_explain_lists() {
    let output = hostdns_probe(&["explain"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let explained = explained_codes(&String::from_utf8_lossy(&output.stdout));
    assert!(explained.len() > 40, "explain lists {} codes", explained.len());
    assert_eq!(readme_codes(), explained);
}

#[test]
fn every_command_line_in_the_readme_is_one() {
    let tried = command_lines(README);
    assert!(tried > 10, "only {tried} command lines were found");
}

#[test]
fn every_command_line_of_the_upgrades_is_one() {
    let tried = command_lines(include_str!("../../docs/upgrades.md"));
    assert!(tried > 4, "only {tried} command lines were found");
}

/// Parses every command line in a page's shell blocks; how many there are.
fn command_lines(page: &str) -> usize {
    let mut tried = 0;
    let mut in_shell = false;
    for line in page.lines() {
        if let Some(fence) = line.strip_prefix("```") {
            in_shell = fence == "sh";
            continue;
        }
        let Some(start) = in_shell.then(|| line.find("hostdns-probe ")).flatten() else {
            continue;
        };
        // Either a command by itself, or one that runs in a container; not an image's or a namespace's name.
        if start > 0 && !line[..start].ends_with("-- /") {
            continue;
        }
        let words = line[start..].split_whitespace().take_while(|word| !["#", ">", "|", "||", "&&"].contains(word));
        let parsed = Cli::try_parse_from(words);
        assert!(parsed.is_ok(), "{line}\n{}", parsed.expect_err("checked"));
        tried += 1;
    }
    tried
}

#[test]
fn links_lead_somewhere() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let targets = README.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local: Vec<_> = targets.filter(|target| !target.contains("://") && !target.starts_with('#')).collect();
    assert!(!local.is_empty(), "no local link");
    for target in local {
        assert!(root.join(target).exists(), "{target}");
    }
}
