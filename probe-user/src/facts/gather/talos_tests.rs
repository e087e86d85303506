use std::{fs, time::Instant};

use super::*;
use crate::{facts::TalosAddress, target::HOST_DNS_V4};

const YAML: &str = include_str!("../../../../tests/fixtures/talos/resources-1.12.yaml");
const JSON: &str = include_str!("../../../../tests/fixtures/talos/resources-1.14.json");

fn own(address: &str) -> Vec<InterfaceAddress> {
    let address = address.parse().unwrap();
    vec![InterfaceAddress { interface: "eth0".into(), address, prefix_len: 24, scope: 0, flags: vec![] }]
}

/// The facts of the node that has this address.
fn of(address: &str, text: &str) -> Talos {
    dump(text).facts(&[HOST_DNS_V4], Own { addresses: Some(&own(address)), name: Some("worker-1") })
}

fn talos(text: &str) -> Talos {
    of("10.0.0.2", text)
}

fn dump(text: &str) -> Dump {
    let mut dump = Dump { files: vec!["t.yaml".into()], ..Dump::default() };
    dump.take("t.yaml", text);
    dump
}

fn why<T>(fact: &Fact<T>) -> &str {
    fact.why().expect("it cannot be known")
}

#[test]
fn yaml_of_1_12() {
    let talos = talos(YAML);
    assert_eq!(talos.node.get().map(String::as_str), Some("10.0.0.2"));
    let host_dns = talos.host_dns.get().unwrap();
    assert!(host_dns.enabled);
    assert_eq!(host_dns.service_addresses, ["169.254.116.108"]);
    assert_eq!(host_dns.listen_addresses, ["127.0.0.53:53", "169.254.116.108:53"]);
    let scopes = |fact: &Fact<Vec<TalosAddress>>| {
        let all = fact.get().unwrap().iter();
        all.map(|a| (a.layer.clone().unwrap_or_default(), a.scope.clone(), a.merged)).collect::<Vec<_>>()
    };
    assert_eq!(scopes(&talos.addresses), [(String::new(), "global".to_owned(), false)]);
    assert_eq!(
        scopes(&talos.address_specs),
        [
            ("configuration".to_owned(), "global".to_owned(), true),
            ("operator".to_owned(), "host".to_owned(), false),
            ("configuration".to_owned(), "global".to_owned(), false),
        ]
    );
    assert_eq!(talos.resolvers.get().unwrap(), &["1.1.1.1", "8.8.8.8"]);
    let upstreams = talos.upstreams.get().unwrap();
    assert_eq!(
        upstreams.iter().map(|u| (u.address.as_str(), u.healthy)).collect::<Vec<_>>(),
        [("1.1.1.1:53", true), ("8.8.8.8:53", false)]
    );
    assert_eq!(talos.caches.get().map(Vec::len), Some(3));
}

#[test]
fn json_of_1_14_with_ipv6() {
    let talos = talos(JSON);
    let host_dns = talos.host_dns.get().unwrap();
    assert_eq!(host_dns.service_addresses, ["169.254.116.108", "fd54:616c:6f73:0:204f:5320:444e:531"]);
    assert_eq!(talos.upstreams.get().unwrap()[0].address, "1.1.1.1:53");
    assert_eq!(talos.resolvers.get().unwrap(), &["1.1.1.1"]);
    assert_eq!(talos.addresses.get().unwrap()[0].scope, "host");
    assert!(why(&talos.caches).contains("dnsresolvecaches"), "{:?}", talos.caches);
}

#[test]
fn two_outputs_in_one_file_meet_without_a_separator() {
    let resolver = "node: 10.0.0.2\nmetadata:\n    type: ResolverStatuses.net.talos.dev\n    id: resolvers\n\
                    spec:\n    dnsServers:\n        - 9.9.9.9\n";
    let upstream = "node: 10.0.0.2\nmetadata:\n    type: DNSUpstreams.net.talos.dev\n    id: 9.9.9.9\n\
                    spec:\n    addr: 9.9.9.9:53\n    healthy: \"true\"\n";
    let talos = talos(&format!("{resolver}{upstream}"));
    assert_eq!(talos.resolvers.get().unwrap(), &["9.9.9.9"]);
    assert!(talos.upstreams.get().unwrap()[0].healthy);
}

#[test]
fn a_broken_document_is_told_and_costs_only_itself() {
    let broken = YAML.replace("healthy: \"false\"", "healthy: [maybe]").replace("dnsServers:", "dnsServers: {");
    let talos = talos(&broken);
    let Fact::Known { value, notes, .. } = &talos.upstreams else { panic!("{:?}", talos.upstreams) };
    assert_eq!(value.len(), 1);
    assert!(notes.iter().any(|why| why.contains("DNSUpstreams.net.talos.dev 8.8.8.8): spec.healthy")), "{notes:?}");
    let why = why(&talos.resolvers);
    assert!(why.contains("t.yaml: document 6: behind line "), "{why}");
    assert!(talos.host_dns.get().is_some());
}

#[test]
fn other_nodes_are_told_apart() {
    let two = format!("{YAML}---\n{}", YAML.replace("10.0.0.2", "10.0.0.3").replace("scope: global", "scope: host"));
    let talos = talos(&two);
    assert_eq!(talos.addresses.get().unwrap()[0].scope, "global");
    let other = of("10.0.0.9", &two);
    assert!(why(&other.host_dns).contains("10.0.0.2, 10.0.0.3"), "{:?}", other.host_dns);
    assert_eq!(other.other_nodes, ["10.0.0.2", "10.0.0.3"]);
    assert_eq!(talos.other_nodes, [""; 0]);
}

#[test]
fn one_that_is_not_this_node_is_not_taken_for_it() {
    let alone = of("10.0.0.9", YAML);
    assert!(why(&alone.addresses).contains("known by none of these"), "{:?}", alone.addresses);
    assert_eq!(alone.other_nodes, ["10.0.0.2"]);
    // By a name: talosctl's endpoint may call it as it does not call itself. Of two its own name is the one.
    let named = |name: &str| YAML.replace("10.0.0.2", name);
    assert_eq!(of("10.0.0.9", &named("lb.example")).node.get().map(String::as_str), Some("lb.example"));
    let two = format!("{}---\n{}", named("worker-2"), named("worker-1"));
    assert_eq!(of("10.0.0.9", &two).node.get().map(String::as_str), Some("worker-1"));
    // Where the node's addresses are not known, nobody is another.
    let blind = dump(YAML).facts(&[HOST_DNS_V4], Own::default());
    assert_eq!(blind.node.get().map(String::as_str), Some("10.0.0.2"));
}

#[test]
fn a_node_behind_a_translation_is_known_by_its_addresses() {
    let status = |address: &str| {
        format!(
            "node: 203.0.113.5\nmetadata:\n  namespace: network\n  type: AddressStatuses.net.talos.dev\n  id: \
             eth0/{address}\nspec:\n  address: {address}\n  linkName: eth0\n  scope: global\n---\n"
        )
    };
    let got = |address: &str| of("10.0.0.9", &(status(address) + &YAML.replace("10.0.0.2", "203.0.113.5"))).node;
    assert_eq!(got("10.0.0.9/24").get().map(String::as_str), Some("203.0.113.5"));
    assert_eq!(got("10.0.0.8/24").get(), None, "another node's");
}

#[test]
fn of_two_settings_this_nodes_counts_and_both_are_kept() {
    let resolver = |node: &str, server: &str| {
        format!(
            "{node}metadata: {{type: ResolverStatuses.net.talos.dev, id: resolvers}}\nspec: {{dnsServers: [{server}]}}\n"
        )
    };
    let (own, nobody) = (|server: &str| resolver("node: 10.0.0.2\n", server), resolver("", "9.9.9.9"));
    let one = talos(&format!("{}---\n{nobody}", own("1.1.1.1")));
    assert_eq!(one.resolvers.get().unwrap(), &["1.1.1.1"]);
    let two = talos(&format!("{}---\n{}---\n{}", own("1.1.1.1"), own("8.8.8.8"), own("8.8.8.8")));
    assert_eq!(two.resolvers.get().unwrap(), &["8.8.8.8"]);
    assert!(matches!(two.resolvers.others(), [one] if one.contains("1.1.1.1")), "{:?}", two.resolvers);
}

#[test]
fn resolvers_have_their_protocol() {
    let with = |servers: &str| {
        let head = "node: 10.0.0.2\nmetadata: {type: ResolverStatuses.net.talos.dev, id: resolvers}\n";
        talos(&format!("{head}spec: {{dnsServers: [9.9.9.9], nameServers: {servers}}}\n")).resolvers
    };
    let both = with("[{addr: 1.1.1.1, protocol: DoT, tlsServerName: one.one}, {addr: 8.8.8.8, protocol: Do53}]");
    assert_eq!(both.get().unwrap(), &["DoT 1.1.1.1 (one.one)", "8.8.8.8"]);
    assert_eq!(with("[]").get().unwrap(), &["9.9.9.9"]);
    assert!(why(&with("[{protocol: DoT}]")).contains("spec.nameServers.addr"), "{:?}", with("[{protocol: DoT}]"));
    assert!(why(&with("7")).contains("spec.nameServers is not a list"));
}

#[test]
fn secrets_are_not_kept_and_not_told() {
    let secret = "metadata: {type: MachineConfigs.config.talos.dev, id: v1alpha1}\nspec: |\n    token: hunter2\n";
    let dump = dump(&format!("{secret}---\nmetadata: {{type: 7, id: hunter2}}\nspec: *hunter2\n"));
    assert!(dump.resources.is_empty() && dump.gaps.len() == 1, "{dump:?}");
}

#[test]
fn bombs_end_soon_and_say_why() {
    let deep = format!("metadata: {}", "[".repeat(100_000));
    let wide = format!("metadata: [{}]", "1,".repeat(200_000));
    let aliases = "a: &a [x,x]\nb: &b [*a,*a]\nmetadata: *b\n".to_owned();
    let objects = "{\"metadata\":".repeat(5_000);
    for text in [deep, wide, aliases, objects, "\0\u{1}".repeat(1000), "---\n".repeat(100_000)] {
        let started = Instant::now();
        let dump = dump(&text);
        assert!(dump.resources.is_empty() && !dump.gaps.is_empty(), "{:.40}", text);
        assert!(started.elapsed().as_secs() < 2, "{:.40} took {:?}", text, started.elapsed());
    }
}

#[test]
fn files_that_are_none_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(path("binary"), [0xff, 0xfe, 0]).unwrap();
    fs::write(path("empty"), "").unwrap();
    File::create(path("huge")).unwrap().set_len(MAX_FILE + 1).unwrap();
    for (name, expected) in [
        ("missing", "No such file"),
        ("pipe", "not a file"),
        ("binary", "not text"),
        ("empty", "no resources"),
        ("huge", "longer than 16 MiB"),
    ] {
        let talos = Dump::read(&[path(name)]).facts(&[HOST_DNS_V4], Own::default());
        assert!(matches!(talos.unread.as_slice(), [one] if one.contains(name)), "{name}: {:?}", talos.unread);
        assert!(why(&talos.host_dns).contains(expected), "{name}: {:?}", talos.host_dns);
        assert!(why(&talos.host_dns).contains(name), "{name}: {:?}", talos.host_dns);
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_survived(text in "(node: |metadata:|spec: |---\n|[ \n{}\\[\\]:&*!|>'\"a-f0-9-]){0,60}") {
        let _facts = talos(&text);
    }

    #[test]
    fn a_dump_cut_anywhere_is_survived(at in 0..YAML.len()) {
        if YAML.is_char_boundary(at) {
            let _facts = talos(&YAML[..at]);
        }
    }
}
