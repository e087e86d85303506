//! What the CoreDNS processes of this node forward `.` to: their Corefiles, read through /proc as they see them.

use std::{collections::BTreeMap, path::Path};

use super::{corefile, processes::Process, resolv};
use crate::facts::{Corefile, Fact, Forward, ResolvConf};

/// Reads the Corefile of each process; `names` are the pods they run in.
pub(super) fn read<'a>(running: impl IntoIterator<Item = (&'a Process, String)>, source: &str) -> Fact<Vec<Corefile>> {
    let (mut known, mut gaps) = (Vec::new(), Vec::new());
    for (process, pod) in running {
        match of_process(process, &pod) {
            Ok((corefile, unread)) => {
                gaps.extend(unread.into_iter().map(|what| format!("{pod}: {}: {what}", corefile.path)));
                known.push(corefile);
            }
            Err(why) => gaps.push(format!("{pod}: {why}")),
        }
    }
    match known.is_empty() && !gaps.is_empty() {
        true => Fact::unavailable(gaps.join("; "), source),
        false => Fact::known(known, source).noting(gaps),
    }
}

/// The Corefile, and what it imports that was not read.
fn of_process(process: &Process, pod: &str) -> Result<(Corefile, Vec<String>), String> {
    let arguments = process.arguments().map_err(|e| format!("its arguments: {e}"))?;
    let named = conf(&arguments);
    // CoreDNS looks for `Corefile` in its working directory; images put it into /etc/coredns.
    let paths: Vec<&str> = match &named {
        Some(path) => vec![path],
        None => vec!["Corefile", "/etc/coredns/Corefile"],
    };
    let mut failures = Vec::new();
    for path in paths {
        match process.read_inside(Path::new(path)) {
            Ok(text) => return Ok(read_text(process, pod, path, &text)),
            Err(e) => failures.push(format!("{path}: {e}")),
        }
    }
    Err(failures.join(", "))
}

fn read_text(process: &Process, pod: &str, path: &str, text: &str) -> (Corefile, Vec<String>) {
    // An import is looked for beside the file that has it.
    let directory = Path::new(path).parent().unwrap_or(Path::new(""));
    let around = Inside { process, directory, environment: process.environment().unwrap_or_default() };
    let corefile::Parsed { mut forwards, mut doubts } = corefile::parse(text, &around);
    for forward in &mut forwards {
        let written = std::mem::take(&mut forward.to);
        for target in written {
            if !target.starts_with('/') {
                forward.to.push(target);
                continue;
            }
            match process.read_inside(Path::new(&target)) {
                Ok(text) => forward.to.extend(resolv::parse(&text).nameservers),
                Err(e) => {
                    doubts.push(format!("{target}: {e}"));
                    forward.to.push(target);
                }
            }
        }
    }
    (Corefile { pod: pod.into(), path: path.into(), forwards_to: of_root(&forwards), forwards }, doubts)
}

/// Whom `.` is forwarded to.
fn of_root(forwards: &[Forward]) -> Vec<String> {
    let of_root = forwards.iter().filter(|forward| forward.zone.split(' ').any(|zone| zone == "."));
    of_root.flat_map(|forward| forward.to.clone()).collect()
}

/// How many nameservers the kubelet gives a pod (kubernetes pkg/apis/core/validation, `MaxDNSNameservers`).
const MAX_NAMESERVERS: usize = 3;

/// The Corefile in a ConfigMap, and what is not sure of it; none where it has no such key. `resolv_conf` is what pods
/// with dnsPolicy Default have as /etc/resolv.conf.
pub(super) fn of_config_map(
    name: &str,
    data: &BTreeMap<String, String>,
    resolv_conf: Option<&ResolvConf>,
) -> Option<(Corefile, Vec<String>)> {
    let text = data.get("Corefile")?;
    let corefile::Parsed { mut forwards, mut doubts } = corefile::parse(text, &InConfigMap(data));
    if text.contains("{$") || text.contains("{%") {
        doubts.push("it has variables, whose values the API does not tell".into());
    }
    for forward in &mut forwards {
        let written = std::mem::take(&mut forward.to);
        for target in written {
            match resolv_conf {
                Some(conf) if target == "/etc/resolv.conf" => {
                    doubts.push(format!("{target}: taken for the kubelet's, as with dnsPolicy Default"));
                    forward.to.extend(conf.nameservers.iter().take(MAX_NAMESERVERS).cloned());
                }
                _ => forward.to.push(target),
            }
        }
    }
    let path = format!("ConfigMap {name}");
    Some((Corefile { pod: String::new(), path, forwards_to: of_root(&forwards), forwards }, doubts))
}

/// A ConfigMap knows its own keys alone.
struct InConfigMap<'a>(&'a BTreeMap<String, String>);

impl corefile::Surroundings for InConfigMap<'_> {
    fn variable(&self, _name: &str) -> Option<String> {
        None
    }

    fn files(&self, import: &str) -> Result<Vec<String>, String> {
        let text = self.0.get(import).ok_or("it is not in the ConfigMap")?;
        Ok(vec![text.clone()])
    }
}

/// What a Corefile refers to, as its process sees it.
struct Inside<'a> {
    process: &'a Process,
    directory: &'a Path,
    environment: Vec<String>,
}

impl corefile::Surroundings for Inside<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        let value = self.environment.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value.map(str::to_owned)
    }

    fn files(&self, import: &str) -> Result<Vec<String>, String> {
        const MAX_FILES: usize = 64;
        let path = &self.directory.join(import);
        let read = |path: &Path| self.process.read_inside(path).map_err(|e| e.to_string());
        let (Some(name), Some(directory)) = (path.file_name().and_then(|name| name.to_str()), path.parent()) else {
            return Err("it names no file".into());
        };
        if !name.contains(['*', '?', '[']) {
            return Ok(vec![read(path)?]);
        }
        let pattern = glob::Pattern::new(name).map_err(|e| e.to_string())?;
        // A directory that is not there matches nothing, which CoreDNS only warns of.
        let Ok(entries) = self.process.list_inside(directory) else { return Ok(Vec::new()) };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<_> = names.filter(|name| pattern.matches(name)).take(MAX_FILES + 1).collect();
        names.sort();
        if names.len() > MAX_FILES {
            return Err(format!("it names more than {MAX_FILES} files"));
        }
        names.iter().map(|name| read(&directory.join(name))).collect()
    }
}

/// The value of `-conf`, which Go takes with one dash or two, behind a space or `=`.
fn conf(arguments: &[String]) -> Option<String> {
    let mut arguments = arguments.iter().skip(1);
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else { continue };
        match flag.split_once('=') {
            Some(("conf", path)) => return Some(path.to_owned()),
            None if flag == "conf" => return arguments.next().cloned(),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    /// A /proc/PID of files.
    fn process(dir: &Path, arguments: &str) -> Process {
        for below in ["root/etc/coredns", "cwd"] {
            fs::create_dir_all(dir.join(below)).unwrap();
        }
        fs::write(dir.join("cmdline"), arguments).unwrap();
        fs::write(dir.join("environ"), "PATH=/bin\0UPSTREAM=169.254.116.108\0").unwrap();
        Process { pid: 7, name: "coredns".into(), netns: None, path: dir.to_owned() }
    }

    fn write(dir: &Path, path: &str, text: &str) {
        fs::write(dir.join(path), text).unwrap();
    }

    #[test]
    fn a_file_in_the_pod_is_resolved_to_its_nameservers() {
        let dir = tempfile::tempdir().unwrap();
        let process = process(dir.path(), "/coredns\0-conf\0/etc/coredns/Corefile\0");
        write(dir.path(), "root/etc/coredns/Corefile", ".:53 {\n forward . /etc/resolv.conf {$UPSTREAM}\n}");
        write(dir.path(), "root/etc/resolv.conf", "nameserver 10.5.0.1\n");
        let found = read([(&process, "coredns-1".to_owned())], "/proc");
        let [corefile] = found.get().expect("readable").as_slice() else { panic!("one") };
        assert_eq!(corefile.forwards_to, ["10.5.0.1", "169.254.116.108"]);
        assert_eq!((corefile.pod.as_str(), corefile.path.as_str()), ("coredns-1", "/etc/coredns/Corefile"));
    }

    #[test]
    fn imported_files_are_those_of_the_pod() {
        let dir = tempfile::tempdir().unwrap();
        let process = process(dir.path(), "coredns\0-conf\0/etc/coredns/Corefile\0");
        fs::create_dir_all(dir.path().join("root/etc/coredns/custom")).unwrap();
        let text = ".:53 {\n import /etc/coredns/custom/*.override\n import /none/*.x\n}\nimport custom/*.server\n";
        write(dir.path(), "root/etc/coredns/Corefile", text);
        write(dir.path(), "root/etc/coredns/custom/a.override", "forward . 169.254.116.108 {\n force_tcp\n}\n");
        write(dir.path(), "root/etc/coredns/custom/b.txt", "forward . 6.6.6.6\n");
        write(dir.path(), "root/etc/coredns/custom/c.server", "corp {\n forward . 10.0.0.1\n}\n");
        let found = read([(&process, "pod".to_owned())], "/proc");
        let Fact::Known { value, notes, .. } = found else { panic!("known") };
        assert_eq!(
            (value[0].forwards_to.as_slice(), notes.len()),
            (&["169.254.116.108".to_owned()][..], 0),
            "{notes:?}"
        );
        assert!(value[0].forwards[0].force_tcp);
        assert_eq!(value[0].forwards[1].zone, "corp");
    }

    #[test]
    fn a_link_does_not_lead_out_of_the_pod() {
        let dir = tempfile::tempdir().unwrap();
        let process = process(dir.path(), "coredns\0");
        let secret = dir.path().join("secret");
        fs::write(&secret, ". {\n forward . 6.6.6.6\n}").unwrap();
        symlink(&secret, dir.path().join("root/etc/coredns/Corefile")).unwrap();
        let found = read([(&process, "pod".to_owned())], "/proc");
        assert!(found.why().is_some_and(|why| why.contains("/etc/coredns/Corefile")), "{found:?}");
    }

    #[test]
    fn no_coredns_is_an_empty_list_and_an_import_is_told() {
        assert_eq!(read([], "/proc").get(), Some(&vec![]));
        let dir = tempfile::tempdir().unwrap();
        let process = process(dir.path(), "coredns\0--conf=Corefile\0");
        write(dir.path(), "cwd/Corefile", ". {\n import other\n}");
        let found = read([(&process, "pod".to_owned())], "/proc");
        let Fact::Known { value, notes, .. } = found else { panic!("known") };
        assert!(value[0].forwards_to.is_empty() && notes[0].contains("other"), "{notes:?}");
    }

    #[test]
    fn go_flags_have_four_forms() {
        let conf = |arguments: &[&str]| conf(&arguments.iter().map(|&s| s.to_owned()).collect::<Vec<_>>());
        for arguments in [&["c", "-conf", "/x"][..], &["c", "--conf", "/x"], &["c", "-conf=/x"], &["c", "--conf=/x"]] {
            assert_eq!(conf(arguments).as_deref(), Some("/x"));
        }
        assert_eq!(conf(&["-conf", "-dns.port", "53"]), None);
    }
}
