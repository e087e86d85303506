//! The node's own view of the file system: /proc of its PID namespace, sysfs of its network namespace, the real cgroup
//! v2 root, an empty bpffs, an empty /run.

use std::{fs, path::Path};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::Error;

/// Where the node sees the cgroup v2 root: as on Talos and any systemd of today.
pub const CGROUP: &str = "/sys/fs/cgroup";
/// The node's bpffs.
pub const BPF: &str = "/sys/fs/bpf";

fn mount_new(kind: &str, target: &str, options: Option<&str>) -> Result<(), Error> {
    mount(Some(kind), target, Some(kind), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, options)
        .map_err(Error::sys(format!("cannot mount {kind} on {target}")))
}

/// No mount made from here on is seen outside of the calling thread's mount namespace.
///
/// # Errors
/// The caller is not in a mount namespace of its own, or is not root.
pub fn make_private() -> Result<(), Error> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(Error::sys("cannot make the mount namespace private"))
}

/// Mounts what a node has. The caller is in new mount, network and PID namespaces.
///
/// # Errors
/// A mount fails.
pub fn of_node() -> Result<(), Error> {
    make_private()?;
    // The machine's own /proc and /sys, with all that is mounted below, would still be listed in mountinfo.
    for covered in ["/proc", "/sys"] {
        umount2(covered, MntFlags::MNT_DETACH).map_err(Error::sys(format!("cannot unmount {covered}")))?;
    }
    mount_new("proc", "/proc", None)?;
    mount_new("sysfs", "/sys", None)?;
    mount_new("cgroup2", CGROUP, None)?;
    mount_new("bpf", BPF, Some("mode=0700"))?;
    // For the lockdown fact; a kernel without it has no lockdown either.
    let _ = mount_new("securityfs", "/sys/kernel/security", None);
    mount_new("tmpfs", "/run", Some("mode=0755"))?;
    if !fs::symlink_metadata("/var/run").is_ok_and(|meta| meta.file_type().is_symlink())
        && Path::new("/var/run").is_dir()
    {
        mount_new("tmpfs", "/var/run", Some("mode=0755"))?;
    }
    Ok(())
}

/// Mounts what a pod has: a `folder` of its own with `files` in it (paths below the folder).
///
/// # Errors
/// A mount or a file fails.
pub fn of_pod(folder: &Path, files: &[(String, String)]) -> Result<(), Error> {
    make_private()?;
    mount_new("tmpfs", &folder.display().to_string(), Some("mode=0755"))?;
    for (path, text) in files {
        let path = folder.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::io(format!("cannot make {}", folder.display())))?;
        }
        fs::write(&path, text).map_err(Error::io(format!("cannot write {}", path.display())))?;
    }
    Ok(())
}

/// Writes a sysctl of the calling thread's network namespace.
///
/// # Errors
/// There is no such key.
pub fn sysctl(key: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(key);
    fs::write(&path, value).map_err(Error::io(format!("cannot set {}", path.display())))
}
