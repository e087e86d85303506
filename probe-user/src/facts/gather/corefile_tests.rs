use super::*;

/// Files by what imports them.
#[derive(Default)]
struct Around(BTreeMap<&'static str, Vec<&'static str>>);

impl Surroundings for Around {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "UPSTREAM").then(|| "8.8.8.8".to_owned())
    }

    fn files(&self, import: &str) -> Result<Vec<String>, String> {
        let files = self.0.get(import).ok_or("No such file")?;
        Ok(files.iter().map(ToString::to_string).collect())
    }
}

fn read(text: &str) -> Parsed {
    parse(text, &Around::default())
}

fn root(parsed: &Parsed) -> Vec<&str> {
    let of_root = parsed.forwards.iter().filter(|forward| forward.zone == ".");
    of_root.flat_map(|forward| &forward.to).map(String::as_str).collect()
}

#[test]
fn talos_corefile_forwards_to_its_resolv_conf() {
    let text = r"
.:53 {
    errors
    health {
        lameduck 5s
    }
    ready
    log . {
        class error
    }
    prometheus :9153
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
        denial 9984 30
    }
    loop
    reload
    loadbalance
}
";
    let parsed = read(text);
    assert_eq!(root(&parsed), ["/etc/resolv.conf"]);
    assert_eq!(parsed.forwards[0].max_concurrent, Some(1000));
    assert_eq!((parsed.forwards[0].policy.as_deref(), parsed.forwards[0].force_tcp), (None, false));
}

#[test]
fn several_targets_schemes_and_options() {
    let parsed = read(
        ". {\n forward . 169.254.116.108 tls://9.9.9.9:853 [fd00::1]:53 {\n  force_tcp\n  policy sequential\n }\n}\n",
    );
    assert_eq!(root(&parsed), ["169.254.116.108", "tls://9.9.9.9:853", "[fd00::1]:53"]);
    assert_eq!((parsed.forwards[0].policy.as_deref(), parsed.forwards[0].force_tcp), (Some("sequential"), true));
    assert_eq!(parsed.doubts, [""; 0]);
}

#[test]
fn each_zone_has_its_own() {
    let text =
        "example.org:53 example.net {\n forward . 10.0.0.1\n}\n.:53 {\n forward consul 10.0.0.2\n forward . 1.1.1.1\n}";
    let parsed = read(text);
    let zones: Vec<_> = parsed.forwards.iter().map(|forward| (forward.zone.as_str(), forward.to[0].as_str())).collect();
    assert_eq!(zones, [("example.org example.net", "10.0.0.1"), ("consul", "10.0.0.2"), (".", "1.1.1.1")]);
    for key in ["dns://.:1053", ":53", ".,", ".", "tls://."] {
        assert_eq!(zone(key), ".", "{key}");
    }
    assert_eq!((zone("example.org"), zone(".."), zone("")), ("example.org".into(), "..".into(), String::new()));
}

#[test]
fn comments_quotes_and_variables() {
    let text = "# all\n. {\n forward . \"{$UPSTREAM}\" {%OTHER%}:53 # {$NO}\n}";
    assert_eq!(root(&read(text)), ["8.8.8.8", ":53"]);
}

#[test]
fn snippets_and_files_are_followed() {
    let text = "(up) {\n forward . 9.9.9.9\n}\nimport /etc/coredns/custom/*.server\n\
                .:53 {\n import up\n import /etc/coredns/custom/*.override\n import /etc/coredns/gone\n}";
    let around = Around(BTreeMap::from([
        ("/etc/coredns/custom/*.server", vec!["corp:53 {\n forward . 10.0.0.9\n}"]),
        ("/etc/coredns/custom/*.override", vec!["forward . 1.1.1.1 {\n max_concurrent 7\n}\n", "log"]),
    ]));
    let parsed = parse(text, &around);
    assert_eq!(root(&parsed), ["9.9.9.9", "1.1.1.1"]);
    assert_eq!((parsed.forwards[0].zone.as_str(), parsed.forwards[2].max_concurrent), ("corp", Some(7)));
    assert_eq!(parsed.doubts, ["import /etc/coredns/gone: No such file"]);
}

#[test]
fn what_imports_itself_ends() {
    let parsed = read("(a) {\n import a\n}\n. {\n import a\n}");
    assert_eq!(parsed.doubts, ["import a: it imports itself"]);
    let around = Around(BTreeMap::from([("x", vec!["import x"])]));
    assert_eq!(parse("import x\n", &around).doubts, ["import x: it is imported too deep"]);
    assert_eq!(parse(". {\n import x\n}", &around).doubts, ["import x: it is imported too deep"]);
}

#[test]
fn a_broken_one_is_doubted() {
    let parsed = read(".:53 {\n forward . 1.1.1.1\n cache {\n");
    assert_eq!(root(&parsed), ["1.1.1.1"]);
    assert!(parsed.doubts[0].contains("2 open, 0 close"), "{:?}", parsed.doubts);
}

proptest::proptest! {
    #[test]
    fn any_text_is_survived(text in "[ \n.{}$%#a-f\"()]{0,80}(import|forward . )?[ \n.{}$%é]{0,40}") {
        let _parsed = read(&text);
    }
}
