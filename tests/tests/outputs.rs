//! What each command prints as JSON is what the schema that `hostdns-probe schema` prints for it says. Reports,
//! transactions, diffs and what-ifs are held against theirs wherever a test reads one.

use std::process::Output;

use end_to_end::{hostdns_probe, is_root_or_skips, lab::Lab, run, schema, stderr, stdout};
use serde_json::Value;

fn read(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", stdout(output), stderr(output)))
}

#[test]
fn lists_are_what_their_schemas_say() {
    for args in [&["lab", "list"][..], &["explain"], &["explain", "HDP201"]] {
        let output = run(args.iter().copied().chain(["--output", "json"]));
        schema::assert_valid(&read(&output));
    }
}

#[test]
fn a_matrix_is_what_its_schema_says() {
    if !is_root_or_skips("a_matrix_is_what_its_schema_says") {
        return;
    }
    let output = run(["lab", "matrix", "healthy-legacy", "issue-36761-leak", "--output", "json"]);
    let mut matrix = read(&output);
    schema::assert_valid(&matrix);
    matrix["scenarios"][0]["measured"]["status"] = "fine".into();
    assert!(!schema::wrong(&matrix).is_empty(), "a status that there is not");
}

#[test]
fn a_query_is_what_its_schema_says() {
    if !is_root_or_skips("a_query_is_what_its_schema_says") {
        return;
    }
    let lab = Lab::up("healthy-known-address", &format!("outputs-{}", std::process::id()));
    let probe = hostdns_probe();
    for more in [&[][..], &["--repeat", "3", "--interval", "10ms"]] {
        let args = ["query", "--output", "json"].into_iter().chain(more.iter().copied());
        let output = lab.command([probe.to_str().expect("UTF-8")].into_iter().chain(args)).output();
        schema::assert_valid(&read(&output.expect("it starts")));
    }
}
