//! What a pod is called, as far as the node knows without asking Kubernetes.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::Path,
};

use nix::sched::{CloneFlags, setns};

use super::processes::{Process, read_text};

/// Sources of names.
pub(super) struct Names {
    /// By UID: namespace and name, from the directories of the kubelet's pod logs.
    logs: HashMap<String, (String, String)>,
    node: String,
    own_uts: Option<u64>,
}

impl Names {
    pub(super) fn read(proc_root: &Path, host_root: Option<&Path>) -> Self {
        const MAX_PODS: usize = 4096;
        let root = host_root.map_or_else(|| proc_root.join("1/root"), Path::to_owned);
        let entries = fs::read_dir(root.join("var/log/pods")).into_iter().flatten().flatten().take(MAX_PODS);
        let logs = entries.filter_map(|entry| of_log_directory(entry.file_name().to_str()?)).collect();
        let node = read_text(&proc_root.join("sys/kernel/hostname"), 256).unwrap_or_default();
        let own_uts = fs::metadata("/proc/self/ns/uts").ok().map(|meta| meta.ino());
        Self { logs, node: node.trim().to_owned(), own_uts }
    }

    /// Name and namespace of the pod that a process runs in.
    pub(super) fn of(&self, process: &Process, uid: Option<&str>) -> (Option<String>, Option<String>) {
        if let Some((namespace, name)) = uid.and_then(|uid| self.logs.get(uid)) {
            return (Some(name.clone()), Some(namespace.clone()));
        }
        let name = self.host_name(process).or_else(|| {
            let environment = process.environment().ok()?;
            environment.iter().find_map(|pair| pair.strip_prefix("HOSTNAME=").map(str::to_owned))
        });
        (name.filter(|name| !name.is_empty() && *name != self.node), namespace(process))
    }

    /// The host name in the process's UTS namespace, where it has one of its own: a pod's name.
    fn host_name(&self, process: &Process) -> Option<String> {
        let namespace = File::open(process.path.join("ns/uts")).ok()?;
        if Some(namespace.metadata().ok()?.ino()) == self.own_uts {
            return None;
        }
        // On a thread of its own: the caller's stays where it is.
        let entered = std::thread::spawn(move || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWUTS).ok()?;
            nix::unistd::gethostname().ok()?.into_string().ok()
        });
        entered.join().ok()?
    }
}

/// `NAMESPACE_NAME_UID` (kubelet, pkg/kubelet/kuberuntime/helpers.go: BuildPodLogsDirectory).
fn of_log_directory(name: &str) -> Option<(String, (String, String))> {
    let (rest, uid) = name.rsplit_once('_')?;
    let (namespace, pod) = rest.split_once('_')?;
    Some((uid.to_owned(), (namespace.to_owned(), pod.to_owned())))
}

/// From the service account that most pods have.
fn namespace(process: &Process) -> Option<String> {
    let account = Path::new("/var/run/secrets/kubernetes.io/serviceaccount/namespace");
    let name = process.read_inside(account).ok().map(|text| text.trim().to_owned());
    name.filter(|name| is_label(name))
}

/// An RFC 1123 label, which every namespace's name is: what a pod wrote there is not to be trusted.
fn is_label(name: &str) -> bool {
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.len() <= 63 && name.chars().all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelets_log_directory_names_the_pod() {
        let found = of_log_directory("kube-system_coredns-7db6d8ff4d-abcde_0c7b9a4e-1f2d").unwrap();
        assert_eq!(found, ("0c7b9a4e-1f2d".into(), ("kube-system".into(), "coredns-7db6d8ff4d-abcde".into())));
        assert_eq!(of_log_directory("lost+found"), None);
    }

    #[test]
    fn a_namespace_is_a_label() {
        assert!(is_label("kube-system"));
        assert!(!is_label("../etc") && !is_label("") && !is_label("A"));
    }

    #[test]
    fn a_process_of_the_node_itself_has_no_pod_name() {
        let names = Names::read(Path::new("/proc"), None);
        let path = Path::new("/proc").join(std::process::id().to_string());
        let own = Process { pid: std::process::id(), name: "probe".into(), netns: None, path };
        assert_eq!(names.host_name(&own), None);
    }
}
