//! Wrong use gets an answer that says what to do, and 64.

use end_to_end::{run, stderr, stdout};

#[test]
fn usage_errors_exit_with_64() {
    for args in [
        &["check", "--no-such-flag"][..],
        &["check", "--address", "not-an-address"],
        &["check", "--vantage", "nonsense"],
        &["no-such-command"],
        &["explain", "HDP999"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty(), "{args:?} writes its error to stdout");
        assert!(!stderr(&output).is_empty(), "{args:?} says nothing");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [&["--help"][..], &["--version"], &["check", "--help"], &["lab", "--help"], &["explain"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!stdout(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn every_subcommands_help_has_examples() {
    for command in ["check", "trace", "query", "lab", "report", "explain"] {
        let output = run([command, "--help"]);
        assert!(stdout(&output).contains("Examples:"), "{command} --help shows no examples");
    }
}
