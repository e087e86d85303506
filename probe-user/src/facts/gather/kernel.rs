//! The node itself: its name, kernel, and what the probe may do on it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{Sources, processes::read_text};
use crate::facts::{Fact, Kernel};

pub(super) fn read(sources: &Sources) -> Kernel {
    Kernel {
        node_name: node_name(&sources.proc_root),
        release: text(&sources.proc_root.join("sys/kernel/osrelease")),
        os: os_release(sources, Some("/etc/os-release"), "PRETTY_NAME", |text| value_of(text, "PRETTY_NAME")),
        // A container's own says nothing about the node.
        talos: os_release(sources, None, "ID", |text| {
            let id = value_of(text, "ID")?;
            Some((id == "talos").then(|| value_of(text, "VERSION_ID").unwrap_or_else(|| "unknown".into())))
        }),
        lockdown: lockdown(sources),
        btf: match fs::metadata(&sources.btf) {
            Ok(_) => Fact::known(sources.btf.clone(), sources.btf.display().to_string()),
            Err(e) => Fact::unavailable(
                format!("{e}; the kernel needs CONFIG_DEBUG_INFO_BTF"),
                sources.btf.display().to_string(),
            ),
        },
        cgroup_root: cgroup_root(sources),
        missing_capabilities: missing_capabilities(&sources.proc_root),
    }
}

fn text(path: &Path) -> Fact<String> {
    match read_text(path, 4096) {
        Ok(text) => Fact::known(text.trim().to_owned(), path.display().to_string()),
        Err(e) => Fact::unavailable(e, path.display().to_string()),
    }
}

/// `NODE_NAME` is what the DaemonSet sets from `spec.nodeName`; with hostNetwork the host name is the node's too.
fn node_name(proc_root: &Path) -> Fact<String> {
    let host = text(&proc_root.join("sys/kernel/hostname"));
    match std::env::var("NODE_NAME") {
        Ok(name) if !name.is_empty() => {
            let differs = host.get().filter(|host| !is_one_name(host, &name)).map(|host| format!("host name {host}"));
            let mut told = Fact::known(name, "NODE_NAME");
            differs.into_iter().for_each(|differs| told.differs(differs));
            told
        }
        _ => host,
    }
}

/// The same, or the same with the domain and without. The kubelet writes it in small letters.
fn is_one_name(a: &str, b: &str) -> bool {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    let (short, long) = if a.len() < b.len() { (&a, &b) } else { (&b, &a) };
    long.strip_prefix(short.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// What the node's os-release(5) says, else the file `otherwise`.
fn os_release<T>(sources: &Sources, otherwise: Option<&str>, key: &str, read: impl Fn(&str) -> Option<T>) -> Fact<T> {
    let root = sources.node_root();
    let mut last = None;
    let paths = [root.join("etc/os-release"), root.join("usr/lib/os-release")];
    for path in paths.into_iter().chain(otherwise.map(PathBuf::from)) {
        let found = text(&path);
        if let Some(value) = found.get().and_then(|text| read(text)) {
            return Fact::known(value, path.display().to_string());
        }
        last = Some(match found {
            Fact::Known { source, .. } => Fact::unavailable(format!("it has no {key}"), source),
            Fact::Unavailable { why, source } => Fact::unavailable(why, source),
        });
    }
    last.unwrap_or_default()
}

fn value_of(os_release: &str, key: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

fn lockdown(sources: &Sources) -> Fact<String> {
    let file = Path::new("/sys/kernel/security/lockdown");
    let path = match &sources.host_root {
        Some(root) if !file.exists() => root.join("sys/kernel/security/lockdown"),
        _ => file.to_owned(),
    };
    if let Ok(content) = read_text(&path, 256) {
        return match selected(&content) {
            Some(mode) => Fact::known(mode, path.display().to_string()),
            None => Fact::unavailable(format!("unexpected content {content:?}"), path.display().to_string()),
        };
    }
    // securityfs is mounted, and the kernel has no lockdown in it.
    if path.parent().is_some_and(|dir| dir.join("lsm").exists()) {
        return Fact::known("none".into(), format!("{} is not there", path.display()));
    }
    let cmdline = sources.proc_root.join("cmdline");
    let asked = read_text(&cmdline, 64 << 10).unwrap_or_default();
    match asked.split_whitespace().rev().find_map(|word| word.strip_prefix("lockdown=")) {
        Some(mode) => Fact::known(mode.to_owned(), cmdline.display().to_string()),
        None => Fact::unavailable("securityfs is not mounted", path.display().to_string()),
    }
}

/// The word in brackets of `none [integrity] confidentiality`.
fn selected(content: &str) -> Option<String> {
    let (_, rest) = content.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// Directory inode of the hierarchy's real root (`cgroup_create_root`, kernel/cgroup/cgroup.c: kernfs starts at 1).
const ROOT_INODE: u64 = 1;

fn cgroup_root(sources: &Sources) -> Fact<PathBuf> {
    if let Some(path) = &sources.cgroup_root {
        let source = format!("{} (named)", path.display());
        return match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => Fact::known(path.clone(), source),
            Ok(_) => Fact::unavailable("it is not a directory", source),
            Err(e) => Fact::unavailable(e, source),
        };
    }
    let host = sources.node_root();
    let mut seen = Vec::new();
    for (table, root) in [("self/mountinfo", PathBuf::from("/")), ("1/mountinfo", host)] {
        let table = sources.proc_root.join(table);
        for mount in cgroup2_mounts(&read_text(&table, 4 << 20).unwrap_or_default()) {
            let path = root.join(mount.strip_prefix("/").unwrap_or(&mount));
            match fs::metadata(&path) {
                Ok(meta) if meta.ino() == ROOT_INODE => return Fact::known(path, table.display().to_string()),
                Ok(_) => seen.push(format!("{} is not the root of the hierarchy", path.display())),
                Err(e) => seen.push(format!("{}: {e}", path.display())),
            }
        }
    }
    let seen = if seen.is_empty() { "no cgroup v2 is mounted".into() } else { seen.join("; ") };
    Fact::unavailable(format!("{seen}; name it with --cgroup-root"), "mountinfo")
}

/// Mount points of cgroup2 in a mountinfo (proc_pid_mountinfo(5)): the fifth field, where the first after ` - ` is the
/// type. Spaces in them are written as `\040`.
fn cgroup2_mounts(mountinfo: &str) -> Vec<PathBuf> {
    let mount = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then_some(())?;
        Some(PathBuf::from(mount.split(' ').nth(4)?.replace("\\040", " ")))
    };
    mountinfo.lines().filter_map(mount).collect()
}

/// Bits of capabilities (include/uapi/linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

fn missing_capabilities(proc_root: &Path) -> Fact<Vec<String>> {
    let path = proc_root.join("self/status");
    let status = read_text(&path, 64 << 10).unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(held) = held.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()) else {
        return Fact::unavailable("it has no CapEff", path.display().to_string());
    };
    // A user namespace's root holds every capability, over nothing that the node owns.
    let map = read_text(&proc_root.join("self/uid_map"), 4096).unwrap_or_default();
    if !map.is_empty() && map.split_whitespace().ne(["0", "0", "4294967295"]) {
        let why = "it runs in a user namespace: its capabilities do not reach the node";
        return Fact::known(missing(0), proc_root.join("self/uid_map").display().to_string()).noting([why.to_owned()]);
    }
    Fact::known(missing(held), path.display().to_string())
}

/// What is needed and not in the set. CAP_SYS_ADMIN is for entering namespaces, and does for BPF and tracing too.
fn missing(held: u64) -> Vec<String> {
    let has = |bit: u32| held & (1 << bit) != 0;
    let admin = has(CAP_SYS_ADMIN);
    let needed = [
        ("CAP_SYS_ADMIN", admin),
        ("CAP_BPF", admin || has(CAP_BPF)),
        ("CAP_PERFMON", admin || has(CAP_PERFMON)),
        ("CAP_NET_ADMIN", has(CAP_NET_ADMIN)),
        ("CAP_SYS_PTRACE", has(CAP_SYS_PTRACE)),
    ];
    needed.into_iter().filter(|(_, held)| !held).map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lockdown_in_brackets_is_the_one() {
        assert_eq!(selected("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(selected("what"), None);
    }

    #[test]
    fn talos_says_its_name_and_version() {
        let read = |text: &str| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("etc")).unwrap();
            fs::write(dir.path().join("etc/os-release"), text).unwrap();
            read(&Sources { host_root: Some(dir.path().to_owned()), ..Sources::default() })
        };
        let talos = read("NAME=\"Talos\"\nID=talos\nVERSION_ID=v1.11.2\nPRETTY_NAME=\"Talos (v1.11.2)\"\n");
        assert_eq!(talos.os.get().map(String::as_str), Some("Talos (v1.11.2)"));
        assert_eq!(talos.talos.get(), Some(&Some("v1.11.2".into())));
        let debian = read("ID=debian\nVERSION_ID='12'\nPRETTY_NAME=\"Debian\"\n");
        assert_eq!(debian.talos.get(), Some(&None));
    }

    #[test]
    fn a_domain_makes_no_other_name() {
        for (a, b, same) in [("n1", "n1", true), ("n1", "n1.corp", true), ("n1.corp", "n1", true), ("n1", "n12", false)]
        {
            assert_eq!(is_one_name(a, b), same, "{a} {b}");
        }
    }

    #[test]
    fn only_cgroup2_counts() {
        let mountinfo = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw\n\
                         41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_mounts(mountinfo), [PathBuf::from("/sys/fs/cgroup/uni fied")]);
    }

    #[test]
    fn a_cgroup_below_the_root_is_not_taken_for_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("self")).unwrap();
        let mountinfo = format!("41 31 0:38 /../.. {} rw - cgroup2 cgroup2 rw\n", dir.path().display());
        fs::write(dir.path().join("self/mountinfo"), mountinfo).unwrap();
        let sources = Sources { proc_root: dir.path().to_owned(), ..Sources::default() };
        let why = cgroup_root(&sources).why().map(str::to_owned).expect("its inode is not 1");
        assert!(why.contains("not the root of the hierarchy") && why.contains("--cgroup-root"), "{why}");
    }

    #[test]
    fn sys_admin_stands_for_bpf() {
        assert_eq!(missing(u64::MAX), [""; 0]);
        assert_eq!(missing(!(1 << CAP_BPF) & !(1 << CAP_PERFMON)), [""; 0]);
        assert_eq!(missing(0).len(), 5);
        assert_eq!(missing(!(1 << CAP_NET_ADMIN)), ["CAP_NET_ADMIN"]);
    }
}
