use super::*;
use crate::{
    checks::testing::{HOST_DNS, address, facts, hide, known},
    ended::Ended,
    facts::would_start_with,
    target::HOST_DNS_V6,
};

fn change(text: &str) -> Change {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn ended(facts: &Facts, changes: &[&str]) -> Option<Ended> {
    let changes: Vec<_> = changes.iter().map(|text| change(text)).collect();
    after(facts, &Targets::default(), Deciding::Pods, &changes).ended
}

#[test]
fn each_key_of_a_broken_node() {
    let mut broken = facts();
    hide(&mut broken);
    assert_eq!(ended(&broken, &[]), Some(Ended::Leaked));
    for (text, expected) in [
        ("cilium-version=1.18.2", Some(Ended::Leaked)),
        ("cilium-version=1.20.0", None),
        ("host-routing=legacy", Some(Ended::Answered)),
        ("masquerade=iptables", Some(Ended::Answered)),
        ("masquerade=disabled", Some(Ended::Leaked)),
        ("kube-proxy-replacement=false", None),
        ("ipsec=true", Some(Ended::Answered)),
        ("routing-mode=tunnel", Some(Ended::Leaked)),
        ("devices=2", Some(Ended::Dropped)),
        ("devices=eth0,eth1", Some(Ended::Dropped)),
        ("endpoint-routes=true", Some(Ended::Dropped)),
        ("local-max-addr-scope=254", Some(Ended::Answered)),
        ("local-max-addr-scope=host", Some(Ended::Answered)),
        ("lo-scope=global", Some(Ended::Answered)),
        ("lo-scope=link", Some(Ended::Leaked)),
        ("forward=false", None),
        ("forward=true", Some(Ended::Leaked)),
    ] {
        assert_eq!(ended(&broken, &[text]), expected, "{text}");
    }
}

#[test]
fn each_key_of_a_healthy_node() {
    for (text, expected) in [
        ("lo-scope=host", Ended::Leaked),
        ("lo-scope=absent", Ended::Leaked),
        ("exclude-local-address=169.254.0.0/16", Ended::Leaked),
        ("cilium-version=1.16.0", Ended::Leaked),
        ("cilium-version=1.16.1", Ended::Answered),
        ("devices=3", Ended::Answered),
    ] {
        assert_eq!(ended(&facts(), &[text]), Some(expected), "{text}");
    }
}

/// CoreDNS with hostNetwork never meets Cilium's datapath for pods: what Cilium makes of the address is nothing to it.
#[test]
fn from_the_nodes_own_network() {
    let mut broken = facts();
    hide(&mut broken);
    let ended = |text: &str, deciding| after(&broken, &Targets::default(), deciding, &[change(text)]).ended;
    for text in ["devices=2", "cilium-version=1.16.4", "cilium-version=9.0.0", "endpoint-routes=true"] {
        assert_eq!(ended(text, Deciding::Node), Some(Ended::Answered), "{text}");
        assert_ne!(ended(text, Deciding::Both), Some(Ended::Answered), "{text}");
    }
    assert_eq!(ended("lo-scope=absent", Deciding::Node), Some(Ended::Leaked));
}

#[test]
fn changes_add_up() {
    let mut broken = facts();
    hide(&mut broken);
    assert_eq!(ended(&broken, &["cilium-version=1.19.0-pre.0", "devices=2"]), Some(Ended::Answered));
    assert_eq!(ended(&broken, &["cilium-version=1.16.4", "routing-mode=tunnel"]), Some(Ended::Answered));
    assert_eq!(ended(&broken, &["masquerade=iptables", "masquerade=bpf"]), Some(Ended::Leaked));
}

#[test]
fn switched_off_is_healthy_and_said_to_be_unused() {
    let off = after(&facts(), &Targets::default(), Deciding::Pods, &[change("forward=false")]);
    assert_eq!((off.status, off.ended), (Status::Pass, None));
    assert!(off.because[0].contains("nobody needs the address"), "{:?}", off.because);
}

#[test]
fn switched_on_serves_an_address_that_was_not_there() {
    let mut without = facts();
    without.network.addresses = known(vec![address("eth0", "192.0.2.7".parse().unwrap(), 0)]);
    without.network.routes = known(vec![crate::checks::testing::default_route()]);
    without.listeners = known(Vec::new());
    let on = after(&without, &Targets::default(), Deciding::Pods, &[change("forward=true")]);
    assert_eq!((on.ended, on.cause.as_deref()), (Some(Ended::Leaked), Some("HDP201")), "{:?}", on.because);
    let both =
        after(&without, &Targets::default(), Deciding::Pods, &[change("forward=true"), change("host-routing=legacy")]);
    assert_eq!(both.status, Status::Pass, "{:?}", both.because);
}

#[test]
fn what_is_not_known_is_not_guessed() {
    let mut unknown = facts();
    hide(&mut unknown);
    unknown.cilium.masquerade = Fact::default();
    assert_eq!(ended(&unknown, &["host-routing=bpf"]), None);
    assert_eq!(ended(&unknown, &["host-routing=legacy"]), Some(Ended::Answered));
    // A report of an agent that was not asked for IPsec: where it routes by BPF, there is none.
    let mut silent = facts();
    hide(&mut silent);
    silent.cilium.ipsec = Fact::default();
    assert_eq!(ended(&silent, &["masquerade=disabled"]), Some(Ended::Leaked));
    silent.cilium.host_routing = known(HostRouting::Legacy);
    silent.cilium.legacy_routing_configured = known(true);
    let after = after(&silent, &Targets::default(), Deciding::Pods, &[change("host-routing=bpf")]);
    assert!(after.because.last().unwrap().contains("enable-ipsec"), "{:?}", after.because);
}

#[test]
fn a_setting_that_waits_for_a_restart_counts_where_there_is_one() {
    let mut waiting = facts();
    hide(&mut waiting);
    waiting.cilium.skip_fib = Fact::default();
    waiting.cilium.devices = Fact::known(vec!["eth0".into(), "eth1".into()], would_start_with("devices in /config"));
    assert_eq!(ended(&waiting, &[]), None, "what it runs with is not known");
    assert_eq!(ended(&waiting, &["lo-scope=host"]), None);
    assert_eq!(ended(&waiting, &["endpoint-routes=false"]), Some(Ended::Dropped));
}

#[test]
fn what_is_now() {
    let targets = Targets::default();
    let mut facts = facts();
    hide(&mut facts);
    for (text, expected) in [
        ("cilium-version=1.16.5", Some("1.18.1")),
        ("lo-scope=global", Some("lo host")),
        ("masquerade=iptables", Some("bpf")),
        ("devices=2", Some("eth0")),
        ("forward=true", None),
    ] {
        assert_eq!(now(&facts, &targets, &change(text)).as_deref(), expected, "{text}");
    }
    let two = Targets { addresses: vec![HOST_DNS, HOST_DNS_V6], port: 53 };
    let each = now(&facts, &two, &change("lo-scope=global")).unwrap();
    assert_eq!(each, "169.254.116.108 lo host, fd54:616c:6f73:0:204f:5320:444e:531 absent");
    facts.network.addresses = known(Vec::new());
    assert_eq!(now(&facts, &targets, &change("lo-scope=global")).as_deref(), Some("absent"));
    assert!(node::is_absent(&facts, HOST_DNS));
}

#[test]
fn without_kube_proxy_replacement() {
    let mut broken = facts();
    hide(&mut broken);
    for masquerade in ["masquerade=iptables", "masquerade=disabled"] {
        assert_eq!(
            ended(&broken, &[masquerade, "kube-proxy-replacement=false"]),
            Some(Ended::Answered),
            "{masquerade}"
        );
    }
    let off = after(&broken, &Targets::default(), Deciding::Pods, &[change("kube-proxy-replacement=false")]);
    assert!(off.because.last().unwrap().contains("refuses BPF masquerading"), "{:?}", off.because);
    // It runs with BPF host routing although it says False: NodePort is on by itself, and stays.
    broken.cilium.kube_proxy_replacement = known("False".into());
    for text in ["host-routing=bpf", "masquerade=bpf", "ipsec=false"] {
        assert_eq!(ended(&broken, &[text]), Some(Ended::Leaked), "{text}");
    }
}

#[test]
fn switches_are_typed_in_many_ways() {
    assert_eq!(change("forward=on"), change("forward=true"));
    assert_eq!(change("ipsec=No"), change("ipsec=false"));
}

#[test]
fn nonsense_is_refused_with_what_would_do() {
    for (text, part) in [
        ("cilium-version", "KEY=VALUE"),
        ("color=blue", "cilium-version, host-routing"),
        ("host-routing=fast", "bpf or legacy"),
        ("cilium-version=latest", "a release"),
        ("lo-scope=300", "absent"),
        ("devices=", "how many"),
        ("devices=200", "how many"),
        ("forward=maybe", "true or false"),
    ] {
        let said = text.parse::<Change>().expect_err(text).to_string();
        assert!(said.contains(part), "{text}: {said}");
    }
}

#[test]
fn every_key_reads_and_names_itself() {
    let examples =
        ["1.18.1", "bpf", "iptables", "tunnel", "2", "true", "false", "true", "254", "10.0.0.0/8", "global", "true"];
    assert_eq!(examples.len(), KEYS.len());
    for ((key, _), value) in KEYS.iter().zip(examples) {
        let change = change(&format!("{key}={value}"));
        assert_eq!(change.key(), *key);
        assert_eq!(format!("{key}={}", change.value()).parse(), Ok(change), "what is shown can be typed");
    }
}
