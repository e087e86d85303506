//! Whose queries decide, and what cannot be told.

use super::*;

// Who decides.

#[test]
fn the_node_alone_never_passes() {
    let scene = new().asks(VantageKind::Node, Udp, Fate::Answered).asks(VantageKind::NodeLoopback, Udp, Fate::Answered);
    let verdict = verdict(&scene);
    assert_eq!((verdict.status, verdict.cause.as_deref()), (Unknown, Some("HDP305")));
    assert!(verdict.summary.contains("says nothing about pods"), "{}", verdict.summary);
}

#[test]
fn a_broken_node_vantage_is_a_warning() {
    let scene = new().coredns(Fate::Answered).asks(VantageKind::Node, Udp, Fate::Lost(Reply));
    is(&scene, Pass, Ended::Answered, Nowhere, None);
    assert!(scene.codes().contains(&"HDP403".into()));
}

#[test]
fn coredns_comes_before_other_pods() {
    let scene =
        new().coredns(Fate::Answered).asks(VantageKind::Pod, Udp, Fate::Dropped("TC_INGRESS", Request, Some(133)));
    is(&scene, Pass, Ended::Answered, Nowhere, None);
    assert_eq!(scene.finding("HDP213").unwrap().severity, crate::checks::Severity::Warn);
}

#[test]
fn without_coredns_others_decide() {
    for kind in [VantageKind::Pod, VantageKind::Health, VantageKind::Named] {
        let scene = hidden().facts(|f| f.pods = known(vec![])).asks(kind, Udp, Fate::Leaked);
        is(&scene, Fail, Ended::Leaked, Request, Some("HDP201"));
        assert!(scene.codes().contains(&"HDP301".into()));
    }
}

#[test]
fn coredns_that_tells_nothing_leaves_it_to_others() {
    let scene = hidden().coredns(Fate::Silent).asks(VantageKind::Health, Udp, Fate::Leaked);
    is(&scene, Fail, Ended::Leaked, Request, Some("HDP201"));
}

#[test]
fn others_that_get_through_do_not_pass_a_coredns_that_tells_nothing() {
    let scene = new().coredns(Fate::Silent).asks(VantageKind::Health, Udp, Fate::Answered);
    is(&scene, Unknown, Ended::Unknown, Nowhere, None);
    // Nothing could be asked from it at all: as if it were not here.
    let mut scene = scene;
    for query in &mut scene.queries[..2] {
        (query.source, query.id, query.ended) = (None, 0, Ended::Unknown);
    }
    is(&scene, Pass, Ended::Answered, Nowhere, None);
}

#[test]
fn a_policy_for_some_pod_does_not_fail_a_node_whose_health_endpoint_gets_through() {
    let denied = Fate::Dropped("TC_INGRESS", Request, Some(133));
    let alone = || new().facts(|f| f.pods = known(vec![])).asks(VantageKind::Pod, Udp, denied.clone());
    is(&alone(), Fail, Ended::Dropped, Request, Some("HDP213"));
    let scene = alone().asks(VantageKind::Health, Udp, Fate::Answered);
    is(&scene, Pass, Ended::Answered, Nowhere, None);
    assert_eq!(scene.finding("HDP213").unwrap().severity, crate::checks::Severity::Warn);
    // What is wrong with the way itself counts, whoever shows it.
    let leaked = hidden().facts(|f| f.pods = known(vec![])).asks(VantageKind::Pod, Udp, Fate::Leaked);
    let scene = leaked.asks(VantageKind::Health, Udp, Fate::Answered);
    is(&scene, Fail, Ended::Leaked, Request, Some("HDP201"));
}

#[test]
fn a_name_that_the_server_is_silent_about_fails_nothing() {
    let mut scene = new().coredns(Fate::Answered).asks(VantageKind::Coredns, Udp, Fate::Unanswered);
    scene.queries[2].qname = "whoami.ds.akahelp.net".into();
    is(&scene, Pass, Ended::Answered, Nowhere, Some("HDP406"));
    assert_eq!(scene.finding("HDP406").unwrap().severity, crate::checks::Severity::Warn);
    // Over the other transport nothing was answered.
    let scene = new().asks(VantageKind::Coredns, Udp, Fate::Answered).asks(VantageKind::Coredns, Tcp, Fate::Unanswered);
    is(&scene, Fail, Ended::Unanswered, Nowhere, Some("HDP408"));
}

#[test]
fn coredns_on_host_network_decides() {
    let scene =
        hidden().asks(VantageKind::CorednsOnHost, Udp, Fate::Answered).asks(VantageKind::Health, Udp, Fate::Leaked);
    is(&scene, Pass, Ended::Answered, Nowhere, None);
    assert!(verdict(&scene).summary.starts_with("CoreDNS (hostNetwork) on n1 reaches"));
    let told = prediction(&scene.case());
    assert!(std::ptr::eq(told, &scene.prediction_on_host), "its own prediction is the one to tell");
    assert_eq!(scene.finding("HDP201").unwrap().severity, crate::checks::Severity::Warn);
}

#[test]
fn queries_to_others_do_not_count() {
    let other = "127.0.0.53:53".parse().unwrap();
    let scene = new().coredns(Fate::Answered).asks_at(VantageKind::Coredns, other, Udp, Fate::Leaked);
    is(&scene, Pass, Ended::Answered, Nowhere, None);
}

// CoreDNS asks somebody else.

#[test]
fn bypassed_but_fine() {
    let scene = new().facts(bypass).coredns(Fate::Answered);
    is(&scene, Pass, Ended::Answered, Nowhere, None);
    assert!(scene.codes().contains(&"HDP302".into()));
}

#[test]
fn bypassed_and_broken_still_fails_while_the_node_serves() {
    is(&hidden().facts(bypass).coredns(Fate::Leaked), Fail, Ended::Leaked, Request, Some("HDP201"));
}

#[test]
fn forwarding_switched_off_is_no_failure() {
    for off in [absent, |facts: &mut Facts| facts.listeners = known(vec![])] {
        let scene = new().facts(bypass).facts(off).coredns(Fate::Leaked);
        let verdict = verdict(&scene);
        assert_eq!((verdict.status, verdict.ended, verdict.cause.as_deref()), (Pass, None, Some("HDP302")));
        assert!(scene.findings().iter().all(|finding| finding.severity != crate::checks::Severity::Fail));
    }
}

#[test]
fn another_node_local_dns_is_in_use_whatever_coredns_asks() {
    let dns = "169.254.20.10".parse().unwrap();
    let mut scene = new().facts(bypass).facts(absent);
    scene.targets.addresses = vec![dns];
    scene.facts.cilium.lxc = [(dns, known(None))].into();
    let scene = scene.asks_at(VantageKind::Coredns, (dns, 53).into(), Udp, Fate::Leaked);
    is(&scene, Fail, Ended::Leaked, Request, Some("HDP101"));
    assert_eq!(scene.finding("HDP302").unwrap().severity, crate::checks::Severity::Info);
}

#[test]
fn an_address_that_pods_are_told_to_ask_is_in_use() {
    let told = |f: &mut Facts| {
        f.network.pod_resolv_conf = known(ResolvConf { nameservers: vec![HOST_DNS.to_string()], search: Vec::new() });
    };
    is(
        &new().facts(bypass).facts(absent).facts(told).coredns(Fate::Leaked),
        Fail,
        Ended::Leaked,
        Request,
        Some("HDP101"),
    );
}

#[test]
fn a_zone_of_its_own_that_asks_the_address_uses_it() {
    let stub = |f: &mut Facts| {
        let mut files = f.coredns.get().unwrap().clone();
        let forward = |zone: &str, to: &str| Forward { zone: zone.into(), to: vec![to.into()], ..Forward::default() };
        files[0].forwards = vec![forward(".", "1.1.1.1"), forward("corp.", "169.254.116.108")];
        f.coredns = known(files);
    };
    let scene = new().facts(bypass).facts(stub).facts(absent).coredns(Fate::Leaked);
    is(&scene, Fail, Ended::Leaked, Request, Some("HDP101"));
    assert_eq!(scene.finding("HDP302"), None);
}

// What cannot be told.

#[test]
fn lost_events_leave_silence_open() {
    for fate in [Fate::Lost(Request), Fate::Lost(Reply), Fate::Unanswered] {
        let mut scene = new().coredns(fate);
        scene.events.lost = 1;
        is(&scene, Unknown, Ended::Unknown, Nowhere, Some("HDP005"));
    }
}

#[test]
fn lost_events_do_not_touch_what_was_seen() {
    let mut scene = hidden().coredns(Fate::Leaked);
    scene.events.lost = 5;
    is(&scene, Fail, Ended::Leaked, Request, Some("HDP201"));
    let mut scene = new().coredns(Fate::Answered);
    scene.events.lost = 5;
    is(&scene, Pass, Ended::Answered, Nowhere, None);
}

#[test]
fn missing_hooks_leave_losses_open() {
    let mut scene = new().coredns(Fate::Lost(Request));
    scene.hooks.push(hook("tcx egress", Some("eth1"), false));
    is(&scene, Unknown, Ended::Unknown, Nowhere, Some("HDP003"));
    let why = verdict(&scene).summary;
    assert!(why.contains("tcx egress on eth1"), "{why}");
    // Of an unanswered query it is enough to see the sockets; the transmit point only names addresses.
    let mut scene = new().coredns(Fate::Unanswered);
    scene.hooks.push(hook("tcx egress", Some("eth1"), false));
    is(&scene, Fail, Ended::Unanswered, Nowhere, Some("HDP406"));
    // Nor do points that only say more, or another pod's device.
    let mut scene = new().coredns(Fate::Lost(Request));
    scene.hooks.push(hook("tp_btf net_dev_start_xmit", None, false));
    scene.hooks.push(hook("tp_btf kfree_skb", None, false));
    scene.hooks.push(hook("tcx ingress", Some("lxc_other"), false));
    is(&scene, Fail, Ended::Lost, Request, Some("HDP414"));
}

#[test]
fn without_socket_hooks_leaks_still_count() {
    let private = |mut scene: Scene| {
        for hook in &mut scene.hooks {
            hook.attached = !hook.name.contains("cgroup");
        }
        scene
    };
    is(&private(hidden().coredns(Fate::Leaked)), Fail, Ended::Leaked, Request, Some("HDP201"));
    is(&private(new().coredns(Fate::Lost(Request))), Unknown, Ended::Unknown, Nowhere, Some("HDP003"));
}

#[test]
fn a_timeout_nobody_saw_is_unknown() {
    let mut scene = hidden().coredns(Fate::Silent);
    scene.prediction = Prediction { ended: Some(Ended::Leaked), cause: Some("HDP201".into()), ..Default::default() };
    is(&scene, Unknown, Ended::Unknown, Nowhere, None);
    assert!(verdict(&scene).summary.ends_with("Configuration alone says: leaked (HDP201)."));
    let scene = scene.facts(|f| f.kernel.missing_capabilities = known(vec!["CAP_BPF".into()]));
    is(&scene, Unknown, Ended::Unknown, Nowhere, Some("HDP001"));
}

#[test]
fn one_reaches_and_pods_reach() {
    for (kind, words) in [
        (VantageKind::Coredns, "whether pods on n1 reach host DNS"),
        (VantageKind::Named, "whether mine on n1 reaches host DNS"),
        (VantageKind::CorednsOnHost, "whether CoreDNS (hostNetwork) on n1 reaches host DNS"),
    ] {
        let summary = verdict(&hidden().asks(kind, Udp, Fate::Silent)).summary;
        assert!(summary.contains(words), "{summary}");
    }
}

#[test]
fn an_answer_nobody_saw_needs_the_prediction() {
    let mut scene = new().coredns(Fate::Unseen);
    is(&scene, Unknown, Ended::Unknown, Nowhere, None);
    scene.prediction.ended = Some(Ended::Answered);
    is(&scene, Pass, Ended::Answered, Nowhere, None);
}

#[test]
fn one_unknown_half_is_not_passed() {
    let scene = new().asks(VantageKind::Coredns, Udp, Fate::Answered).asks(VantageKind::Coredns, Tcp, Fate::Silent);
    is(&scene, Unknown, Ended::Unknown, Nowhere, None);
}

#[test]
fn the_traces_own_reason_is_told() {
    let mut scene = new().coredns(Fate::Silent);
    let mut seen = new().coredns(Fate::Lost(Request)).traces;
    seen.truncate(1);
    seen[0].ended = Ended::Unknown;
    seen[0].unknown = Some("eth0 was attached too late".into());
    scene.traces = seen;
    scene.queries.truncate(1);
    scene.queries[0].traces = vec![1];
    is(&scene, Unknown, Ended::Unknown, Nowhere, None);
    assert!(verdict(&scene).summary.contains("eth0 was attached too late"));
}

#[test]
fn a_reply_that_leaves_the_node_is_a_leaked_reply() {
    let mut scene = new().coredns(Fate::Leaked);
    for trace in &mut scene.traces {
        let mut hop = trace.hops[0].clone();
        hop.interface = Some("eth0".into());
        hop.direction = Reply;
        trace.hops.push(hop);
    }
    is(&scene, Fail, Ended::Leaked, Reply, Some("HDP402"));
    assert!(verdict(&scene).summary.contains("answers leave"));
}

#[test]
fn a_root_without_its_finding_is_not_claimed() {
    let scene = hidden().coredns(Fate::Leaked);
    assert_eq!(judge(&scene.case(), &[]).cause.as_deref(), Some("HDP402"));
}

#[test]
fn without_cilium_the_measurement_decides() {
    let bare = |facts: &mut Facts| {
        facts.cilium = crate::facts::Cilium::default();
        facts.network.links = known(vec![]);
        facts.pods = known(vec![pod("coredns-1", PodRole::Coredns)]);
    };
    is(&new().facts(bare).coredns(Fate::Answered), Pass, Ended::Answered, Nowhere, None);
    is(&new().facts(bare).coredns(Fate::Leaked), Fail, Ended::Leaked, Request, Some("HDP402"));
}

#[test]
fn a_query_that_bears_its_outcome_is_judged_the_same() {
    for fate in [
        Fate::Answered,
        Fate::Leaked,
        Fate::LeakedButAnswered,
        Fate::Dropped("NO_SOCKET", Request, None),
        Fate::Dropped("TC_INGRESS", Request, Some(169)),
        Fate::Lost(Reply),
        Fate::Refused,
        Fate::Unanswered,
        Fate::Malformed,
        Fate::Silent,
        Fate::Unseen,
    ] {
        let mut scene = hidden().coredns(fate.clone());
        let before = verdict(&scene);
        let ends: Vec<Ended> = scene.queries.iter().map(|query| Outcome::of(&scene.case(), query).ended).collect();
        for (query, ended) in scene.queries.iter_mut().zip(ends) {
            query.ended = ended;
        }
        assert_eq!(verdict(&scene), before, "{fate:?}");
    }
}
