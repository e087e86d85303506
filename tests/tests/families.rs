//! A node with both families: each is asked, followed and judged by itself.

use end_to_end::{is_root_or_skips, lab::Lab};

#[test]
fn the_ipv6_address_that_joins_by_itself_is_followed_too() {
    if !is_root_or_skips("the_ipv6_address_that_joins_by_itself_is_followed_too") {
        return;
    }
    let (report, _) = Lab::up("dual-stack-one-broken", "families").check(&[]);
    assert_eq!(report["verdict"]["cause"], "HDP201", "{}", report["verdict"]);
    let queries = report["queries"].as_array().expect("queries");
    let over_v6: Vec<_> =
        queries.iter().filter(|query| query["address"].as_str().is_some_and(|a| a.starts_with("[fd54"))).collect();
    assert!(!over_v6.is_empty(), "IPv6 is asked without --address");
    for query in over_v6 {
        assert_eq!(query["ended"], "answered", "{query}");
        assert!(query["traces"].as_array().is_some_and(|traces| !traces.is_empty()), "not followed: {query}");
    }
    let codes: Vec<_> = report["findings"].as_array().into_iter().flatten().map(|finding| &finding["code"]).collect();
    assert!(codes.contains(&&"HDP409".into()), "{codes:?}");
}
