use serde_json::json;

use super::*;
use crate::facts::Masquerade;

fn agent(health: &str, config: &str) -> Agent {
    let json = |text: &str| Ok(serde_json::from_str(text).unwrap());
    Agent { socket: "/var/run/cilium/cilium.sock".into(), health: json(health), config: json(config) }
}

macro_rules! recorded {
    ($case:literal) => {
        agent(
            include_str!(concat!("../../../../tests/fixtures/recorded/", $case, "/api/healthz.json")),
            include_str!(concat!("../../../../tests/fixtures/recorded/", $case, "/api/config.json")),
        )
    };
}

fn settings(keys: &[(&str, &str)]) -> AllSettings {
    AllSettings { sets: vec![settings::tests::named(keys)], unread: Vec::new() }
}

fn none() -> AllSettings {
    AllSettings::default()
}

#[test]
fn every_recorded_agent_is_understood() {
    let cases = [
        ("1.16.4", RoutingMode::Tunnel, HostRouting::Bpf, recorded!("cilium-1.16.4/vxlan-bpf-host-1dev")),
        ("1.16.5", RoutingMode::Native, HostRouting::Bpf, recorded!("cilium-1.16.5/native-bpf-host-1dev")),
        ("1.18.1", RoutingMode::Native, HostRouting::Legacy, recorded!("cilium-1.18.1/native-legacy-host-1dev")),
        ("1.19.0-pre.0", RoutingMode::Native, HostRouting::Bpf, recorded!("cilium-1.19.0-pre.0/native-bpf-host-1dev")),
    ];
    for (version, routing, host_routing, agent) in cases {
        let cilium = agent.facts(&none());
        assert_eq!(cilium.version.get().map(String::as_str), Some(version));
        assert_eq!(cilium.routing_mode.get(), Some(&routing), "{version}");
        assert_eq!(cilium.host_routing.get(), Some(&host_routing), "{version}");
        assert_eq!(cilium.masquerade.get(), Some(&Masquerade::Bpf), "{version}");
        assert_eq!(cilium.ip_masq_agent.get(), Some(&false), "{version}");
        assert_eq!(cilium.ipsec.get(), Some(&false), "{version}");
        assert_eq!(cilium.endpoint_routes.get(), Some(&false), "{version}");
        assert_eq!(cilium.address_scope_max.get(), Some(&252), "{version}");
        assert_eq!(cilium.exclude_local_addresses.get(), Some(&vec![]), "{version}");
        assert_eq!(cilium.devices.get(), Some(&vec!["eth0".to_owned()]), "{version}");
        assert_eq!(cilium.attach_mode.get().map(String::as_str), Some("tcx"), "{version}");
        assert_eq!(cilium.host_firewall.get(), Some(&false), "{version}");
        assert_eq!(cilium.state.get().map(String::as_str), Some("Ok"), "{version}");
    }
}

#[test]
fn two_devices_and_the_direct_routing_one() {
    let cilium = recorded!("cilium-1.18.1/native-bpf-host-2dev").facts(&none());
    assert_eq!(cilium.devices.get(), Some(&vec!["eth0".to_owned(), "eth1".to_owned()]));
    assert_eq!(cilium.direct_routing_device.get().map(String::as_str), Some("eth0"));
    assert_eq!(cilium.kube_proxy_replacement.get().map(String::as_str), Some("True"));
}

#[test]
fn the_names_of_1_15_are_known() {
    let cilium = agent(
        r#"{"host-routing": {"mode": "Legacy"}, "cilium": {"msg": "1.15.8 (v1.15.8-abc)"}}"#,
        r#"{"status": {"daemonConfigurationMap": {"RoutingMode": "tunnel"}}}"#,
    )
    .facts(&none());
    assert_eq!(cilium.host_routing.get(), Some(&HostRouting::Legacy));
    assert_eq!(cilium.routing_mode.get(), Some(&RoutingMode::Tunnel));
    assert_eq!(cilium.version.get().map(String::as_str), Some("1.15.8"));
    assert_eq!(cilium.attach_mode.why(), Some("the agent does not say it"));
}

#[test]
fn sources_that_differ_are_noted() {
    let settings = settings(&[("routing-mode", "tunnel"), ("enable-host-legacy-routing", "false")]);
    let cilium = recorded!("cilium-1.18.1/native-legacy-host-1dev").facts(&settings);
    let Fact::Known { value, others, .. } = &cilium.routing_mode else { panic!("known") };
    assert_eq!(*value, RoutingMode::Native);
    assert!(others.len() == 1 && others[0].contains("routing-mode") && others[0].ends_with("Tunnel"), "{others:?}");
    let configured = &cilium.legacy_routing_configured;
    assert_eq!((configured.get(), configured.running()), (Some(&false), None), "it may have been set otherwise before");
}

#[test]
fn a_fallback_cannot_be_told_without_the_settings() {
    let legacy = recorded!("cilium-1.18.1/native-legacy-host-1dev").facts(&none());
    assert!(legacy.legacy_routing_configured.why().is_some_and(|why| why.contains("--cilium-config-dir")));
    let bpf = recorded!("cilium-1.18.1/native-bpf-host-2dev").facts(&none());
    assert_eq!(bpf.legacy_routing_configured.get(), Some(&false));
}

#[test]
fn a_setting_changed_after_the_start_is_kept_beside_the_agents_word() {
    let started = [("local-max-addr-scope", "252"), ("enable-host-legacy-routing", "false")];
    let next = [("enable-host-legacy-routing", "true"), ("enable-bpf-masquerade", "true")];
    let all =
        AllSettings { sets: vec![settings::tests::named(&started), settings::tests::named(&next)], unread: Vec::new() };
    let cilium = recorded!("cilium-1.18.1/native-bpf-host-2dev").facts(&all);
    let Fact::Known { value: false, others, .. } = &cilium.legacy_routing_configured else { panic!("{cilium:?}") };
    assert!(matches!(others.as_slice(), [one] if one.ends_with(": true")), "{others:?}");
    let Fact::Known { value: Masquerade::Bpf, others, .. } = &cilium.masquerade else { panic!("BPF") };
    assert!(
        matches!(others.as_slice(), [one] if one.starts_with("default") && one.ends_with("iptables")),
        "{others:?}"
    );
    assert!(matches!(&cilium.address_scope_max, Fact::Known { value: 252, others, .. } if others.is_empty()));
    assert_eq!(all.fact().get().map(Vec::len), Some(2));
}

#[test]
fn settings_alone_are_better_than_nothing() {
    let gone = || Err("No such file or directory".to_owned());
    let agent = Agent { socket: "/x".into(), health: gone(), config: gone() };
    let settings = settings(&[
        ("devices", "eth0 eth1"),
        ("local-max-addr-scope", "host"),
        ("enable-bpf-masquerade", "true"),
        ("enable-ip-masq-agent", "true"),
    ]);
    let cilium = agent.facts(&settings);
    assert_eq!(cilium.devices.get().map(Vec::len), Some(2));
    assert_eq!(cilium.address_scope_max.get(), Some(&254));
    assert_eq!(cilium.masquerade.get(), Some(&Masquerade::Bpf));
    assert_eq!(cilium.ip_masq_agent.get(), Some(&true));
    assert_eq!(cilium.host_routing.why(), Some("No such file or directory"));
    // Whoever reads them is told what they are worth, and nothing that runs is judged by them.
    assert!(cilium.devices.source().ends_with(" (what its agent would start with)"), "{:?}", cilium.devices);
    assert_eq!(cilium.masquerade.running(), None);
    let named = ["enable-host-legacy-routing", "enable-bpf-masquerade"];
    let unknown = cilium.legacy_reasons().unknown;
    assert!(named.iter().all(|name| unknown.iter().any(|one| one.starts_with(name))), "{unknown:?}");
}

#[test]
fn the_agents_own_set_is_what_runs() {
    let started = settings::tests::started_with(&[("enable-host-legacy-routing", "true"), ("enable-ipsec", "false")]);
    let next = settings::tests::named(&[("enable-host-legacy-routing", "false"), ("enable-ipsec", "true")]);
    let cilium = agent("{}", "{}").facts(&AllSettings { sets: vec![started, next], unread: Vec::new() });
    assert_eq!((cilium.legacy_routing_configured.running(), cilium.ipsec.running()), (Some(&true), Some(&false)));
    assert!(cilium.ipsec.others()[0].ends_with(": true"), "{:?}", cilium.ipsec);
}

#[test]
fn bpf_host_routing_was_not_asked_to_be_legacy_whatever_the_next_start_says() {
    let next = settings(&[("enable-host-legacy-routing", "true")]);
    let cilium = recorded!("cilium-1.18.1/native-bpf-host-2dev").facts(&next);
    assert_eq!(cilium.legacy_routing_configured.running(), Some(&false));
    assert!(matches!(cilium.legacy_routing_configured.others(), [one] if one.ends_with(": true")));
}

#[test]
fn wildcards_are_not_taken_for_devices() {
    assert_eq!(plain_names("eth+"), None);
    assert_eq!(plain_names("eth1 eth0"), plain_names("eth0,eth1"), "in whatever order");
    assert_eq!((plain_name("eth+"), plain_name("eth0")), (None, Some("eth0".into())));
    assert_eq!(names(&json!([])), None);
    assert_eq!(names(&json!(["eth+", "!eth1"])), None);
    assert_eq!(names(&json!([{"name": "eth0", "ip": []}, "eth1"])), Some(vec!["eth0".into(), "eth1".into()]));
    assert_eq!(scope_of("link"), Some(253));
    assert_eq!(scope_of("nonsense"), None);
}

#[test]
fn ipsec_is_told_from_other_encryption() {
    let encrypts = |mode: &str| agent(&format!(r#"{{"encryption": {{"mode": "{mode}"}}}}"#), "{}").facts(&none()).ipsec;
    assert_eq!(encrypts("IPsec").get(), Some(&true));
    for other in ["Disabled", "Wireguard", "Ztunnel"] {
        assert_eq!(encrypts(other).get(), Some(&false), "{other}");
    }
    let set = agent("{}", "{}").facts(&settings(&[("enable-ipsec", "true")]));
    assert_eq!(set.ipsec.get(), Some(&true));
}

#[test]
fn masquerade_that_is_off_is_said() {
    let off = agent(r#"{"masquerading": {"enabled": false}}"#, "{}").facts(&none());
    assert_eq!(off.masquerade.get(), Some(&Masquerade::Disabled));
    let iptables = agent(r#"{"masquerading": {"enabled": true, "mode": "iptables"}}"#, "{}").facts(&none());
    assert_eq!(iptables.masquerade.get(), Some(&Masquerade::Iptables));
}

/// As `/v1/config` has it.
fn configured(map: &Value) -> Cilium {
    let config = json!({"status": {"daemonConfigurationMap": map}});
    agent("{}", &config.to_string()).facts(&none())
}

#[test]
fn one_family_that_is_masqueraded_suffices() {
    let says = |map: Value| configured(&map).masquerade.get().copied();
    let v6_only = |v6: bool| json!({"EnableBPFMasquerade": true, "EnableIPv4Masquerade": false, "EnableIPv6Masquerade": true, "EnableIPv6": v6});
    assert_eq!(says(v6_only(true)), Some(Masquerade::Bpf));
    assert_eq!(says(v6_only(false)), Some(Masquerade::Disabled));
    assert_eq!(says(json!({"EnableBPFMasquerade": false})), Some(Masquerade::Iptables), "IPv4's is on by default");
    let no_v4 = json!({"EnableBPFMasquerade": true, "EnableIPv4": false, "EnableIPv4Masquerade": true});
    assert_eq!(says(no_v4), Some(Masquerade::Disabled));

    let set = |keys: &[(&str, &str)]| {
        let bpf = agent(r#"{"masquerading": {"enabled": true, "mode": "BPF"}}"#, "{}");
        let keys = [&[("enable-bpf-masquerade", "true"), ("enable-ipv4-masquerade", "false")], keys].concat();
        bpf.facts(&settings(&keys)).masquerade.others().to_vec()
    };
    assert_eq!(set(&[("enable-ipv6", "true"), ("enable-ipv6-masquerade", "true")]), [""; 0]);
    assert_eq!(set(&[("enable-ipv6", "true")]), [""; 0], "on by default");
    assert!(matches!(set(&[]).as_slice(), [one] if one.ends_with(": Disabled")), "{:?}", set(&[]));
    assert_eq!(set(&[("enable-ipv6", "true"), ("enable-ipv6-masquerade", "false")]).len(), 1);
}

#[test]
fn the_families_are_known_by_the_agent_or_its_settings() {
    let said = configured(&json!({"EnableIPv4": true, "EnableIPv6": false}));
    assert_eq!((said.ipv4.get(), said.ipv6.get()), (Some(&true), Some(&false)));
    let range = r#"{"masquerading": {"enabled": true, "mode": "BPF", "snat-exclusion-cidr-v6": "fd00::/64"}}"#;
    let shown = agent(range, "{}").facts(&none());
    assert_eq!((shown.ipv4.get(), shown.ipv6.get()), (None, Some(&true)));
    let set = agent("{}", "{}").facts(&settings(&[("enable-ipv6", "true")]));
    assert_eq!((set.ipv4.get(), set.ipv6.get()), (None, Some(&true)));
}

#[test]
fn a_mode_under_its_other_name_is_no_other_mode() {
    let with = |said: &str, set: &str| {
        let health = json!({"kube-proxy-replacement": {"mode": said}}).to_string();
        let replaced = agent(&health, "{}").facts(&settings(&[("kube-proxy-replacement", set)])).kube_proxy_replacement;
        assert_eq!(replaced.get().map(String::as_str), Some(said));
        replaced.others().len()
    };
    assert_eq!([with("True", "true"), with("True", "strict"), with("False", "disabled")], [0; 3]);
    assert_eq!([with("True", "false"), with("False", "partial")], [1; 2]);
}

#[test]
fn excluded_prefixes_keep_their_length() {
    let net = json!({"IP": "169.254.0.0", "Mask": "//8AAA=="});
    let excluded = configured(&json!({"ExcludeLocalAddresses": [net, "10.0.0.0/8", {"IP": "1.1.1.1"}]}));
    let excluded = excluded.exclude_local_addresses;
    assert_eq!(excluded.get(), Some(&vec!["169.254.0.0/16".to_owned(), "10.0.0.0/8".to_owned()]));
    assert!(matches!(excluded.notes(), [one] if one.contains("1.1.1.1")), "{excluded:?}");
}
