//! The findings of every scenario: what they tell people to paste is YAML that says what it is for, in every form; and
//! no code is without a scenario or a fixture.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use end_to_end::{is_root_or_skips, lab::Lab};
use hostdns_probe::{checks::code::Code, lab::scenarios};
use saphyr::{LoadableYamlNode as _, Yaml};
use serde_json::Value;

/// Every patch and every other form of one, with the code of its finding.
fn patches(report: &Value) -> Vec<(String, String)> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut patches = Vec::new();
    for finding in list(&report["findings"]) {
        let code = finding["code"].as_str().expect("a code").to_owned();
        for remedy in list(&finding["remedies"]) {
            let forms = list(&remedy["variants"]);
            let texts = std::iter::once(&remedy).chain(&forms).filter_map(|form| form["patch"].as_str());
            patches.extend(texts.map(|text| (code.clone(), text.to_owned())));
        }
    }
    patches
}

/// Where this goes: `Talos`, `Talos v1alpha1/LinkConfig`, `v1/ConfigMap`, `Helm`.
fn form(document: &Yaml<'_>) -> Result<String, String> {
    let text = |key: &str| document.as_mapping_get(key).and_then(Yaml::as_str);
    let has = |key: &str| document.as_mapping_get(key).is_some();
    match (text("apiVersion"), text("kind")) {
        (Some("v1alpha1"), Some(kind)) => Ok(format!("Talos {kind}")),
        (Some("v1"), Some("ConfigMap")) => {
            let data = document.as_mapping_get("data").and_then(Yaml::as_mapping).ok_or("a ConfigMap without data")?;
            let are_texts = data.iter().all(|(key, value)| key.as_str().is_some() && value.as_str().is_some());
            if are_texts && !data.is_empty() { Ok("ConfigMap".into()) } else { Err("a ConfigMap holds texts".into()) }
        }
        (Some(version), Some(kind)) => {
            let named = document.as_mapping_get("metadata").and_then(|meta| meta.as_mapping_get("name"));
            named.map(|_| format!("{version}/{kind}")).ok_or_else(|| format!("a {kind} without a name"))
        }
        (None, None) if has("machine") || has("cluster") => Ok("Talos".into()),
        (None, None) if has("bpf") || has("extraConfig") => Ok("Helm".into()),
        _ => Err("nobody could tell where this goes".into()),
    }
}

/// The report of every scenario, by its name; each is measured once.
static REPORTS: LazyLock<BTreeMap<&str, Value>> = LazyLock::new(|| {
    let (scenarios, next, all) = (scenarios::all(), AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let name = format!("remedies-{}-{}", std::process::id(), scenario.name);
                    let args: Vec<&str> = scenario.check_args.iter().map(String::as_str).collect();
                    let (report, _output) = Lab::up(scenario.name, &name).check(&args);
                    all.lock().expect("no worker panics while it holds this").insert(scenario.name, report);
                }
            });
        }
    });
    all.into_inner().expect("no worker panicked")
});

#[test]
fn every_patch_of_every_scenario_is_yaml_that_says_where_it_goes() {
    if !is_root_or_skips("every_patch_of_every_scenario_is_yaml_that_says_where_it_goes") {
        return;
    }
    let mut forms = BTreeSet::new();
    let mut wrong = Vec::new();
    for (scenario, code, patch) in REPORTS
        .iter()
        .flat_map(|(name, report)| patches(report).into_iter().map(move |(code, text)| (name, code, text)))
    {
        match Yaml::load_from_str(&patch) {
            Err(error) => wrong.push(format!("{scenario} {code}: {error}:\n{patch}")),
            Ok(documents) => {
                for document in &documents {
                    match form(document) {
                        Ok(form) => _ = forms.insert(form),
                        Err(error) => wrong.push(format!("{scenario} {code}: {error}:\n{patch}")),
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} patches are wrong:\n{}", wrong.len(), wrong.join("\n"));
    for form in ["Talos", "Talos LinkConfig", "Talos ResolverConfig", "Helm", "ConfigMap"] {
        assert!(forms.contains(form), "no scenario has a patch for {form}: {forms:?}");
    }
}

/// Codes that no scenario shows as it is, and the file whose tests show them.
const ELSEWHERE: &[(&str, &str)] = &[
    ("HDP001", "tests/tests/degraded.rs"),
    ("HDP002", "probe-user/src/checks/probe/no_btf.rs"),
    ("HDP003", "tests/tests/degraded.rs"),
    ("HDP004", "tests/tests/degraded.rs"),
    ("HDP005", "probe-user/src/checks/probe/events_lost.rs"),
    ("HDP006", "tests/tests/lies.rs"),
    ("HDP007", "tests/tests/lies.rs"),
    ("HDP008", "tests/tests/degraded.rs"),
    ("HDP009", "probe-user/src/checks/probe/out_of_time.rs"),
    ("HDP010", "probe-user/src/checks/probe/talos_resources_differ.rs"),
    ("HDP011", "tests/tests/lies.rs"),
    ("HDP106", "probe-user/src/checks/node/local_route_missing.rs"),
    ("HDP203", "probe-user/src/checks/cilium/settings_not_applied.rs"),
    ("HDP205", "probe-user/src/checks/cilium/workaround_redundant.rs"),
    ("HDP206", "probe-user/src/checks/cilium/workaround_ignored.rs"),
    ("HDP209", "probe-user/src/checks/cilium/snat_entry.rs"),
    ("HDP210", "probe-user/src/checks/cilium/scope_and_map_disagree.rs"),
    ("HDP211", "probe-user/src/checks/cilium/local_redirect_policy.rs"),
    ("HDP212", "probe-user/src/checks/cilium/datapath_not_observable.rs"),
    ("HDP214", "probe-user/src/checks/cilium/agent_unhealthy.rs"),
    ("HDP303", "tests/tests/lies.rs"),
    ("HDP305", "probe-user/src/checks/coredns/no_vantage.rs"),
    ("HDP406", "probe-user/src/checks/measured/unanswered.rs"),
    ("HDP411", "probe-user/src/checks/measured/answers_differ.rs"),
    ("HDP412", "probe-user/src/checks/measured/truncated_without_tcp.rs"),
    ("HDP414", "probe-user/src/checks/measured/query_lost.rs"),
    ("HDP415", "probe-user/src/checks/measured/malformed_answer.rs"),
];

#[test]
fn every_code_is_shown_by_a_scenario_or_a_fixture() {
    if !is_root_or_skips("every_code_is_shown_by_a_scenario_or_a_fixture") {
        return;
    }
    let of = |report: &Value| report["findings"].as_array().cloned().unwrap_or_default();
    let shown: BTreeSet<String> = (REPORTS.values())
        .flat_map(|report| of(report).into_iter().filter_map(|finding| finding["code"].as_str().map(str::to_owned)))
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut wrong = Vec::new();
    for code in Code::ALL.iter().map(|code| code.id()) {
        let elsewhere = ELSEWHERE.iter().find(|(other, _file)| *other == code);
        match (shown.contains(&code), elsewhere) {
            // A loaded machine may show one more: lost events, a check out of time.
            (true, _) => {}
            (false, None) => wrong.push(format!("{code}: nothing shows it")),
            (false, Some((_code, file))) => {
                let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
                let tests = text.find("#[cfg(test)]").map_or(text.as_str(), |at| &text[at..]);
                if !tests.contains(&format!("\"{code}\"")) {
                    wrong.push(format!("{code}: the tests of {file} do not name it"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
