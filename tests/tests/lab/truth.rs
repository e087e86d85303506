//! Each row of what was measured on real Cilium, run as a lab: the same must come out.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::command::Lab;

const HOST_DNS: &str = "169.254.116.108:53";
const NODE: &str = "192.168.77.2";
/// The last of the lab's pods.
const POD: &str = "10.244.1.133";

fn rows() -> Vec<Value> {
    let text = include_str!("../../truth/cases.json");
    serde_json::from_str::<Vec<Value>>(text).expect("the rows are JSON")
}

/// The row's node, for `lab up --spec`.
fn node(row: &Value) -> Value {
    let options = row["options"].as_str().expect("options");
    let mut cilium = json!({
        "version": row["cilium"],
        "routing": if row["routing"] == "native" { "Native" } else { "Tunnel" },
        "host_routing": row["host_routing"],
        "masquerade": "BPF",
        "ip_masq_agent": false,
        "endpoint_routes": false,
        "address_scope_max": 252,
        "policy_denies": false,
    });
    match options {
        "" => {}
        "enable-bpf-masquerade=false" => cilium["masquerade"] = json!("iptables"),
        "local-max-addr-scope=254" => cilium["address_scope_max"] = json!(254),
        "enable-endpoint-routes=true" => cilium["endpoint_routes"] = json!(true),
        option if option.starts_with("enable-ip-masq-agent=true") => cilium["ip_masq_agent"] = json!(true),
        other => panic!("a row has an option that the lab cannot play: {other}"),
    }
    let scope = match row["scope"].as_str() {
        None => Value::Null,
        Some("global") => json!(0),
        Some("link") => json!(253),
        Some("host") => json!(254),
        Some(other) => panic!("a row has the scope {other}"),
    };
    json!({
        "cilium": cilium,
        "uplinks": if row["external_devices"] == 2 { "two" } else { "one" },
        "host_dns": [{ "scope": scope }],
        "also_on_node_address": true,
    })
}

/// What differs from the row.
fn differences(row: &Value, number: usize) -> Vec<String> {
    let spec = std::env::temp_dir().join(format!("hostdns-probe-truth-{}-{number}.json", std::process::id()));
    std::fs::write(&spec, node(row).to_string()).expect("a temporary file");
    let lab = Lab::up(&format!("truth-{number}"), &["--spec", &spec.to_string_lossy()]);
    let _ = std::fs::remove_file(&spec);

    let answered = |server: &str, transport: &str| json!(lab.ask(Some("app"), server, transport) == "answered 0");
    let (udp, tcp) = std::thread::scope(|scope| {
        let tcp = scope.spawn(|| answered(HOST_DNS, "tcp"));
        (answered(HOST_DNS, "udp"), tcp.join().expect("the question is asked"))
    });
    let maps = lab.maps("169.254.116.108");
    let leaked_from: Vec<String> =
        lab.leaks().iter().filter_map(|leak| leak.split(' ').nth(1).map(str::to_owned)).collect();
    let dropped = maps["metrics"]["169"].as_u64().unwrap_or(0);
    let ended = match (leaked_from.is_empty(), dropped) {
        (false, _) => "leaked",
        (true, 0) => "answered",
        (true, _) => "dropped",
    };
    let leaked_as = leaked_from.first().map(|source| match source.as_str() {
        NODE => "node IP",
        POD => "pod IP",
        _ => "somebody",
    });
    let compiled = lab.exec(None, &["sh", "-c", "cat /run/cilium/state/[0-9]*/ep_config.h"]);
    let measured = [
        ("udp", udp),
        ("tcp", tcp),
        ("node_ip_control", answered(&format!("{NODE}:53"), "udp")),
        ("cilium_lxc", maps["lxc"].clone()),
        ("single_device_shortcut", json!(compiled.contains("define ENABLE_SKIP_FIB"))),
        ("ended", json!(ended)),
        ("leaked_as", json!(leaked_as)),
    ];
    measured
        .into_iter()
        .filter(|(key, value)| &row[*key] != value)
        .map(|(key, value)| format!("{key} is {value} and should be {}: row {number}, {row}", row[key]))
        .collect()
}

#[test]
fn every_row_of_the_truth_comes_out_in_the_lab() {
    let rows = rows();
    assert!(rows.len() >= 38, "rows are missing: {}", rows.len());
    let next = AtomicUsize::new(0);
    let mut wrong: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut wrong = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(row) = rows.get(number) else { return wrong };
                        wrong.extend(differences(row, number));
                    }
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a row could be run")).collect()
    });
    wrong.sort();
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}
