use serde_json::{Value, json};

use super::*;
use crate::{
    checks::testing::{facts, hide},
    diff::{Named, diff},
    predict::{Deciding, what_if::Change},
    report::{examples, redact},
    target::Targets,
};

/// Validators of what the schema says, and of what this release writes besides: nothing that is always written may be
/// missing.
fn validators(entry: Entry) -> [jsonschema::Validator; 2] {
    let validator = |schema: Schema| {
        jsonschema::options().should_validate_formats(true).build(schema.as_value()).expect("a schema is one")
    };
    [validator(published(entry)), validator(entry.1(SchemaSettings::draft2020_12().for_serialize()))]
}

/// What is wrong with a document, by the schema that its own member names.
fn wrong(document: &Value) -> Vec<String> {
    let name = document["schema"].as_str().unwrap_or_else(|| panic!("no schema is named: {document:#}"));
    let entry = find(name).unwrap_or_else(|_| panic!("no schema {name}"));
    let told = |validator: &jsonschema::Validator| -> Vec<String> {
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
    };
    validators(entry).iter().flat_map(told).collect()
}

/// The document is what its schema says.
pub(crate) fn assert_valid(document: &impl serde::Serialize) {
    let document = serde_json::to_value(document).expect("JSON");
    let wrong = wrong(&document);
    assert!(wrong.is_empty(), "{}: {wrong:#?}", document["schema"]);
}

#[test]
fn schemas_are_found_by_any_part_of_their_name() {
    for name in [SCHEMA, "report/v1", "report"] {
        assert!(find(name).is_ok(), "{name}");
    }
    for name in ["", "report/v2", "v1"] {
        assert!(find(name).is_err(), "{name}");
    }
}

#[test]
fn the_report_schema_names_what_the_contract_names() {
    let schema = published(find(SCHEMA).expect("it is there"));
    let properties = schema.get("properties").and_then(|value| value.as_object()).expect("an object");
    for member in [
        "schema",
        "tool",
        "taken_at",
        "duration_ms",
        "node",
        "targets",
        "facts",
        "hooks",
        "queries",
        "traces",
        "events",
        "findings",
        "prediction",
        "verdict",
    ] {
        assert!(properties.contains_key(member), "{member}");
    }
}

#[test]
fn every_schema_is_one() {
    for &entry in SCHEMAS {
        jsonschema::meta::validate(published(entry).as_value()).unwrap_or_else(|error| panic!("{}: {error}", entry.0));
        let _both = validators(entry);
    }
}

#[test]
fn every_example_of_a_report_is_valid() {
    for (name, report) in examples::all() {
        let json = serde_json::to_value(&report).expect(name);
        assert_eq!(wrong(&json), [""; 0], "{name}");
        assert_valid(&redact::redact(&report).expect(name));
    }
}

#[test]
fn every_diff_of_examples_is_valid() {
    let all = examples::all();
    for (_, before) in &all {
        for (_, after) in &all {
            assert_valid(&diff(Named { name: "a", report: before }, Named { name: "b", report: after }));
        }
    }
}

#[test]
fn what_if_and_explain_are_valid() {
    let mut facts = facts();
    hide(&mut facts);
    let change: Change = "devices=2".parse().expect("a change");
    assert_valid(&what_if::WhatIf::of("n1", &facts, &Targets::default(), Deciding::Pods, &[change]));

    let mut printed = Vec::new();
    let args = super::super::explain::ExplainArgs { code: None, output: super::super::explain::Format::Json };
    super::super::explain::run(&args, &mut printed).expect("memory");
    assert_valid(&serde_json::from_slice::<Value>(&printed).expect("JSON"));
}

#[test]
#[cfg(all(feature = "probe", target_os = "linux"))]
fn the_list_of_the_lab_is_valid() {
    assert_valid(&crate::lab::listing::Listing::now());
}

/// What a report may not be.
#[test]
fn a_report_that_is_none_is_refused() {
    let whole = serde_json::to_value(examples::leak()).expect("JSON");
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut report = whole.clone();
        change(&mut report);
        assert_ne!(report, whole, "nothing was changed");
        wrong(&report).join("\n")
    };
    let set = |pointer: &'static str, value: Value| {
        refused(&move |report| *report.pointer_mut(pointer).expect(pointer) = value.clone())
    };
    for (pointer, value) in [
        // Another type.
        ("/duration_ms", json!("soon")),
        ("/duration_ms", json!(-1)),
        ("/findings", json!({})),
        ("/queries/0/answers", json!("192.0.2.1")),
        ("/queries/0/traces/0", json!("7")),
        ("/hooks/0/attached", json!("yes")),
        ("/facts/cilium/version/known", json!(1.18)),
        ("/facts/network/addresses/known/0/scope", json!(256)),
        ("/facts/network/addresses/known/0/scope", json!("host")),
        // A word that there is not.
        ("/verdict/status", json!("broken")),
        ("/verdict/ended", json!("gone")),
        ("/verdict/direction", json!("sideways")),
        ("/queries/0/ended", json!("Leaked")),
        ("/queries/0/transport", json!("sctp")),
        ("/queries/0/vantage_kind", json!("someone")),
        ("/findings/0/severity", json!("fatal")),
        ("/findings/0/code", json!("HDP1")),
        ("/facts/cilium/host_routing/known", json!("bpf")),
        // Not what the document says it is.
        ("/schema", json!("hostdns-probe/report/v2")),
        ("/taken_at", json!("yesterday")),
    ] {
        let told = match pointer {
            // Found by its schema's name otherwise.
            "/schema" => {
                let [published, _] = validators(find(SCHEMA).expect("it is there"));
                let mut report = whole.clone();
                report["schema"] = value.clone();
                published.iter_errors(&report).map(|error| error.to_string()).collect()
            }
            _ => set(pointer, value.clone()),
        };
        assert!(!told.is_empty(), "{pointer} may be {value}");
    }
    for (parent, member) in [
        ("", "verdict"),
        ("", "facts"),
        ("/verdict", "status"),
        ("/queries/0", "vantage"),
        ("/findings/0", "evidence"),
        ("/facts/cilium/version", "source"),
        ("/facts/cilium/version", "known"),
        ("/traces/0", "hops"),
    ] {
        let told = refused(&|report| {
            let of = report.pointer_mut(parent).and_then(Value::as_object_mut).expect(parent);
            of.remove(member).expect(member);
        });
        assert!(!told.is_empty(), "{parent} may be without {member}");
    }
}

/// v1 only grows: a reader's schema takes members that came later, and misses none that came later.
#[test]
fn what_comes_later_is_ignored() {
    let mut report = serde_json::to_value(examples::leak()).expect("JSON");
    report["later"] = json!(1);
    report["facts"]["cilium"]["later"] = json!({"known": 1, "source": "x"});
    report["queries"][0]["later"] = json!("x");
    assert_eq!(wrong(&report), [""; 0]);
    report["queries"][0].as_object_mut().expect("an object").remove("truncated").expect("it came later");
    let [published, _] = validators(find(SCHEMA).expect("it is there"));
    assert!(published.is_valid(&report));
}
