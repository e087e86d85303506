use super::*;
use crate::checks::testing;

fn config_map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    let data = data.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    ConfigMap { name: name.into(), data }
}

fn with_corefile(text: &str) -> Found {
    let corefile = Fact::known(config_map("kube-system/coredns", &[("Corefile", text)]), SOURCE);
    Found { corefile, ..Found::unknown("not asked", "") }
}

fn pods(names: &[&str]) -> Fact<Vec<Pod>> {
    testing::known(names.iter().map(|name| testing::pod(name, PodRole::Coredns)).collect())
}

fn read(pod: &str, to: &str) -> Corefile {
    Corefile {
        pod: pod.into(),
        path: "/etc/coredns/Corefile".into(),
        forwards_to: vec![to.into()],
        forwards: Vec::new(),
    }
}

#[test]
fn the_config_map_stands_in_for_a_corefile_that_cannot_be_read() {
    let found = with_corefile(".:53 {\n forward . /etc/resolv.conf\n}");
    let mut coredns = Fact::unavailable("coredns-1: permission denied", "/proc");
    let resolv_conf = ResolvConf { nameservers: vec!["169.254.116.108".into()], ..ResolvConf::default() };
    found.complete(&mut coredns, &pods(&["coredns-1"]), &testing::known(resolv_conf));
    let Fact::Known { value, source, notes, .. } = coredns else { panic!("known") };
    assert_eq!((value[0].pod.as_str(), value[0].path.as_str()), ("coredns-1", "ConfigMap kube-system/coredns"));
    assert_eq!(value[0].forwards_to, ["169.254.116.108"]);
    assert_eq!(source, SOURCE);
    assert!(notes[0].contains("permission denied") && notes[1].contains("dnsPolicy Default"), "{notes:?}");
}

#[test]
fn corefiles_that_differ_are_both_kept() {
    let found = with_corefile(".:53 {\n forward . 1.1.1.1\n}");
    let mut coredns = Fact::known(vec![read("coredns-1", "169.254.116.108")], "/proc");
    found.complete(&mut coredns, &pods(&["coredns-1"]), &Fact::default());
    let Fact::Known { value, others, .. } = &coredns else { panic!("known") };
    assert_eq!(value, &[read("coredns-1", "169.254.116.108")]);
    assert_eq!(others, &["ConfigMap kube-system/coredns: forwards to 1.1.1.1"]);

    // What was read is whole: nothing is missing from it (HDP303).
    assert_eq!(coredns.notes(), &[""; 0]);

    let mut same = Fact::known(vec![read("coredns-1", "1.1.1.1")], "/proc");
    found.complete(&mut same, &pods(&["coredns-1"]), &Fact::default());
    assert_eq!(same, Fact::known(vec![read("coredns-1", "1.1.1.1")], "/proc"));
}

/// Where the kubelet is no process of its own (k3s), nobody knows which file `/etc/resolv.conf` is.
#[test]
fn a_file_that_was_not_resolved_is_not_compared() {
    let found = with_corefile(".:53 {\n forward . /etc/resolv.conf\n}");
    let own = || Fact::known(vec![read("coredns-1", "10.5.0.1")], "/proc");
    let mut coredns = own();
    found.complete(&mut coredns, &pods(&["coredns-1"]), &Fact::unavailable("no kubelet", "kubelet"));
    assert_eq!(coredns, own());
    let unresolved = || Fact::known(vec![read("coredns-1", "/etc/resolv.conf")], "/proc");
    let mut coredns = unresolved();
    with_corefile(".:53 {\n forward . 1.1.1.1\n}").complete(&mut coredns, &pods(&["coredns-1"]), &Fact::default());
    assert_eq!(coredns, unresolved());
}

#[test]
fn a_pod_gets_three_nameservers_of_the_kubelets() {
    let found = with_corefile(".:53 {\n forward . /etc/resolv.conf\n}");
    let servers = |number: u8| (1..=number).map(|n| format!("10.5.0.{n}")).collect::<Vec<_>>();
    let own = || Fact::known(vec![Corefile { forwards_to: servers(3), ..read("coredns-1", "") }], "/proc");
    let mut coredns = own();
    let resolv_conf = ResolvConf { nameservers: servers(5), ..ResolvConf::default() };
    found.complete(&mut coredns, &pods(&["coredns-1"]), &testing::known(resolv_conf));
    assert_eq!(coredns, own());
}

#[test]
fn what_a_config_map_cannot_tell_is_a_doubt_and_no_coredns_gets_no_corefile() {
    let found = with_corefile(".:53 {\n import custom/*.override\n import snippet\n forward . {$UPSTREAM}\n}");
    let mut coredns = Fact::known(Vec::new(), "/proc");
    found.complete(&mut coredns, &pods(&[]), &Fact::default());
    assert_eq!(coredns.get(), Some(&Vec::new()));
    found.complete(&mut coredns, &pods(&["coredns-1"]), &Fact::default());
    let Fact::Known { value, notes, .. } = &coredns else { panic!("known") };
    assert_eq!(value.len(), 1);
    assert!(notes.iter().any(|doubt| doubt.contains("variables")), "{notes:?}");
    assert!(notes.iter().any(|doubt| doubt.contains("import custom/*.override")), "{notes:?}");
}

#[test]
fn an_empty_config_map_is_no_settings() {
    let map = config_map("kube-system/cilium-config", &[]);
    let config = CiliumConfig { map, per_node: Vec::new(), unread: Some("CiliumNodeConfigs: 403".into()) };
    let found = Found { cilium_config: Fact::known(config, SOURCE), ..Found::unknown("not asked", "") };
    let mut all = settings::AllSettings::default();
    found.add_to(&mut all);
    assert!(all.sets.is_empty());
    assert!(all.unread[0].ends_with("has no settings in it"), "{all:?}");
    assert_eq!(all.unread[1], "CiliumNodeConfigs: 403");
}

#[test]
fn where_node_configs_were_not_read_every_word_of_the_config_map_says_so() {
    let place = |unread: Option<&str>| {
        let map = config_map("kube-system/cilium-config", &[("routing-mode", "native")]);
        let config = CiliumConfig { map, per_node: Vec::new(), unread: unread.map(str::to_owned) };
        let found = Found { cilium_config: Fact::known(config, SOURCE), ..Found::unknown("not asked", "") };
        let mut all = settings::AllSettings::default();
        found.add_to(&mut all);
        let said = settings::say(&all.sets, "routing-mode").flatten().next().expect("it has it");
        said.1
    };
    assert_eq!(place(None), "routing-mode in ConfigMap kube-system/cilium-config");
    assert!(place(Some("403")).contains("a CiliumNodeConfig may say otherwise here"), "{}", place(Some("403")));
}

#[cfg(not(feature = "kubernetes"))]
#[test]
fn without_the_feature_it_says_so() {
    let facts = Found::ask(&Cluster::default()).facts();
    assert_eq!(facts.coredns_pods, Fact::unavailable("built without the kubernetes feature", ""));
}

#[cfg(feature = "kubernetes")]
#[path = "server_tests.rs"]
mod server;
