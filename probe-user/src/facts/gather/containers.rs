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

/// A reader with a cgroup namespace of its own sees paths from there (`/../../pod<uid>/<id>`), so the part that is the
/// pod is looked for, whatever stands before it.
fn of_path(path: &str) -> Option<Container> {
    let mut parts = path.split('/');
    let pod_uid = parts.find_map(uid)?;
    let id = parts.next().map(container_id).filter(|id| !id.is_empty()).map(str::to_owned);
    Some(Container { pod_uid, id })
}

fn uid(part: &str) -> Option<String> {
    let uid = match part.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1.replace('_', "-"),
        None => part.strip_prefix("pod")?.to_owned(),
    };
    // A UUID, or the 32 digits of a static pod's hash.
    let digits = uid.chars().filter(char::is_ascii_hexdigit).count();
    (digits == 32 && uid.chars().all(|c| c == '-' || c.is_ascii_hexdigit())).then_some(uid)
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
            format!("0::/../../pod{UID}/{ID}"),
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
        for path in [
            "0::/",
            "0::/system.slice/sshd.service",
            "0::/kubepods/burstable",
            "0::/podman/abc",
            "0::/kubepods/burstable/podless",
            "",
            "0:",
        ] {
            assert_eq!(of_cgroup(path), None, "{path}");
        }
    }
}
