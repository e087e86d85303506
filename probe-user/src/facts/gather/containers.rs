//! The pod and the container of a process, from its cgroup's path.

/// UID of the pod, and the container's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) pod_uid: String,
    pub(super) id: Option<String>,
}

/// Reads a `/proc/PID/cgroup` (cgroups(7)). Known are kubelet's two drivers: cgroupfs
/// (`/kubepods/burstable/pod<uid>/<id>`) and systemd (`...-pod<uid, with _ for ->.slice/cri-containerd-<id>.scope`).
pub(super) fn of_cgroup(text: &str) -> Option<Container> {
    text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(of_path)
}

fn of_path(path: &str) -> Option<Container> {
    let mut parts = path.split('/').skip_while(|part| !part.starts_with("kubepods"));
    let pod_uid = parts.find_map(uid)?;
    let id = parts.next().map(container_id).filter(|id| !id.is_empty()).map(str::to_owned);
    Some(Container { pod_uid, id })
}

fn uid(part: &str) -> Option<String> {
    match part.strip_suffix(".slice") {
        Some(slice) => Some(slice.rsplit_once("-pod")?.1.replace('_', "-")),
        None => part.strip_prefix("pod").filter(|uid| !uid.is_empty() && !part.starts_with("pods")).map(str::to_owned),
    }
}

/// Without what the runtime puts around it: `cri-containerd-<id>.scope`, `crio-`, `docker-`.
fn container_id(part: &str) -> &str {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    name.rsplit('-').next().filter(|id| id.len() >= 12).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f1c9a7e5b2d4c6e8f0a1b2c3d4e5f60718293a4b5c6d7e8f9a0b1c2d3e4f506";
    const UID: &str = "0c7b9a4e-1f2d-4e3c-8b5a-6d7e8f901234";

    #[test]
    fn both_drivers_and_every_runtime() {
        let underscored = UID.replace('-', "_");
        let paths = [
            format!("0::/kubepods/burstable/pod{UID}/{ID}"),
            format!("0::/kubepods/pod{UID}/{ID}"),
            format!("0::/../../kubepods/besteffort/pod{UID}/{ID}/init.scope"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{underscored}.slice/cri-containerd-{ID}.scope"
            ),
            format!("0::/kubepods.slice/kubepods-pod{underscored}.slice/crio-{ID}.scope"),
            format!("5:cpu:/kubepods/burstable/pod{UID}/{ID}\n0::/"),
        ];
        for path in &paths {
            let found = of_cgroup(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!((found.pod_uid.as_str(), found.id.as_deref()), (UID, Some(ID)), "{path}");
        }
    }

    #[test]
    fn a_sandbox_without_a_container_is_a_pod() {
        let found = of_cgroup(&format!("0::/kubepods/burstable/pod{UID}")).unwrap();
        assert_eq!(found, Container { pod_uid: UID.into(), id: None });
    }

    #[test]
    fn what_is_no_pod_is_none() {
        for path in ["0::/", "0::/system.slice/sshd.service", "0::/kubepods/burstable", "0::/podman/abc", "", "0:"] {
            assert_eq!(of_cgroup(path), None, "{path}");
        }
    }
}
