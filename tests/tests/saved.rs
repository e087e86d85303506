//! What can be done with a report, and before there is one: redacted for strangers, and what would be after a change.

use end_to_end::{hostdns_probe, is_root_or_skips, lab::Lab, run, schema, stderr, stdout};
use serde_json::Value;

fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

/// Every name and address of the node that the facts have and that are not the same everywhere.
fn secrets(report: &Value) -> Vec<String> {
    let facts = &report["facts"];
    let list = |fact: &Value| fact["known"].as_array().cloned().unwrap_or_default();
    let mut secrets = vec![report["node"]["name"].as_str().expect("a name").to_owned()];
    for pod in list(&facts["pods"]) {
        secrets.extend(pod["name"].as_str().map(str::to_owned));
        secrets.extend(pod["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
    }
    for held in list(&facts["network"]["addresses"]) {
        secrets.extend(held["address"].as_str().map(str::to_owned));
    }
    for link in list(&facts["network"]["links"]) {
        secrets.extend(link["mac"].as_str().map(str::to_owned));
    }
    let everywhere = ["127.0.0.1", "::1", "169.254.116.108", "00:00:00:00:00:00", "lxc_health", "health"];
    secrets.retain(|secret| !everywhere.contains(&secret.as_str()));
    secrets
}

#[test]
fn a_redacted_report_names_nobody_in_any_form() {
    if !is_root_or_skips("a_redacted_report_names_nobody_in_any_form") {
        return;
    }
    let lab = Lab::up("issue-36761-leak", &unique("redacted"));
    let (report, _output) = lab.check(&[]);
    let secrets = secrets(&report);
    assert!(secrets.len() > 8, "{secrets:?}");
    let (redacted_at_once, output) = lab.check(&["--redact"]);
    assert_eq!(output.status.code(), Some(1));

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("report.json");
    std::fs::write(&file, report.to_string()).expect("a file");
    let file = file.to_str().expect("UTF-8");
    let mut forms = vec![("check".to_owned(), redacted_at_once.to_string())];
    for form in ["text", "json", "junit", "markdown", "oneline"] {
        let output = run(["report", file, "--redact", "-v", "--output", form]);
        assert!(output.status.success(), "{form}: {}", stderr(&output));
        forms.push((form.to_owned(), stdout(&output)));
    }
    for (form, text) in &forms {
        assert!(text.contains("169.254.116.108"), "{form} says nothing of the address under test");
        for secret in &secrets {
            // `fe80::1` is within `fe80::12`: an address is followed by something else.
            let told = text.match_indices(secret.as_str()).any(|(at, _)| {
                let next = text[at + secret.len()..].chars().next();
                !next.is_some_and(|c| c.is_ascii_hexdigit() || c == ':')
            });
            assert!(!told, "{form} tells {secret}:\n{text}");
        }
    }
}

#[test]
fn what_if_sends_nothing_and_knows_what_the_lab_shows() {
    if !is_root_or_skips("what_if_sends_nothing_and_knows_what_the_lab_shows") {
        return;
    }
    let name = unique("what-if");
    let lab = Lab::up("issue-36761-leak", &name);
    let probe = hostdns_probe();
    let check = |changes: &[&str]| {
        let mut args = vec![probe.to_str().expect("UTF-8"), "check", "--output", "json"];
        args.extend(changes.iter().flat_map(|change| ["--what-if", change]));
        let output = lab.command(args).output().expect("it starts");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(&output)));
        schema::assert_valid(&json);
        assert_eq!(json["now"]["cause"], "HDP201", "{json}");
        (output.status.code(), json["then"]["ended"].clone())
    };
    // Each is what another scenario of the lab measures.
    for (changes, exit, ended) in [
        (&["cilium-version=1.19.0-pre.0"][..], 1, "leaked"),
        (&["cilium-version=1.19.0-pre.0", "devices=2"], 0, "answered"),
        (&["devices=2"], 1, "dropped"),
        (&["endpoint-routes=true"], 1, "dropped"),
        (&["lo-scope=global"], 0, "answered"),
        (&["local-max-addr-scope=254"], 0, "answered"),
        (&["host-routing=legacy"], 0, "answered"),
        (&["masquerade=iptables"], 0, "answered"),
        (&["cilium-version=1.16.4", "routing-mode=tunnel"], 0, "answered"),
        (&["cilium-version=1.16.5", "routing-mode=tunnel"], 1, "leaked"),
    ] {
        assert_eq!(check(changes), (Some(exit), Value::from(ended)), "{changes:?}");
    }
    assert_eq!(check(&["cilium-version=9.0.0"]), (Some(2), Value::Null));
    let leaks = std::fs::read_to_string(format!("/run/hostdns-probe/labs/{name}/leaks")).expect("a record");
    assert_eq!(leaks, "", "something was sent");
}

/// Cilium's datapath for pods is nothing to a CoreDNS with hostNetwork: only what the kernel itself does with the address.
#[test]
fn what_if_follows_a_coredns_on_the_nodes_network() {
    if !is_root_or_skips("what_if_follows_a_coredns_on_the_nodes_network") {
        return;
    }
    let lab = Lab::up("coredns-on-host-network", &unique("what-if-host"));
    let (report, _output) = lab.check(&[]);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("report.json");
    std::fs::write(&file, report.to_string()).expect("a file");
    let (file, probe) = (file.to_str().expect("UTF-8"), hostdns_probe());
    for (change, ended) in [("devices=2", "answered"), ("lo-scope=absent", "leaked")] {
        let options = ["--output", "json", "--what-if", change];
        let live = lab.command([probe.to_str().expect("UTF-8"), "check"].into_iter().chain(options)).output();
        for output in [live.expect("it starts"), run(["report", file].into_iter().chain(options))] {
            let json: Value =
                serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(&output)));
            schema::assert_valid(&json);
            assert_eq!(json["now"], report["prediction"]);
            assert_eq!((&json["now"]["status"], &json["then"]["ended"]), (&"pass".into(), &ended.into()), "{change}");
        }
    }
    // A pod that the user named decides too, and leaks.
    let pods = lab.netns(Some("app")).id().expect("a namespace");
    let named = format!("netns={},name=app", path_of(&lab, pods.inode));
    let output = lab
        .command([
            probe.to_str().expect("UTF-8"),
            "check",
            "--vantage",
            &named,
            "--output",
            "json",
            "--what-if",
            "devices=2",
        ])
        .output()
        .expect("it starts");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(&output)));
    assert_eq!((&json["now"]["ended"], &json["then"]["ended"]), (&"leaked".into(), &"dropped".into()), "{json:#}");
}

/// The namespace's file as the node's processes see it.
fn path_of(lab: &Lab, inode: u64) -> String {
    let find = format!("for f in /proc/[0-9]*/ns/net; do [ \"$(readlink $f)\" = 'net:[{inode}]' ] && echo $f; done");
    let output = lab.command(["sh", "-c", &find]).output().expect("it starts");
    stdout(&output).lines().next().unwrap_or_else(|| panic!("no process in {inode}: {}", stderr(&output))).to_owned()
}

#[test]
fn a_change_that_is_none_is_wrong_usage() {
    for args in [
        &["check", "--what-if", "color=blue"][..],
        &["report", "x.json", "--what-if", "devices"],
        &["report", "x.json", "--what-if", "host-routing=fast"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}");
        assert!(!stderr(&output).is_empty() && stdout(&output).is_empty());
    }
}
