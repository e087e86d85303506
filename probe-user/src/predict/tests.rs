mod table;

use serde::Deserialize;

use super::*;
use crate::{
    checks::testing::{HOST_DNS, address, default_route, facts, hide, known, link, listener, local_route, pod},
    facts::{Fact, LxcEntry, Masquerade, Pod, PodRole, Route, Rule},
    target::HOST_DNS_V6,
};

fn run(facts: &Facts) -> Prediction {
    predict(facts, &Targets::default())
}

fn cause(prediction: &Prediction) -> Option<&str> {
    prediction.cause.as_deref()
}

/// One row of what real Cilium did.
#[derive(Deserialize)]
struct Row {
    cilium: String,
    routing: String,
    host_routing: String,
    scope: Option<String>,
    external_devices: usize,
    options: String,
    effective_host_routing: String,
    cilium_lxc: String,
    single_device_shortcut: bool,
    udp: bool,
    ended: Ended,
    drop: Option<RowDrop>,
}

#[derive(Deserialize)]
struct RowDrop {
    cilium: u8,
}

impl Row {
    fn all() -> Vec<Self> {
        serde_json::from_str(include_str!("../../../tests/truth/cases.json")).expect("cases.json")
    }

    fn name(&self) -> String {
        let scope = self.scope.as_deref().unwrap_or("absent");
        let devices = self.external_devices;
        format!("{} {} {} {scope} {devices} {}", self.cilium, self.routing, self.host_routing, self.options)
    }

    /// The node of the row, as its settings describe it: neither the map nor the compiled shortcut is told.
    fn settings(&self) -> Facts {
        let mut facts = facts();
        let scope = self.scope.as_deref().map(|scope| match scope {
            "global" => 0,
            "link" => 253,
            "host" => 254,
            other => panic!("scope {other}"),
        });
        facts.network.addresses = known(scope.map(|scope| address("lo", HOST_DNS, scope)).into_iter().collect());
        facts.network.routes =
            known(scope.map(|_| local_route(HOST_DNS)).into_iter().chain([default_route()]).collect());
        let cilium = &mut facts.cilium;
        cilium.version = known(self.cilium.clone());
        cilium.lxc.clear();
        cilium.routing_mode = known(if self.routing == "native" { RoutingMode::Native } else { RoutingMode::Tunnel });
        cilium.host_routing = Fact::unavailable("settings only", "test");
        let mode = if self.host_routing == "Legacy" { HostRouting::Legacy } else { HostRouting::Bpf };
        let iptables = self.options.contains("enable-bpf-masquerade=false");
        cilium.legacy_routing_configured = known(mode == HostRouting::Legacy);
        cilium.masquerade = known(if iptables { Masquerade::Iptables } else { Masquerade::Bpf });
        cilium.endpoint_routes = known(self.options.contains("enable-endpoint-routes=true"));
        cilium.address_scope_max = known(if self.options.contains("local-max-addr-scope=254") { 254 } else { 252 });
        cilium.devices = known((0..self.external_devices).map(|n| format!("eth{n}")).collect());
        facts
    }

    /// The same node with what the agent and its maps said.
    fn measured(&self) -> Facts {
        let mut facts = self.settings();
        let effective = if self.effective_host_routing == "Legacy" { HostRouting::Legacy } else { HostRouting::Bpf };
        let entry = (self.cilium_lxc == "host").then_some(LxcEntry { ifindex: 0, lxc_id: 0, flags: 1 });
        facts.cilium.host_routing = known(effective);
        facts.cilium.lxc.insert(HOST_DNS, known(entry));
        facts.cilium.skip_fib = known(self.single_device_shortcut);
        facts
    }
}

fn agrees_with_truth(facts: impl Fn(&Row) -> Facts) {
    let rows = Row::all();
    assert_eq!(rows.len(), 38, "a row was added or taken away");
    for row in &rows {
        let prediction = run(&facts(row));
        let name = row.name();
        assert_eq!(prediction.ended, Some(row.ended), "{name}: {:#?}", prediction.because);
        assert_eq!(prediction.status, if row.udp { Status::Pass } else { Status::Fail }, "{name}");
        let expected = match row.ended {
            Ended::Answered => None,
            Ended::Leaked if row.scope.is_none() => Some("HDP101"),
            Ended::Leaked => Some("HDP201"),
            Ended::Dropped => {
                assert_eq!(row.drop.as_ref().map(|drop| drop.cilium), Some(169), "{name}");
                Some("HDP202")
            }
            other => panic!("{name}: {other}"),
        };
        assert_eq!(cause(&prediction), expected, "{name}");
    }
}

#[test]
fn agrees_with_truth_from_settings_alone() {
    agrees_with_truth(Row::settings);
}

#[test]
fn agrees_with_truth_from_maps_and_compiled_settings() {
    agrees_with_truth(Row::measured);
}

#[test]
fn releases_between_the_measured_ones() {
    use Ended::{Answered, Dropped, Leaked};
    for (version, tunnel, devices, expected) in [
        ("1.15.3", true, 1, Answered),
        ("1.15.3", false, 1, Leaked),
        ("1.15.3", false, 2, Dropped),
        ("1.16.0", true, 2, Answered),
        ("1.16.3", false, 2, Dropped),
        ("1.17.4", true, 1, Leaked),
        ("1.17.4", true, 2, Dropped),
        ("1.18.1", true, 2, Dropped),
        ("1.18.2", true, 2, Answered),
        ("1.18.2", false, 2, Answered),
        ("1.18.2", false, 1, Leaked),
    ] {
        let mut facts = facts();
        hide(&mut facts);
        facts.cilium.version = known(version.into());
        facts.cilium.routing_mode = known(if tunnel { RoutingMode::Tunnel } else { RoutingMode::Native });
        facts.cilium.devices = known((0..devices).map(|n| format!("eth{n}")).collect());
        let prediction = run(&facts);
        assert_eq!(prediction.ended, Some(expected), "{version} tunnel {tunnel} devices {devices}");
    }
}

#[test]
fn a_newer_cilium_is_unknown_whatever_the_rest() {
    for version in ["1.19.0-pre.1", "1.19.0", "1.20.3"] {
        let mut facts = facts();
        facts.cilium.version = known(version.into());
        facts.cilium.host_routing = known(HostRouting::Legacy);
        let prediction = run(&facts);
        assert_eq!((prediction.status, prediction.ended), (Status::Unknown, None), "{version}");
        assert!(prediction.because.last().unwrap().contains("newer than the newest"), "{:?}", prediction.because);
    }
}

#[test]
fn missing_facts_are_named() {
    let prediction = run(&Facts::default());
    assert_eq!(prediction.status, Status::Unknown);
    assert!(prediction.because[0].contains("addresses are unknown"), "{:?}", prediction.because);

    let mut facts = facts();
    hide(&mut facts);
    facts.cilium.devices = Fact::default();
    assert!(run(&facts).because.last().unwrap().contains("Cilium's devices"));
    facts.cilium.version = Fact::default();
    assert!(run(&facts).because.last().unwrap().contains("Cilium's version"));
    facts.cilium.host_routing = Fact::unavailable("connection refused", "/var/run/cilium/cilium.sock");
    facts.cilium.ipsec = Fact::default();
    let last = run(&facts).because.pop().unwrap();
    assert!(last.contains("connection refused") && last.contains("or else enable-ipsec"), "{last}");
}

#[test]
fn without_cilium_the_kernel_routes() {
    let mut facts = facts();
    facts.cilium = crate::facts::Cilium::default();
    facts.network.links = known(vec![link(1, "lo"), link(2, "cni0")]);
    let prediction = run(&facts);
    assert_eq!(prediction.status, Status::Pass);
    assert!(prediction.because.iter().any(|b| b.contains("no Cilium")), "{:?}", prediction.because);

    facts.network.links = Fact::default();
    assert_eq!(run(&facts).status, Status::Unknown);
}

#[test]
fn delivery_is_not_the_end() {
    let mut facts = facts();
    facts.listeners = known(vec![]);
    assert_eq!(cause(&run(&facts)), Some("HDP103"));
    facts.listeners = known(vec![listener("0.0.0.0:53", Transport::Udp)]);
    assert_eq!(cause(&run(&facts)), Some("HDP104"));
    facts.listeners = Fact::default();
    assert_eq!(run(&facts).status, Status::Unknown);
}

#[test]
fn a_strict_filter_kills_what_would_be_delivered() {
    let mut facts = facts();
    facts.network.rp_filter = known([("lxc1".to_owned(), 1)].into());
    let prediction = run(&facts);
    assert_eq!((cause(&prediction), prediction.ended), (Some("HDP107"), Some(Ended::Dropped)));
    facts.network.rp_filter = known([("lxc1".to_owned(), 2)].into());
    assert_eq!(run(&facts).status, Status::Pass);
}

#[test]
fn an_address_on_a_device_that_is_down_has_no_local_route() {
    let mut facts = facts();
    facts.network.routes = known(vec![default_route()]);
    assert_eq!(cause(&run(&facts)), Some("HDP106"));
    facts.network.routes = known(vec![]);
    assert_eq!(run(&facts).status, Status::Unknown);
}

#[test]
fn node_local_dns_on_a_dummy_depends_on_the_release() {
    let dns = "169.254.20.10".parse().unwrap();
    let targets = Targets { addresses: vec![dns], port: 53 };
    for (version, expected) in [("1.16.5", Some("HDP201")), ("1.17.0", None)] {
        let mut facts = facts();
        facts.network.addresses = known(vec![address("nodelocaldns", dns, 0)]);
        facts.network.routes = known(vec![local_route(dns), default_route()]);
        facts.listeners = known([Transport::Udp, Transport::Tcp].map(|t| listener("169.254.20.10:53", t)).to_vec());
        facts.cilium.version = known(version.into());
        assert_eq!(cause(&predict(&facts, &targets)), expected, "{version}");
    }
}

#[test]
fn the_node_asks_past_cilium() {
    let mut facts = facts();
    hide(&mut facts);
    assert_eq!(cause(&run(&facts)), Some("HDP201"), "pods are cut off");
    facts.network.rp_filter = known([("lxc1".to_owned(), 1)].into());
    let on_host = |facts: &Facts| predict_on_host(facts, &Targets::default());
    let healthy = on_host(&facts);
    assert_eq!((healthy.status, healthy.ended), (Status::Pass, Some(Ended::Answered)), "{:?}", healthy.because);
    facts.cilium.version = known("1.99.0".into());
    assert_eq!(on_host(&facts).status, Status::Pass, "whatever Cilium's version");
    facts.listeners = known(vec![]);
    assert_eq!(cause(&on_host(&facts)), Some("HDP103"));
    facts.network.addresses = known(vec![]);
    assert_eq!(cause(&on_host(&facts)), Some("HDP101"));
}

#[test]
fn the_worst_target_stands() {
    let other = "169.254.20.10".parse().unwrap();
    let prediction = predict(&facts(), &Targets { addresses: vec![HOST_DNS, other], port: 53 });
    assert_eq!(cause(&prediction), Some("HDP101"));
}

#[test]
fn a_rule_before_the_local_table_may_take_the_packet_away() {
    let with = |rules: &[(u32, &str)]| {
        let mut facts = facts();
        let rule = |&(priority, text): &(u32, &str)| Rule { priority, text: text.into() };
        facts.network.rules = known(rules.iter().map(rule).collect());
        run(&facts)
    };
    let moved = (100, "from all lookup local");
    for harmless in [
        &[moved][..],
        &[(9, "from all fwmark 0x200/0xf00 lookup 2004"), moved],
        &[(50, "from all to 10.0.0.0/8 lookup 7"), moved],
        &[(50, "from fd00::/8 lookup 7"), moved],
        &[(512, "from 10.0.0.0/8 lookup 7")],
        &[(10, "from all iif vlan.eth.1 lookup 101"), moved],
        &[(50, "from 10.0.0.0/8 lookup 7"), (20, "from all lookup local"), moved],
    ] {
        assert_eq!(with(harmless).ended, Some(Ended::Answered), "{harmless:?}");
    }
    for unknown in [
        "from 10.0.0.0/8 lookup 7",
        "from all to 169.254.0.0/16 lookup 7",
        "not from all fwmark 0x200 lookup 7",
        "from all iif lxc1 lookup 7",
    ] {
        let prediction = with(&[(50, unknown), moved]);
        assert_eq!(prediction.status, Status::Unknown, "{unknown}");
        assert!(prediction.because.last().unwrap().contains(unknown), "{:?}", prediction.because);
    }
}

#[test]
fn a_local_redirect_policy_may_serve_an_address_that_is_not_there() {
    let mut facts = facts();
    facts.network.addresses = known(Vec::new());
    facts.cilium.lxc.insert(HOST_DNS, known(None));
    assert_eq!(run(&facts).ended, Some(Ended::Leaked));
    facts.cilium.local_redirect_policy = known(true);
    assert_eq!(run(&facts).status, Status::Unknown);
}

#[test]
fn maps_that_cilium_left_behind_are_no_cilium() {
    let mut facts = facts();
    hide(&mut facts);
    facts.cilium.version = Fact::default();
    facts.cilium.host_routing = Fact::default();
    facts.network.links = known(vec![link(1, "lo"), link(2, "eth0")]);
    assert_eq!(run(&facts).ended, Some(Ended::Answered), "the kernel routes");
    facts.network.links = Fact::default();
    assert_eq!(run(&facts).status, Status::Unknown);
}

#[test]
fn strict_filters_of_other_plugins_devices_are_theirs() {
    let filtered = |interface: &str, routed: bool| {
        let mut facts = facts();
        facts.pods = known(vec![Pod { interface: Some(interface.into()), ..pod("app", PodRole::Other) }]);
        facts.network.rp_filter = known([(interface.to_owned(), 1)].into());
        if routed {
            let own = Route { interface: Some(interface.into()), destination: "10.0.0.5/32".into(), ..default_route() };
            facts.network.routes = known(vec![local_route(HOST_DNS), default_route(), own]);
        }
        run(&facts).ended
    };
    assert_eq!(filtered("lxc1", false), Some(Ended::Dropped));
    assert_eq!(filtered("lxc1", true), Some(Ended::Answered), "the way back is the device itself");
    assert_eq!(filtered("cali1", false), Some(Ended::Answered));
}

#[test]
fn a_family_that_pods_do_not_have_is_no_part_of_it() {
    let targets = Targets { addresses: vec![HOST_DNS, HOST_DNS_V6], port: 53 };
    let mut facts = facts();
    facts.network.addresses = known(vec![address("lo", HOST_DNS, 0), address("lo", HOST_DNS_V6, 0)]);
    facts.cilium.lxc.insert(HOST_DNS_V6, known(None));
    assert_eq!(predict(&facts, &targets).ended, Some(Ended::Leaked), "IPv6's");
    facts.cilium.ipv6 = known(false);
    assert_eq!(predict(&facts, &targets).ended, Some(Ended::Answered), "IPv4 alone");
}
