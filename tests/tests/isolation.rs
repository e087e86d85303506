//! Two labs with the same addresses, checked at the same moment: nothing of one shows in the other.

use std::thread;

use end_to_end::{is_root_or_skips, lab::Lab};

#[test]
fn two_labs_with_equal_addresses_never_mix() {
    if !is_root_or_skips("two_labs_with_equal_addresses_never_mix") {
        return;
    }
    let leaking = Lab::up("issue-36761-leak", "mix-leak");
    let healthy = Lab::up("healthy-known-address", "mix-healthy");
    for _ in 0..3 {
        let (leak, pass) = thread::scope(|scope| {
            let leak = scope.spawn(|| leaking.check(&[]).0);
            let pass = scope.spawn(|| healthy.check(&[]).0);
            (leak.join().expect("the check ran"), pass.join().expect("the check ran"))
        });
        assert_eq!(leak["verdict"]["cause"], "HDP201", "{}", leak["verdict"]);
        assert_eq!(pass["verdict"]["status"], "pass", "{}", pass["verdict"]);
        let ends = |report: &serde_json::Value| {
            let traces = report["traces"].as_array().cloned().unwrap_or_default();
            traces.iter().map(|trace| trace["ended"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert!(!ends(&pass).iter().any(|ended| ended == "leaked"), "a leak of the other lab: {:?}", ends(&pass));
        let traced = pass["traces"].as_array().map_or(0, Vec::len);
        let asked = pass["queries"].as_array().map_or(0, Vec::len);
        assert!(traced > 0 && traced <= asked, "{traced} traces of {asked} questions");
    }
}
