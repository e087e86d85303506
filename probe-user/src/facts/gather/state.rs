//! What Cilium left in files: settings compiled into an endpoint's program, and pins of its attachments.

use std::{fs, path::Path};

use super::processes::read_text;
use crate::facts::{Fact, HostRouting};

/// Whether endpoints are compiled with the one-device shortcut: `ENABLE_SKIP_FIB` in `<endpoint id>/ep_config.h`
/// (cilium pkg/datapath/linux/config/config.go, `writeTemplateConfig`). The host's own endpoint is among them, says
/// `HOST_ENDPOINT` and has the shortcut with endpoint routes too: no pod's packets pass it. The agent's state is in
/// `state` below its run directory.
pub(super) fn skip_fib(state_dir: &Path) -> Fact<bool> {
    const MAX_ENDPOINTS: usize = 4096;
    let mut why = format!("{} has no pod's ep_config.h", state_dir.display());
    for dir in [state_dir.to_owned(), state_dir.join("state")] {
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if dir == state_dir => {
                why = format!("{e}; mount the agent's /var/run/cilium here");
                continue;
            }
            Err(_) => continue,
        };
        // Names that are not a number are regenerations under way (`123_next`).
        let numbers = entries.flatten().filter(|e| e.file_name().to_str().is_some_and(|n| n.parse::<u16>().is_ok()));
        let files = numbers.take(MAX_ENDPOINTS).map(|entry| entry.path().join("ep_config.h"));
        let headers = files.filter_map(|path| read_text(&path, 1 << 20).ok());
        let pods = headers.filter(|header| !defines(header, "HOST_ENDPOINT"));
        let read: Vec<bool> = pods.map(|header| defines(&header, "ENABLE_SKIP_FIB")).collect();
        if read.is_empty() {
            continue;
        }
        let with = read.iter().filter(|&&skips| skips).count();
        let source = dir.join("*/ep_config.h").display().to_string();
        return match with {
            0 => Fact::known(false, source),
            all if all == read.len() => Fact::known(true, source),
            some => {
                let why = format!("{some} of {} endpoints have it: a regeneration is under way, or stuck", read.len());
                Fact::unavailable(why, source)
            }
        };
    }
    Fact::unavailable(why, state_dir.display().to_string())
}

/// BPF, and the header that says so: `ENABLE_HOST_ROUTING` in `globals/node_config.h`. Without the define nothing is said:
/// a release that compiles it no more would look the same.
pub(super) fn host_routing(state_dir: &Path) -> Option<(String, HostRouting)> {
    let headers = [state_dir.to_owned(), state_dir.join("state")].map(|dir| dir.join("globals/node_config.h"));
    let read = headers.into_iter().find_map(|path| Some((read_text(&path, 1 << 20).ok()?, path)));
    let (_, path) = read.filter(|(header, _)| defines(header, "ENABLE_HOST_ROUTING"))?;
    Some((path.display().to_string(), HostRouting::Bpf))
}

fn defines(header: &str, name: &str) -> bool {
    header.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("#define") && words.next() == Some(name) && words.next() != Some("0")
    })
}

/// External devices by the pins of what is attached to them (tcx; `cilium/devices/IF/links`).
pub(super) fn pinned_devices(bpf_root: &Path) -> Fact<Vec<String>> {
    let dir = bpf_root.join("cilium/devices");
    let source = dir.display().to_string();
    match fs::read_dir(&dir) {
        Ok(entries) => {
            let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            let mut names: Vec<_> = names.filter(|name| !name.starts_with("cilium_")).collect();
            names.sort();
            match names.is_empty() {
                true => Fact::unavailable("it has no external device in it", source),
                false => Fact::known(names, source),
            }
        }
        Err(e) => Fact::unavailable(e, source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(dir: &Path, name: &str, header: &str) {
        fs::create_dir_all(dir.join(name)).unwrap();
        fs::write(dir.join(name).join("ep_config.h"), header).unwrap();
    }

    #[test]
    fn the_shortcut_is_found_in_either_layout() {
        for below in ["", "state"] {
            let dir = tempfile::tempdir().unwrap();
            let state = dir.path().join(below);
            endpoint(&state, "2071", "#define LXC_ID 0x817\n#define ENABLE_SKIP_FIB 1\n");
            endpoint(&state, "12_next", "");
            assert_eq!(skip_fib(dir.path()).get(), Some(&true), "{below}");
        }
    }

    #[test]
    fn endpoints_without_it_say_no() {
        let dir = tempfile::tempdir().unwrap();
        endpoint(dir.path(), "2071", "/* ENABLE_SKIP_FIB */\n");
        assert_eq!(skip_fib(dir.path()).get(), Some(&false));
    }

    #[test]
    fn the_hosts_own_endpoint_says_nothing_of_pods() {
        let dir = tempfile::tempdir().unwrap();
        endpoint(dir.path(), "7", "#define ENABLE_SKIP_FIB 1\n#define HOST_ENDPOINT 1\n");
        assert!(skip_fib(dir.path()).why().is_some_and(|why| why.contains("no pod's ep_config.h")));
        endpoint(dir.path(), "2071", "#define LXC_ID 0x817\n");
        assert_eq!(skip_fib(dir.path()), Fact::known(false, dir.path().join("*/ep_config.h").display().to_string()));
    }

    #[test]
    fn endpoints_that_differ_are_unknown() {
        let dir = tempfile::tempdir().unwrap();
        endpoint(dir.path(), "2071", "#define ENABLE_SKIP_FIB 1\n");
        endpoint(dir.path(), "2072", "");
        assert!(skip_fib(dir.path()).why().is_some_and(|why| why.contains("1 of 2 endpoints")));
    }

    #[test]
    fn no_state_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        assert!(skip_fib(dir.path()).why().is_some());
        assert!(skip_fib(Path::new("/nonexistent")).why().is_some_and(|why| why.contains("/var/run/cilium")));
    }

    #[test]
    fn the_compiled_host_routing_is_found_in_either_layout() {
        for below in ["", "state"] {
            let dir = tempfile::tempdir().unwrap();
            let globals = dir.path().join(below).join("globals");
            fs::create_dir_all(&globals).unwrap();
            fs::write(globals.join("node_config.h"), "#define ENABLE_IPV4 1\n#define ENABLE_HOST_ROUTING 1\n").unwrap();
            assert!(matches!(host_routing(dir.path()), Some((source, HostRouting::Bpf)) if source.ends_with(".h")));
            fs::write(globals.join("node_config.h"), "#define ENABLE_IPV4 1\n").unwrap();
            assert_eq!(host_routing(dir.path()), None, "{below}");
        }
    }

    #[test]
    fn ciliums_own_devices_are_not_external() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["eth1", "eth0", "cilium_host", "cilium_net"] {
            fs::create_dir_all(dir.path().join("cilium/devices").join(name)).unwrap();
        }
        assert_eq!(pinned_devices(dir.path()).get(), Some(&vec!["eth0".into(), "eth1".into()]));
    }
}
