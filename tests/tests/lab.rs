//! The lab from outside, as its user meets it: the command, the kernel's lists before and after, and packets. Nothing
//! here uses the probe.

#[path = "lab/command.rs"]
mod command;
#[path = "lab/coredns.rs"]
mod coredns;
#[path = "lab/ending.rs"]
mod ending;
#[path = "lab/truth.rs"]
mod truth;

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use command::{Lab, probe, unique};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

/// What a lab could leave behind: cgroups, records, processes. Only those of the labs whose names begin with `prefix`.
fn traces_of(prefix: &str) -> BTreeSet<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is there");
    let root = mounts
        .lines()
        .find_map(|line| line.split_once(" - cgroup2 ").and_then(|(left, _)| left.split(' ').nth(4)))
        .expect("a cgroup v2 hierarchy is mounted");
    let mut found = BTreeSet::new();
    for folder in [format!("{root}/hostdns-probe-lab"), "/run/hostdns-probe/labs".into()] {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                found.insert(entry.path().display().to_string());
            }
        }
    }
    found
}

fn links_of_this_namespace() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/net/dev").expect("/proc is there");
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_lab_stands_and_is_gone() {
    let links = links_of_this_namespace();
    let lab = Lab::up("gone", &["healthy-known-address"]);
    let name = lab.name.clone();
    assert_eq!(lab.ask(Some("app"), "169.254.116.108:53", "udp"), "answered 0");
    assert_eq!(lab.ask(Some("lxc_health"), "169.254.116.108:53", "tcp"), "answered 0");
    assert_eq!(lab.ask(None, "127.0.0.53:53", "udp"), "answered 0");
    // CoreDNS forwards: the pods' own resolver.
    assert_eq!(lab.ask(Some("app"), "10.244.1.131:53", "udp"), "answered 0");
    assert_eq!(links_of_this_namespace(), links, "no link outside of the lab");
    assert!(!traces_of(&name).is_empty());
    drop(lab);
    assert_eq!(traces_of(&name), BTreeSet::new());
    assert_eq!(links_of_this_namespace(), links);
}

#[test]
fn inside_is_a_node_of_its_own() {
    let lab = Lab::up("inside", &["healthy-legacy"]);
    let seen = lab.exec(None, &["sh", "-c", "cat /proc/[0-9]*/comm; ls /run; ls -id /sys/fs/cgroup; uname -n"]);
    for expected in ["machined", "coredns", "cilium-health-r", "app", "cilium", "1 /sys/fs/cgroup", lab.name.as_str()] {
        assert!(seen.contains(expected), "{expected} is not in {seen}");
    }
    assert!(!seen.contains("hostdns-probe"), "the lab gives itself away: {seen}");
    let pod = lab.exec(Some("coredns"), &["sh", "-c", "uname -n; cat /etc/resolv.conf; cat /proc/self/cgroup"]);
    assert!(pod.contains("coredns-7c9d-x2k4p") && pod.contains("nameserver 169.254.116.108"), "{pod}");
    assert!(pod.contains("/kubepods/burstable/pod"), "{pod}");
    let answer = lab.run(None, &["sh", "-c", "exit 7"]);
    assert_eq!(answer.status.code(), Some(7), "the exit code is passed through");
}

#[test]
fn labs_stand_side_by_side_with_the_same_addresses() {
    let well = Lab::up("side-a", &["healthy-known-address"]);
    let ill = Lab::up("side-b", &["issue-36761-leak"]);
    assert_eq!(well.ask(Some("app"), "169.254.116.108:53", "udp"), "answered 0");
    assert_ne!(ill.ask(Some("app"), "169.254.116.108:53", "udp"), "answered 0");
    assert!(well.leaks().is_empty());
    assert_eq!(ill.leaks(), ["17 192.168.77.2 169.254.116.108"]);
}

#[test]
fn the_scope_can_be_changed_live() {
    let lab = Lab::up("live", &["issue-36761-leak"]);
    assert_ne!(lab.ask(Some("app"), "169.254.116.108:53", "udp"), "answered 0");
    lab.exec(
        None,
        &["sh", "-c", "ip a del 169.254.116.108/32 dev lo; ip a add 169.254.116.108/32 dev lo scope global"],
    );
    wait_until("the address is known", || lab.ask(Some("app"), "169.254.116.108:53", "udp") == "answered 0");
}

#[test]
fn answers_leave_with_ttl_2() {
    // With one hop less they do not arrive: the way back costs exactly one.
    let lab = Lab::up("ttl", &["reply-ttl-expired"]);
    assert_ne!(lab.ask(Some("app"), "169.254.116.108:53", "udp"), "answered 0");
    assert_eq!(lab.maps("169.254.116.108")["metrics"]["196"], json!(1));
}

#[test]
fn a_killed_run_is_cleared_away() {
    let mut run = Command::new(probe())
        .args(["lab", "check", "healthy-known-address"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    let prefix = format!("healthy-known-address-{}", run.id());
    wait_until("the lab has begun", || {
        !traces_of(&prefix).is_empty() || run.try_wait().is_ok_and(|status| status.is_some())
    });
    let _ = run.kill(); // SIGKILL
    let _ = run.wait();
    wait_until("the lab is gone with its command", || traces_of(&prefix).is_empty());
}

#[test]
fn a_killed_supervisor_takes_the_lab_along() {
    let lab = Lab::up("killed", &["healthy-legacy"]);
    let record = fs::read_to_string(format!("/run/hostdns-probe/labs/{}/lab.json", lab.name)).expect("a record");
    let record: Value = serde_json::from_str(&record).expect("json");
    let pid = |of: &str| record[of]["pid"].as_i64().expect("a pid");
    let supervisor = i32::try_from(pid("supervisor")).expect("a pid");
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).expect("the supervisor is there");
    let node = format!("/proc/{}/comm", pid("node"));
    wait_until("the node died with its supervisor", || {
        fs::read_to_string(&node).map_or(true, |comm| comm != "machined\n")
    });
    assert!(!traces_of(&lab.name).is_empty(), "a killed supervisor cannot clear up");
    let down = Command::new(probe()).args(["lab", "down", &lab.name]).output().expect("the command runs");
    assert!(down.status.success(), "{down:?}");
    assert_eq!(traces_of(&lab.name), BTreeSet::new());
}

#[test]
fn wrong_use_says_what_to_do() {
    let said = |args: &[&str]| {
        let output = Command::new(probe()).args(args).output().expect("the command runs");
        assert_eq!(output.status.code(), Some(64), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(&["lab", "up", "no-such-scenario"]).contains("lab list"));
    assert!(said(&["lab", "exec", "--lab", &unique("none"), "--", "true"]).contains("lab up"));
    assert!(said(&["lab", "up", "healthy-legacy", "--name", "../x"]).contains("not a name"));
    // Before anything is brought up: the scenario is not announced.
    let bogus = said(&["lab", "check", "healthy-legacy", "--bogus"]);
    assert!(bogus.contains("--bogus") && !bogus.contains("Legacy host routing"), "{bogus}");
    assert!(said(&["lab", "check", "healthy-legacy", "--budget", "soon"]).contains("--budget"));
    assert!(said(&["lab", "matrix", "healthy-legacy", "--budget", "soon"]).contains("--budget"));
}
