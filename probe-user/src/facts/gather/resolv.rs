//! Whom the node asks, and whom the kubelet tells pods to ask (dnsPolicy Default): resolv.conf(5).

use std::path::{Path, PathBuf};

use super::processes::{Process, read_below};
use crate::facts::{Fact, ResolvConf};

const NODES: &str = "/etc/resolv.conf";
/// What Talos points its kubelet to (siderolabs/talos: `constants.PodResolvConfPath`).
const TALOS_PODS: &str = "/system/resolved/resolv.conf";

/// The node's own, below its root directory.
pub(super) fn of_node(root: &Path) -> Fact<ResolvConf> {
    read(root, Path::new(NODES), &root.join("etc/resolv.conf").display().to_string())
}

/// The one pods get: the kubelet's `--resolv-conf`, or `resolvConf` of its `--config`, as it sees it.
pub(super) fn of_pods(kubelet: Option<&Process>, root: &Path) -> Fact<ResolvConf> {
    let Some(kubelet) = kubelet else {
        let talos = TALOS_PODS.trim_start_matches('/');
        let found = read(root, Path::new(TALOS_PODS), &root.join(talos).display().to_string());
        return match found.why() {
            None => found,
            Some(why) => Fact::unavailable(
                format!("no kubelet was seen among the processes, nor {TALOS_PODS} of Talos: {why}"),
                "kubelet",
            ),
        };
    };
    let named = match resolv_conf_of(kubelet) {
        Ok(named) => named.unwrap_or_else(|| NODES.into()), // the kubelet's default
        Err(why) => return Fact::unavailable(why, format!("kubelet (pid {})", kubelet.pid)),
    };
    if named.is_empty() {
        return Fact::known(ResolvConf::default(), "the kubelet's resolvConf is empty");
    }
    let source = format!("{named} of the kubelet (pid {})", kubelet.pid);
    read(&kubelet.path.join("root"), Path::new(&named), &source)
}

fn read(root: &Path, path: &Path, source: &str) -> Fact<ResolvConf> {
    match read_below(root, path) {
        Ok(text) => Fact::known(parse(&text), source),
        Err(e) => Fact::unavailable(e, source),
    }
}

/// What the kubelet was told; `None`: nothing.
fn resolv_conf_of(kubelet: &Process) -> Result<Option<String>, String> {
    let arguments = kubelet.arguments().map_err(|e| format!("the kubelet's arguments: {e}"))?;
    if let Some(path) = flag(&arguments, "resolv-conf") {
        return Ok(Some(path));
    }
    let Some(config) = flag(&arguments, "config") else { return Ok(None) };
    let text = kubelet.read_inside(&PathBuf::from(&config)).map_err(|e| format!("{config} of the kubelet: {e}"))?;
    Ok(setting(&text))
}

/// `--name=value` or `--name value`.
fn flag(arguments: &[String], name: &str) -> Option<String> {
    let mut arguments = arguments.iter().skip(1);
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.strip_prefix("--") else { continue };
        match flag.split_once('=') {
            Some((key, value)) if key == name => return Some(value.to_owned()),
            None if flag == name => return arguments.next().cloned(),
            _ => {}
        }
    }
    None
}

/// `resolvConf` of a KubeletConfiguration: a line of its own in YAML, and where JSON is indented.
fn setting(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim_matches([' ', '\t', '"', '{']) == "resolvConf").then_some(value)
    })?;
    Some(value.trim().trim_end_matches(',').trim_matches(['"', '\'']).to_owned())
}

/// `nameserver` and the last `search` or `domain` of a resolv.conf(5).
pub(super) fn parse(text: &str) -> ResolvConf {
    let mut found = ResolvConf::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => found.nameservers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => found.search = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn kubelet(dir: &Path, arguments: &str) -> Process {
        fs::create_dir_all(dir.join("root/etc/kubernetes")).unwrap();
        fs::create_dir_all(dir.join("root/system/resolved")).unwrap();
        fs::write(dir.join("cmdline"), arguments).unwrap();
        fs::write(dir.join("root/etc/resolv.conf"), "nameserver 127.0.0.53\n").unwrap();
        fs::write(dir.join("root/system/resolved/resolv.conf"), "nameserver 169.254.116.108\n\nsearch example.org\n")
            .unwrap();
        Process { pid: 9, name: "kubelet".into(), netns: None, path: dir.to_owned() }
    }

    #[test]
    fn a_resolv_conf_names_its_servers() {
        let found = parse("# x\nnameserver 169.254.116.108\ndomain x\nsearch a b\nnameserver\n");
        assert_eq!(found.nameservers, ["169.254.116.108"]);
        assert_eq!(found.search, ["a", "b"]);
    }

    #[test]
    fn talos_kubelet_names_its_file_in_its_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let kubelet = kubelet(dir.path(), "kubelet\0--config=/etc/kubernetes/kubelet.yaml\0");
        let config = dir.path().join("root/etc/kubernetes/kubelet.yaml");
        for text in [
            "port: 10250\nresolvConf: /system/resolved/resolv.conf\n",
            "{\n  \"resolvConf\": \"/system/resolved/resolv.conf\",\n}",
        ] {
            fs::write(&config, text).unwrap();
            let found = of_pods(Some(&kubelet), Path::new("/nonexistent"));
            assert_eq!(found.get().map(|conf| conf.nameservers.clone()), Some(vec!["169.254.116.108".to_owned()]));
            assert_eq!(found.source(), "/system/resolved/resolv.conf of the kubelet (pid 9)");
        }
        fs::remove_file(&config).unwrap();
        let found = of_pods(Some(&kubelet), Path::new("/nonexistent"));
        assert!(found.why().is_some_and(|why| why.contains("/etc/kubernetes/kubelet.yaml")), "{found:?}");
    }

    #[test]
    fn the_flag_wins_and_the_default_is_the_nodes() {
        let dir = tempfile::tempdir().unwrap();
        let told = kubelet(dir.path(), "kubelet\0--resolv-conf\0/system/resolved/resolv.conf\0--config=/none\0");
        assert_eq!(of_pods(Some(&told), Path::new("/")).get().map(|c| c.search.len()), Some(1));
        let silent = kubelet(dir.path(), "kubelet\0");
        assert_eq!(
            of_pods(Some(&silent), Path::new("/")).get().map(|c| c.nameservers[0].clone()),
            Some("127.0.0.53".into())
        );
        let none = kubelet(dir.path(), "kubelet\0--resolv-conf=\0");
        assert_eq!(of_pods(Some(&none), Path::new("/")).get(), Some(&ResolvConf::default()));
    }

    #[test]
    fn without_a_kubelet_talos_file_speaks() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let _files = kubelet(dir.path(), "");
        assert_eq!(of_pods(None, &root).get().map(|c| c.nameservers[0].clone()), Some("169.254.116.108".into()));
        let missing = of_pods(None, Path::new("/nonexistent"));
        assert!(missing.why().is_some_and(|why| why.contains("no kubelet")), "{missing:?}");
    }

    #[test]
    fn an_absolute_link_stays_below_the_nodes_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::create_dir_all(dir.path().join("run/systemd")).unwrap();
        fs::write(dir.path().join("run/systemd/resolv.conf"), "nameserver 9.9.9.9\n").unwrap();
        symlink("/run/systemd/resolv.conf", dir.path().join("etc/resolv.conf")).unwrap();
        assert_eq!(of_node(dir.path()).get().map(|conf| conf.nameservers.clone()), Some(vec!["9.9.9.9".to_owned()]));
    }
}
