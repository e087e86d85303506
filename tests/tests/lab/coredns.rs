//! `--coredns PATH`, with a program that speaks to the lab as a CoreDNS does.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    command::{Lab, probe, unique},
    traces_of,
};

/// The stand-in under CoreDNS' name, in a folder with `how` beside it, which makes it misbehave.
fn coredns(how: Option<&str>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let program = folder.path().join("coredns");
    fs::copy(env!("CARGO_BIN_EXE_coredns-stand-in"), &program).expect("the stand-in is built");
    if let Some(how) = how {
        fs::write(folder.path().join(how), "").expect("a file");
    }
    (folder, program)
}

#[test]
fn a_program_of_the_users_serves_in_its_pod() {
    let (_folder, program) = coredns(None);
    let lab = Lab::up("coredns", &["healthy-known-address", "--coredns", program.to_str().expect("UTF-8")]);
    let serves = lab.exec(None, &["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]);
    assert!(serves.contains(&format!("{} -conf /etc/coredns/Corefile", program.display())), "{serves}");
    // The pods' own resolver, over the user's program, over host DNS.
    assert_eq!(lab.ask(Some("app"), "10.244.1.131:53", "udp"), "answered 0");
    let report = lab.run(None, &["hostdns-probe", "check", "--output", "json"]);
    let report: Value = serde_json::from_slice(&report.stdout).expect("a report");
    end_to_end::schema::assert_valid(&report);
    assert_eq!(report["verdict"]["status"], "pass", "{}", report["verdict"]);
    assert_eq!(report["queries"][0]["vantage_kind"], "coredns", "its pod is found and asked from");
}

/// What `lab up` says of a program that does not serve, and how long it takes to say it.
fn refusal(how: &str) -> (String, Duration) {
    let (_folder, program) = coredns(Some(how));
    let name = unique(how);
    let began = Instant::now();
    let up = Command::new(probe())
        .args(["lab", "up", "healthy-known-address", "--name", &name, "--coredns"])
        .arg(&program)
        .output()
        .expect("the command runs");
    assert_eq!(up.status.code(), Some(2), "{up:?}");
    assert!(traces_of(&name).is_empty(), "{:?}", traces_of(&name));
    (String::from_utf8_lossy(&up.stderr).into_owned(), began.elapsed())
}

#[test]
fn a_program_that_never_serves_is_not_waited_for() {
    for (how, words) in [("silent", "it printed nothing"), ("talkative", "still waiting | [INFO] plugin/ready")] {
        let (said, took) = refusal(how);
        assert!(said.contains("within 10 s") && said.contains(words), "{how}: {said}");
        assert!(said.contains("`.:`") && said.contains("/coredns"), "{how}: {said}");
        assert!((10..30).contains(&took.as_secs()), "{how}: {took:?}");
    }
}

#[test]
fn a_program_that_ends_is_told_with_its_last_words() {
    let (said, took) = refusal("dies");
    assert!(said.contains("before it ended (exit status: 3)") && said.contains("not to my taste"), "{said}");
    assert!(took < Duration::from_secs(8), "{took:?}");
}
