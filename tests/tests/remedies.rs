//! What the report of every scenario tells people to paste: YAML that says what it is for, in every form.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use end_to_end::{is_root_or_skips, lab::Lab};
use hostdns_probe::lab::scenarios;
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

#[test]
fn every_patch_of_every_scenario_is_yaml_that_says_where_it_goes() {
    if !is_root_or_skips("every_patch_of_every_scenario_is_yaml_that_says_where_it_goes") {
        return;
    }
    let (scenarios, next, all) = (scenarios::all(), AtomicUsize::new(0), Mutex::new(BTreeSet::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let name = format!("remedies-{}-{}", std::process::id(), scenario.name);
                    let args: Vec<&str> = scenario.check_args.iter().map(String::as_str).collect();
                    let (report, _output) = Lab::up(scenario.name, &name).check(&args);
                    let found = patches(&report).into_iter().map(|(code, patch)| (scenario.name, code, patch));
                    all.lock().expect("no worker panics while it holds this").extend(found);
                }
            });
        }
    });
    let mut forms = BTreeSet::new();
    let mut wrong = Vec::new();
    for (scenario, code, patch) in all.into_inner().expect("no worker panicked") {
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
