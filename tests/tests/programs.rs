//! Which programs are on the node's devices, in the order in which they run, with tcx and without.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, loaded_programs, tc::TcAttachOptions};
use end_to_end::{is_root_or_skips, lab::Lab};
use serde_json::Value;

/// What a report says of them.
fn programs(report: &Value) -> &[Value] {
    let fact = &report["facts"]["cilium"]["programs"];
    fact["known"].as_array().unwrap_or_else(|| panic!("{fact}"))
}

/// The programs at a hook of a device, in order.
fn at<'a>(report: &'a Value, interface: &str, hook: &str) -> Vec<&'a Value> {
    programs(report).iter().filter(|one| one["interface"] == interface && one["hook"] == hook).collect()
}

fn names(found: &[&Value]) -> Vec<String> {
    found.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

/// Devices of pods that Cilium has a program on.
fn pods_devices(report: &Value) -> Vec<String> {
    let mut names: Vec<_> = programs(report).iter().map(|one| one["interface"].as_str().unwrap().to_owned()).collect();
    names.retain(|name| name.starts_with("lxc"));
    names.dedup();
    assert!(!names.is_empty(), "{:?}", programs(report));
    names
}

/// Another program of the lab in front of Cilium's stands for one of somebody else.
#[test]
fn programs_are_named_in_the_order_in_which_they_run() {
    if !is_root_or_skips("programs_are_named_in_the_order_in_which_they_run") {
        return;
    }
    let lab = Lab::up("healthy-known-address", "programs-tcx");
    let (report, _output) = lab.check(&[]);
    let devices = pods_devices(&report);
    for device in &devices {
        assert_eq!(names(&at(&report, device, "tcx ingress")), ["cil_from_contai"], "{device}");
    }
    assert_eq!(names(&at(&report, "cilium_host", "tcx ingress")), ["cil_to_host"]);
    assert_eq!(names(&at(&report, "cilium_host", "tcx egress")), ["cil_from_host"]);
    assert!(!report.to_string().contains("\"name\":\"hostdns_"), "ours are no facts");

    let other = at(&report, "cilium_host", "tcx ingress")[0]["id"].as_u64().unwrap();
    let info = loaded_programs().flatten().find(|one| u64::from(one.id()) == other).unwrap();
    let mut program = SchedClassifier::from_program_info(info, "cil_to_host".into()).unwrap();
    let device = devices[0].clone();
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link =
        lab.netns(None).run(|| program.attach_with_options(&device, TcAttachType::Ingress, options)).unwrap().unwrap();
    let (report, _output) = lab.check(&[]);
    let found = at(&report, &device, "tcx ingress");
    assert_eq!(names(&found), ["cil_to_host", "cil_from_contai"]);
    assert_eq!(found[0]["id"].as_u64(), Some(other));
    program.detach(link).unwrap();
    let (report, _output) = lab.check(&[]);
    assert_eq!(names(&at(&report, &device, "tcx ingress")), ["cil_from_contai"]);
}

#[test]
fn without_tcx_the_filters_are_named() {
    if !is_root_or_skips("without_tcx_the_filters_are_named") {
        return;
    }
    let lab = Lab::up_without_tcx("healthy-known-address", "programs-clsact");
    let (report, _output) = lab.check(&[]);
    for device in pods_devices(&report) {
        let found = at(&report, &device, "clsact ingress");
        assert_eq!(names(&found), ["cil_from_container"], "{device}");
        assert_eq!((&found[0]["priority"], &found[0]["handle"]), (&1.into(), &1.into()));
        let id = found[0]["id"].as_u64().unwrap();
        assert!(loaded_programs().flatten().any(|one| u64::from(one.id()) == id), "the kernel has it");
        assert!(at(&report, &device, "tcx ingress").is_empty());
    }
    assert_eq!(report["verdict"]["status"], "pass", "{}", report["verdict"]);
}
