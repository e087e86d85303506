//! `kill -9` in the middle of a check leaves nothing of the probe.
//!
//! What is asked after is what this very check had in the kernel, by its ids: stopped first, the check cannot load more
//! between the look and the kill; and the kernel gives out no id twice, so others may load programs meanwhile.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use end_to_end::{bpf::Objects, hostdns_probe, innermost_child, is_root_or_skips, lab::Lab, stdout};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The node's devices, addresses, queueing disciplines, filters, routes and rules.
fn node(lab: &Lab) -> String {
    let show = "ip -details address; tc qdisc show; for way in ingress egress; do tc filter show dev eth0 $way; done; \
                ip route show table all; ip rule";
    let output = lab.command(["sh", "-c", show]).output().expect("sh starts");
    assert!(output.status.success(), "{output:?}");
    // A new address is checked for duplicates for a second: that is not the probe's doing.
    stdout(&output).replace(" tentative", "")
}

#[test]
fn kill_9_leaves_nothing() {
    if !is_root_or_skips("kill_9_leaves_nothing") {
        return;
    }
    let lab = Lab::up("upstream-slow", "kill");
    // IPv6 routes come when the links have settled.
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut before = node(&lab);
    loop {
        thread::sleep(Duration::from_secs(2));
        let now = node(&lab);
        if now == before || Instant::now() > deadline {
            break;
        }
        before = now;
    }
    let mut with_links = false;
    for pause_ms in [0, 40, 150, 400] {
        let probe = hostdns_probe();
        let mut exec = lab.spawn([probe.as_os_str(), "check".as_ref()]);
        let deadline = Instant::now() + Duration::from_secs(10);
        let pid = loop {
            assert!(exec.try_wait().expect("it can be waited for").is_none(), "the check ended before it was killed");
            assert!(Instant::now() < deadline, "the check loads nothing");
            let pid = innermost_child(&exec);
            if !Objects::of(pid).programs.is_empty() {
                break pid;
            }
        };
        thread::sleep(Duration::from_millis(pause_ms));
        let check = Pid::from_raw(i32::try_from(pid).expect("a pid"));
        kill(check, Signal::SIGSTOP).expect("the check is still there");
        wait_until_stopped(pid);
        let held = Objects::of(pid);
        kill(check, Signal::SIGKILL).expect("the check is still there");
        exec.wait().expect("it was a child");
        assert!(!held.programs.is_empty(), "killed {pause_ms} ms after it had loaded, it held nothing any more");
        with_links |= !held.links.is_empty();

        // The kernel detaches after the process is gone.
        let deadline = Instant::now() + Duration::from_secs(10);
        while held.left() != Objects::default() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(held.left(), Objects::default(), "killed {pause_ms} ms after it had loaded");
        let after = node(&lab);
        assert!(after == before, "killed {pause_ms} ms after it had loaded, the node was\n{before}\nand is\n{after}");
    }
    assert!(with_links, "no check was attached when it was killed: the pauses are too short");
}

/// Stopping takes effect thread by thread.
fn wait_until_stopped(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let runs = || {
        fs::read_dir(format!("/proc/{pid}/task")).expect("the check is there").flatten().any(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('T'))
        })
    };
    while runs() {
        assert!(Instant::now() < deadline, "the check does not stop");
        thread::sleep(Duration::from_millis(1));
    }
}
