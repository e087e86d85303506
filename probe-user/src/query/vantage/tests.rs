use super::*;
use crate::facts::{Fact, Listener, Transport};

fn netns(inode: u64) -> NetnsId {
    NetnsId { dev: 4, inode, cookie: inode + 1000 }
}

fn pod(name: &str, role: PodRole, inode: u64) -> Pod {
    Pod {
        name: name.into(),
        namespace: Some("kube-system".into()),
        container: None,
        role,
        pid: u32::try_from(inode).unwrap() * 10,
        netns: netns(inode),
        host_network: false,
        interface: Some(format!("lxc{inode}")),
        addresses: Vec::new(),
    }
}

fn facts(pods: Vec<Pod>) -> Facts {
    let mut facts = Facts { pods: Fact::known(pods, "test"), ..Facts::default() };
    facts.network.netns = Fact::known(netns(1), "test");
    facts
}

fn chosen(facts: &Facts, named: &[NamedVantage]) -> Vec<(String, VantageKind)> {
    let vantages = vantages(facts, named, &Targets::default(), Path::new("/proc"));
    vantages.into_iter().map(|vantage| (vantage.name, vantage.kind)).collect()
}

fn names(chosen: &[(String, VantageKind)]) -> Vec<&str> {
    chosen.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn corednss_own_pods_come_first_and_two_are_enough() {
    let facts = facts(vec![
        pod("web", PodRole::Other, 9),
        pod("lxc_health", PodRole::Health, 8),
        pod("coredns-c", PodRole::Coredns, 7),
        pod("coredns-a", PodRole::Coredns, 5),
        pod("coredns-b", PodRole::Coredns, 6),
        // Its pause container: the same namespace.
        pod("coredns-a", PodRole::Other, 5),
    ]);
    let chosen = chosen(&facts, &[]);
    assert_eq!(names(&chosen), ["coredns-a", "coredns-b", "lxc_health", "node", "node@127.0.0.53"]);
    let first = &vantages(&facts, &[], &Targets::default(), Path::new("/host/proc"))[0];
    assert_eq!(first.netns_path.as_deref(), Some(Path::new("/host/proc/50/ns/net")));
    assert_eq!(first.interface.as_deref(), Some("lxc5"));
}

#[test]
fn without_coredns_one_other_pod_stands_in() {
    let facts = facts(vec![pod("web-2", PodRole::Other, 3), pod("web-1", PodRole::Other, 2)]);
    let chosen = chosen(&facts, &[]);
    assert_eq!(names(&chosen), ["web-1", "node", "node@127.0.0.53"]);
    assert_eq!(chosen[0].1, VantageKind::Pod);
}

#[test]
fn a_named_one_replaces_the_other_pod() {
    let facts = facts(vec![pod("web", PodRole::Other, 2)]);
    let named = NamedVantage { netns: Some(netns(2)), ..NamedVantage::new("/run/netns/blue".into(), None) };
    let vantages = vantages(&facts, &[named], &Targets::default(), Path::new("/proc"));
    let first = &vantages[0];
    assert_eq!((first.name.as_str(), first.kind), ("blue", VantageKind::Named));
    assert_eq!(first.interface.as_deref(), Some("lxc2"), "its device is known from the pod");
    assert_eq!(vantages[1].kind, VantageKind::Node);
}

#[test]
fn the_nodes_own_namespace_never_passes_for_a_pods() {
    let mut on_host = pod("coredns-x", PodRole::Coredns, 1);
    on_host.host_network = true;
    let facts = facts(vec![on_host, pod("web", PodRole::Other, 2)]);
    let mine = NamedVantage::new("/proc/1/ns/net".into(), Some("mine".into()));
    let named = NamedVantage { netns: Some(netns(1)), ..mine };
    let chosen = chosen(&facts, &[named]);
    let expected = [
        ("mine", VantageKind::Node),
        ("web", VantageKind::Pod),
        ("coredns-x", VantageKind::CorednsOnHost),
        ("node", VantageKind::Node),
        ("node@127.0.0.53", VantageKind::NodeLoopback),
    ];
    assert_eq!(chosen, expected.map(|(name, kind)| (name.to_owned(), kind)));
}

#[test]
fn the_nodes_loopback_is_talos_or_known_to_listen() {
    let targets = Targets { addresses: vec!["169.254.20.10".parse().unwrap()], port: 53 };
    let mut facts = facts(Vec::new());
    let loopback = |facts: &Facts| {
        vantages(facts, &[], &targets, Path::new("/proc")).iter().any(|v| v.kind == VantageKind::NodeLoopback)
    };
    assert!(!loopback(&facts));
    let listener = |local: &str| Listener {
        local: local.parse().unwrap(),
        transport: Transport::Udp,
        cookie: 1,
        process: None,
        pid: None,
        interface: None,
    };
    facts.listeners = Fact::known(vec![listener("127.0.0.53:5353"), listener("169.254.20.10:53")], "test");
    assert!(!loopback(&facts));
    facts.listeners = Fact::known(vec![listener("0.0.0.0:53")], "test");
    assert!(loopback(&facts));
}

#[test]
fn no_facts_at_all_still_leave_the_node() {
    assert_eq!(names(&chosen(&Facts::default(), &[])), ["node", "node@127.0.0.53"]);
}

#[test]
fn an_unnamed_namespace_is_called_after_its_file() {
    let name = |path: &str| NamedVantage::new(path.into(), None).name;
    assert_eq!(name("/run/netns/blue"), "blue");
    assert_eq!(name("/proc/4711/ns/net"), "/proc/4711/ns/net", "`net` would say nothing");
    assert_eq!(NamedVantage::new("/run/netns/blue".into(), Some("web".into())).name, "web");
}
