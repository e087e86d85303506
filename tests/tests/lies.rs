//! Facts that lie, all the way through `check` in a lab: each is an explained unknown in time, and the verdict never
//! rests on it. It is what the packets show.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

#[path = "lies/agent.rs"]
mod agent;
#[path = "recorded/maps.rs"]
mod maps;
#[path = "lies/node.rs"]
mod node;

use std::{
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use end_to_end::{hostdns_probe, is_root_or_skips, lab::Lab, schema, stderr};
use serde_json::Value;

use agent::LyingAgent;
use node::Inside;

/// Of a whole check. Each reader has three seconds at most and all read at once; the queries of a broken node take less
/// than one. The rest is for a machine that does other things besides.
const LIMIT_MS: u64 = 8_000;

/// A recorded agent: its settings, and maps that say the address is the host's.
fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/recorded/cilium-1.18.1/native-bpf-global-1dev")
}

/// A lab, and what it measures.
struct Node {
    lab: Lab,
    status: &'static str,
    ended: &'static str,
}

fn up(scenario: &str, status: &'static str, ended: &'static str) -> Node {
    // Tests of this file run side by side.
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Node { lab: Lab::up(scenario, &format!("lies-{number}-{}", std::process::id())), status, ended }
}

fn broken_and_healthy() -> [Node; 2] {
    [up("issue-36761-leak", "fail", "leaked"), up("healthy-known-address", "pass", "answered")]
}

impl Node {
    /// The report of a check, whose verdict is what was measured, in time.
    fn check(&self, what: &str, args: &[&str]) -> Value {
        let (report, _output) = self.lab.check(args);
        let verdict = &report["verdict"];
        assert_eq!(
            (&verdict["status"], &verdict["ended"]),
            (&self.status.into(), &self.ended.into()),
            "{what}: {verdict}"
        );
        let took = report["duration_ms"].as_u64().unwrap();
        assert!(took < LIMIT_MS, "{what}: it took {took} ms");
        report
    }
}

fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().filter_map(|finding| finding["code"].as_str()).collect()
}

/// The finding is there and says this.
fn tells(what: &str, report: &Value, code: &str, part: &str) {
    let finding = report["findings"].as_array().unwrap().iter().find(|finding| finding["code"] == code);
    let finding = finding.unwrap_or_else(|| panic!("{what}: no {code} among {:?}", codes(report)));
    assert!(finding.to_string().contains(part), "{what}: {code} does not say {part}: {finding:#}");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn an_agent_that_lies() {
    if !is_root_or_skips("an_agent_that_lies") {
        return;
    }
    for node in broken_and_healthy() {
        for (what, answer, why) in agent::LIES {
            let agent = LyingAgent::start(*answer);
            let report = node.check(what, &["--cilium-socket", path(&agent.socket)]);
            let said = report.pointer("/facts/cilium/version/unavailable").and_then(Value::as_str);
            assert!(said.is_some_and(|said| said.contains(why)), "{what}: {said:?}");
            tells(what, &report, "HDP006", why);
            // What was compiled and the map are other sources. They suffice for an address that Cilium knows; for one that
            // it does not, the release is missing.
            let prediction = &report["prediction"];
            let expected = if node.status == "pass" { "pass" } else { "unknown" };
            assert_eq!(prediction["status"], expected, "{what}: {prediction}");
            let because = prediction["because"].to_string();
            assert_eq!(because.contains("cannot say"), expected == "unknown", "{what}: {because}");
        }
    }
}

/// What it says is whole and in order, and not so: the packets have the last word, and both are shown.
#[test]
fn an_agent_that_says_what_is_not_so() {
    if !is_root_or_skips("an_agent_that_says_what_is_not_so") {
        return;
    }
    let node = up("issue-36761-leak", "fail", "leaked");
    let agent = LyingAgent::start(agent::says_legacy);
    let report = node.check("legacy", &["--cilium-socket", path(&agent.socket)]);
    assert_eq!(report["prediction"]["status"], "pass", "{}", report["prediction"]);
    assert_eq!(report["verdict"]["cause"], "HDP402", "{}", report["verdict"]);
    tells("legacy", &report, "HDP413", "leaked");
}

#[test]
fn maps_that_lie() {
    if !is_root_or_skips("maps_that_lie") {
        return;
    }
    for node in broken_and_healthy() {
        let inside = Inside::of(&node.lab, None);
        inside.repin("cilium_lxc", |info| info.bytes_value += 8);
        inside.repin("cilium_metrics", |info| info.bytes_key += 8);
        let report = node.check("layout", &[]);
        tells("layout", &report, "HDP007", "cilium_lxc: unknown layout: key 20, value 56 bytes");
        tells("layout", &report, "HDP007", "cilium_metrics: unknown layout");
        // Scope and release say what the map would have said.
        assert_eq!(report["prediction"]["ended"], node.ended, "{}", report["prediction"]);
    }
    // A map that calls the address the host's where the running datapath does not.
    let node = up("issue-36761-leak", "fail", "leaked");
    Inside::of(&node.lab, None).repin("cilium_lxc", |_| {});
    let report = node.check("content", &[]);
    assert_eq!(report["prediction"]["status"], "pass", "{}", report["prediction"]);
    tells("content", &report, "HDP413", "leaked");
    // Cilium's other map does not say so.
    tells("content", &report, "HDP011", "but the ipcache has identity 2 for it");
}

/// The agent goes away after its first answer and comes back: a new socket, and its maps pinned anew, empty.
#[test]
fn an_agent_that_restarts_in_between() {
    if !is_root_or_skips("an_agent_that_restarts_in_between") {
        return;
    }
    for node in [
        up("issue-36761-drop", "fail", "dropped"),
        up("issue-36761-leak", "fail", "leaked"),
        up("healthy-known-address", "pass", "answered"),
    ] {
        let inside = Inside::of(&node.lab, None);
        let agent = LyingAgent::restarting(move || {
            for name in ["cilium_lxc", "cilium_metrics", "cilium_ipcache_v2", "cilium_snat_v4_external"] {
                inside.repin_empty(name);
            }
        });
        let report = node.check("restart", &["--cilium-socket", path(&agent.socket)]);
        assert_eq!(report.pointer("/facts/cilium/version/known"), Some(&"1.18.1".into()));
        assert_eq!(agent.restarts(), 1, "it was to go away once");
        // Both interfaces know it, and the settings do.
        let source = report.pointer("/facts/cilium/endpoint_routes/source").and_then(Value::as_str).unwrap();
        assert!(!source.contains("/v1/config"), "{source}");
    }
}

#[test]
fn corefiles_that_lie() {
    if !is_root_or_skips("corefiles_that_lie") {
        return;
    }
    for node in broken_and_healthy() {
        let corefile = Inside::of(&node.lab, Some("coredns")).path("/etc/coredns/Corefile");
        let long = format!(".:53 {{\n{}forward . 169.254.116.108\n}}\n", "    # nothing\n".repeat(1 << 20));
        for (what, text, part) in [
            ("import", &b"import missing/one.conf\n.:53 {\n    import gone\n}\n"[..], "missing/one.conf"),
            ("braces", b".:53 {\n    forward . /etc/resolv.conf {\n        max_concurrent\n", "braces do not match"),
            ("bytes", b"\xff\xfe\x00.:53 {\x00 forward . \xff", ""),
            ("empty", b"", ""),
            ("itself", b"import Corefile\n", "too deep"),
            ("length", long.as_bytes(), ""),
        ] {
            std::fs::write(&corefile, text).unwrap();
            let report = node.check(what, &[]);
            tells(what, &report, "HDP303", part);
        }
        // Whole, and not so: what CoreDNS forwards to is no reason to call a broken way healthy.
        std::fs::write(&corefile, ".:53 {\n    forward . 203.0.113.53\n}\n").unwrap();
        let report = node.check("elsewhere", &[]);
        assert!(codes(&report).contains(&"HDP302"), "{:?}", codes(&report));
    }
}

/// Root without the right to pass over permissions, and sources that belong to somebody else.
#[test]
fn permission_denied() {
    if !is_root_or_skips("permission_denied") {
        return;
    }
    const WITHOUT: &[&str] = &["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"];
    let closed = |at: &Path| {
        chown(at, Some(65_534), Some(65_534)).unwrap();
        std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o700)).unwrap();
    };
    for node in broken_and_healthy() {
        let agent = LyingAgent::start(agent::says_legacy);
        closed(agent.socket.parent().unwrap());
        let settings = tempfile::tempdir().unwrap();
        std::fs::write(settings.path().join("enable-host-legacy-routing"), "true").unwrap();
        closed(settings.path());
        closed(&Inside::of(&node.lab, None).path("/sys/fs/bpf/tc/globals"));
        let probe = hostdns_probe();
        let args = [path(&probe), "check", "--output", "json", "--cilium-socket", path(&agent.socket)];
        let args = WITHOUT.iter().copied().chain(args).chain(["--cilium-config-dir", path(settings.path())]);
        let output = node.lab.command(args).output().unwrap();
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
        schema::assert_valid(&report);
        let verdict = &report["verdict"];
        assert_eq!((&verdict["status"], &verdict["ended"]), (&node.status.into(), &node.ended.into()), "{verdict}");
        tells("socket", &report, "HDP006", "cilium.sock): Permission denied");
        tells("map", &report, "HDP006", "CAP_BPF or CAP_SYS_ADMIN is needed");
        let settings = report.pointer("/facts/cilium/settings").unwrap().to_string();
        assert!(settings.contains("Permission denied"), "{settings}");
        assert_eq!(report["prediction"]["status"], "unknown", "{}", report["prediction"]);
    }
}

/// Without any capability nothing is seen and nothing is claimed, broken or not.
#[test]
fn without_capabilities_nothing_is_claimed() {
    if !is_root_or_skips("without_capabilities_nothing_is_claimed") {
        return;
    }
    for node in broken_and_healthy() {
        // Where whoever has no rights can start it.
        let (directory, probe) = (tempfile::tempdir().unwrap(), hostdns_probe());
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let copy = directory.path().join("hostdns-probe");
        std::fs::copy(probe, &copy).unwrap();
        let nobody = ["setpriv", "--bounding-set", "-all", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
        let check = ["--", path(&copy), "check", "--output", "json", "--timeout", "300ms"];
        let output = node.lab.command(nobody.into_iter().chain(check)).output().unwrap();
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
        schema::assert_valid(&report);
        assert_eq!((output.status.code(), &report["verdict"]["status"]), (Some(2), &"unknown".into()), "{report:#}");
        tells("nobody", &report, "HDP001", "CAP_");
    }
}
