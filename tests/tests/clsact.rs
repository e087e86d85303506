//! Before Linux 6.6 filters on a clsact qdisc take tcx's place, and they outlive their process. Whatever is killed, in
//! the end nothing is left, and what is not ours stays.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use end_to_end::{hostdns_probe, is_root_or_skips, lab::Lab, stdout};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

const PATIENCE: Duration = Duration::from_secs(15);

/// Qdiscs of the lab's node, and the filters on its devices.
fn list(lab: &Lab) -> String {
    let tc = |words: &[&str]| stdout(&lab.command([&["tc"], words].concat()).output().unwrap());
    let mut all = tc(&["qdisc", "show"]);
    for device in ["lo", "eth0", "cilium_host"] {
        for side in ["ingress", "egress"] {
            all += &tc(&["filter", "show", "dev", device, side]);
        }
    }
    all
}

fn check(lab: &Lab) -> Command {
    let probe = hostdns_probe();
    let mut command = lab.command([probe.as_os_str(), "check".as_ref()]);
    command.env("HOSTDNS_PROBE_FORCE_CLSACT", "1").stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A check whose filters are on, and the pid of the process that traces.
fn started(lab: &Lab) -> (Child, u32) {
    let mut child = check(lab).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !list(lab).contains("hostdns_egress") {
        assert!(Instant::now() < deadline, "no filter appears: {}", list(lab));
        assert!(child.try_wait().unwrap().is_none(), "the check ended before its filters were seen");
    }
    let mut tracing = child.id();
    let children = |pid: u32| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    while let Some(next) = children(tracing).split_whitespace().next().and_then(|pid| pid.parse().ok()) {
        tracing = next;
    }
    (child, tracing)
}

fn kill(pid: u32) {
    signal::kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
}

fn netns(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}

/// Guardians in the namespace that a process of ours is in: those of other runs are elsewhere.
fn guardians(beside: u32) -> Vec<u32> {
    let here = netns(beside).unwrap();
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "hostdns-guard\n")
            && netns(pid).as_ref() == Some(&here)
    })
    .collect()
}

fn wait_for(lab: &Lab, expected: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut now = list(lab);
    while now != expected && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
        now = list(lab);
    }
    assert_eq!(now, expected);
}

#[test]
fn the_guardian_cleans_up_after_a_killed_check() {
    if !is_root_or_skips("the_guardian_cleans_up_after_a_killed_check") {
        return;
    }
    let lab = Lab::up("upstream-slow", "clsact-guardian");
    // A qdisc that somebody else made stays.
    assert!(lab.command(["tc", "qdisc", "add", "dev", "lo", "clsact"]).status().unwrap().success());
    let before = list(&lab);
    let (mut child, tracing) = started(&lab);
    kill(tracing);
    child.wait().unwrap();
    wait_for(&lab, &before);
    assert!(before.contains("clsact"), "{before}");
}

#[test]
fn the_next_start_cleans_up_after_a_killed_guardian() {
    if !is_root_or_skips("the_next_start_cleans_up_after_a_killed_guardian") {
        return;
    }
    let lab = Lab::up("upstream-slow", "clsact-both");
    assert!(lab.command(["tc", "qdisc", "add", "dev", "lo", "clsact"]).status().unwrap().success());
    let before = list(&lab);
    let (mut child, tracing) = started(&lab);
    let guardians = guardians(tracing);
    assert_eq!(guardians.len(), 1, "one guardian for one check");
    guardians.into_iter().for_each(kill);
    kill(tracing);
    child.wait().unwrap();
    thread::sleep(Duration::from_millis(300));
    let left = list(&lab);
    assert!(left.contains("hostdns_ingress") && left != before, "both were killed, so filters are left: {left}");
    check(&lab).status().unwrap();
    wait_for(&lab, &before);
}
