//! `kill -9` in the middle of a check leaves nothing of the probe. Alone in its file: it counts what the whole machine
//! has loaded, so nothing may run beside it.

use std::{
    collections::BTreeSet,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use end_to_end::{hostdns_probe, is_root_or_skips, lab::Lab, stdout};

/// Ids of all programs, maps and links of the machine, and what the lab's node shows of its devices.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
    devices: String,
}

fn list(lab: &Lab) -> Left {
    let ids = |all: &mut dyn Iterator<Item = u32>| all.collect();
    let devices = lab.command(["ip", "-details", "address"]).output().expect("ip starts");
    let qdiscs = lab.command(["tc", "qdisc", "show"]).output().expect("tc starts");
    let filters = lab.command(["tc", "filter", "show", "dev", "eth0", "ingress"]).output().expect("tc starts");
    Left {
        programs: ids(&mut aya::programs::loaded_programs().flatten().map(|program| program.id())),
        maps: ids(&mut aya::maps::loaded_maps().flatten().map(|map| map.id())),
        links: ids(&mut aya::programs::loaded_links().flatten().map(|link| link.id())),
        devices: stdout(&devices) + &stdout(&qdiscs) + &stdout(&filters),
    }
}

#[test]
fn kill_9_leaves_nothing() {
    if !is_root_or_skips("kill_9_leaves_nothing") {
        return;
    }
    let lab = Lab::up("upstream-slow", "kill");
    for pause_ms in [0, 40, 150, 400] {
        let before = list(&lab);
        let probe = hostdns_probe();
        let mut check = lab.spawn([probe.as_os_str(), "check".as_ref()]);
        // It is at work once the machine has programs it had not; then somewhere in the middle of it.
        let deadline = Instant::now() + Duration::from_secs(10);
        while list(&lab).programs == before.programs {
            assert!(Instant::now() < deadline, "the check loads nothing");
            assert!(check.try_wait().expect("it can be waited for").is_none(), "the check ended before it was killed");
        }
        thread::sleep(Duration::from_millis(pause_ms));
        kill_check_in(&check);
        check.wait().expect("it was a child");
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut after = list(&lab);
        while after != before && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50)); // the kernel detaches after the process is gone
            after = list(&lab);
        }
        assert_eq!(before, after, "killed {pause_ms} ms after it had loaded");
    }
}

/// `lab exec` waits for the check it started: that one is killed, by its pid, and its starter ends with it.
fn kill_check_in(exec: &std::process::Child) {
    let children = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
    };
    let mut last = exec.id();
    while let Some(&child) = children(last).first() {
        last = child;
    }
    let killed = Command::new("kill").args(["-9", &last.to_string()]).status().expect("kill starts");
    assert!(killed.success());
}
