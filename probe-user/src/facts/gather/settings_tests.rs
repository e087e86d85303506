use std::os::unix::fs::symlink;

use super::*;

/// As the kubelet mounts a ConfigMap: each key is a link to a file behind `..data`.
pub(crate) fn mounted(directory: &Path, keys: &[(&str, &str)]) {
    fs::create_dir_all(directory.join("..2026_11_22")).unwrap();
    symlink("..2026_11_22", directory.join("..data")).unwrap();
    for (key, value) in keys {
        fs::write(directory.join("..2026_11_22").join(key), format!("{value}\n")).unwrap();
        symlink(Path::new("..data").join(key), directory.join(key)).unwrap();
    }
}

pub(crate) fn named(keys: &[(&str, &str)]) -> Settings {
    let dir = tempfile::tempdir().unwrap();
    mounted(dir.path(), keys);
    Settings::of_directory(dir.path()).unwrap()
}

/// A /proc/PID of files.
fn agent(dir: &Path, arguments: &str, environment: &str, keys: &[(&str, &str)]) -> Process {
    mounted(&dir.join("root/tmp/cilium/config-map"), keys);
    fs::write(dir.join("cmdline"), arguments).unwrap();
    fs::write(dir.join("environ"), environment).unwrap();
    Process { pid: 7, name: "cilium-agent".into(), netns: None, path: dir.to_owned() }
}

/// What an agent was started with.
pub(crate) fn started_with(keys: &[(&str, &str)]) -> Settings {
    let dir = tempfile::tempdir().unwrap();
    Settings::of_agent(&agent(dir.path(), "cilium-agent\0", "", keys)).unwrap()
}

fn said(sets: &[Settings], key: &str) -> Vec<(String, String)> {
    say(sets, key).flatten().map(|(value, source)| (value.to_owned(), source)).collect()
}

#[test]
fn the_agents_directory_is_the_one_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let process = agent(dir.path(), "cilium-agent\0--config-dir=/etc/cilium\0", "", &[("routing-mode", "tunnel")]);
    mounted(&dir.path().join("root/etc/cilium"), &[("routing-mode", "native")]);
    let set = Settings::of_agent(&process).unwrap();
    assert_eq!(set.get("routing-mode"), Some(("native", "routing-mode in /etc/cilium of process 7".into())));
}

#[test]
fn arguments_win_over_the_environment_and_that_over_files() {
    let dir = tempfile::tempdir().unwrap();
    let keys = [("routing-mode", "tunnel"), ("enable-ip-masq-agent", "true"), ("local-max-addr-scope", "200")];
    let process = agent(
        dir.path(),
        "cilium-agent\0--local-max-addr-scope\x00254\0--enable-endpoint-routes\0--debug\0",
        "CILIUM_ROUTING_MODE=native\0CILIUM_LOCAL_MAX_ADDR_SCOPE=host\0HOME=/\0",
        &keys,
    );
    let set = Settings::of_agent(&process).unwrap();
    let value = |key| set.get(key).map(|(value, _)| value.to_owned());
    assert_eq!(value("routing-mode").as_deref(), Some("native"));
    assert_eq!(value("local-max-addr-scope").as_deref(), Some("254"));
    assert_eq!(value("enable-endpoint-routes").as_deref(), Some("true"));
    assert_eq!(value("enable-ip-masq-agent").as_deref(), Some("true"));
}

#[test]
fn a_key_that_was_taken_out_says_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let process = agent(dir.path(), "cilium-agent\0", "", &[("local-max-addr-scope", "254"), ("mtu", "1500")]);
    let all = [Settings::of_agent(&process).unwrap(), named(&[("mtu", "1500")])];
    let values: Vec<_> = said(&all, "local-max-addr-scope").into_iter().map(|(value, _)| value).collect();
    assert_eq!(values, ["254", "252"]);
    assert!(said(&all, "local-max-addr-scope")[1].1.starts_with("default, as "));
    // Of a ConfigMap alone nobody knows what is set elsewhere.
    assert_eq!(said(&all[1..], "local-max-addr-scope"), []);
    assert_eq!(said(&all[..1], "routing-mode")[0].0, "tunnel");
}

#[test]
fn a_link_does_not_lead_out_of_the_agents_root() {
    let dir = tempfile::tempdir().unwrap();
    let process = agent(dir.path(), "cilium-agent\0", "", &[("mtu", "1500")]);
    let secret = dir.path().join("secret");
    fs::write(&secret, "native").unwrap();
    symlink(&secret, dir.path().join("root/tmp/cilium/config-map/routing-mode")).unwrap();
    let set = Settings::of_agent(&process).unwrap();
    assert_eq!(set.get("routing-mode"), None);
    assert!(set.get("mtu").is_some());
}

#[test]
fn a_pipe_and_an_empty_directory_do_not_stop_it() {
    let dir = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(&dir.path().join("routing-mode"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(Settings::of_directory(dir.path()).is_err_and(|why| why.contains("not a file")));
    fs::remove_file(dir.path().join("routing-mode")).unwrap();
    assert!(Settings::of_directory(dir.path()).is_err_and(|why| why.contains("no settings")));
    let all = AllSettings::find(Some(&dir.path().join("missing")), None);
    assert!(all.sets.is_empty() && all.unread[0].contains("No such file"), "{all:?}");
}

#[test]
fn a_config_map_has_no_word_where_something_else_decides() {
    let dir = tempfile::tempdir().unwrap();
    let keys = [("routing-mode", "tunnel"), ("local-max-addr-scope", "252"), ("mtu", "1500")];
    let process = agent(dir.path(), "cilium-agent\0--routing-mode=native\0", "", &keys);
    let data = [("routing-mode", "tunnel"), ("local-max-addr-scope", "254"), ("enable-endpoint-routes", "true")];
    let data = data.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let sets = |per_node: &[String]| {
        [
            Settings::of_agent(&process).unwrap(),
            Settings::of_config_map("ConfigMap kube-system/cilium-config".into(), &data, per_node).unwrap(),
        ]
    };
    let values = |sets: &[Settings], key| said(sets, key).into_iter().map(|(value, _)| value).collect::<Vec<_>>();
    // An argument of the agent wins after a restart too.
    assert_eq!(values(&sets(&[]), "routing-mode"), ["native"]);
    assert_eq!(values(&sets(&[]), "local-max-addr-scope"), ["252", "254"]);
    let source = said(&sets(&[]), "local-max-addr-scope").remove(1).1;
    assert_eq!(source, "local-max-addr-scope in ConfigMap kube-system/cilium-config");
    assert_eq!(values(&sets(&[]), "enable-endpoint-routes"), ["false", "true"]);
    // A CiliumNodeConfig sets it for some nodes.
    assert_eq!(values(&sets(&["local-max-addr-scope".to_owned()]), "local-max-addr-scope"), ["252"]);
    // A switch of which it has no word is not known there, and one that nobody names is as it is by default.
    assert_eq!(switched(&sets(&[]), "enable-endpoint-routes"), [Some(false), Some(true)]);
    assert_eq!(switched(&sets(&["enable-endpoint-routes".to_owned()]), "enable-endpoint-routes"), [Some(false), None]);
    assert_eq!(switched(&sets(&[]), "enable-ipv6-masquerade"), [Some(true), Some(true)]);
}
