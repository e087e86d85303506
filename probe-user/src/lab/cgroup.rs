//! cgroups of a lab: one subtree below the cgroup v2 root, shaped like kubelet's (cgroupfs driver), and gone with it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::Error;

/// The part of the tree that is ours.
pub const FOLDER: &str = "hostdns-probe-lab";

/// The cgroup v2 root as this process sees it.
///
/// # Errors
/// None is mounted.
pub fn root() -> Result<PathBuf, Error> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(Error::io("cannot read /proc/self/mountinfo"))?;
    mounts.lines().find_map(cgroup2_mount).ok_or(Error::NoCgroup)
}

/// The mount point of a mountinfo line (proc_pid_mountinfo(5)) that is a whole cgroup v2 hierarchy.
fn cgroup2_mount(line: &str) -> Option<PathBuf> {
    let (left, right) = line.split_once(" - ")?;
    if right.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = left.split(' ').skip(3);
    (fields.next() == Some("/")).then(|| fields.next().map(PathBuf::from)).flatten()
}

/// Below the cgroup v2 root: everything of the lab `name`.
#[must_use]
pub fn of_lab(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Below the lab's cgroup: a pod's container, as kubelet's cgroupfs driver names it.
#[must_use]
pub fn of_pod(uid: &str, container: &str) -> PathBuf {
    Path::new("kubepods/burstable").join(format!("pod{uid}")).join(container)
}

/// Makes the cgroup and moves the calling process into it.
///
/// # Errors
/// It cannot be made or joined.
pub fn join(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::io(format!("cannot make the cgroup {}", path.display())))?;
    fs::write(path.join("cgroup.procs"), "0").map_err(Error::io(format!("cannot join the cgroup {}", path.display())))
}

/// Removes a cgroup and those below it. Its processes have been killed; a cgroup stays busy until the last is gone,
/// so this waits for up to `patience`.
///
/// # Errors
/// It is still in use.
pub fn remove(path: &Path, patience: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + patience;
    loop {
        match remove_once(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(source) => {
                return Err(Error::Io { what: format!("cannot remove the cgroup {}", path.display()), source });
            }
        }
    }
}

/// Whether there are processes in it or below it; also where that cannot be told.
pub fn is_populated(path: &Path) -> bool {
    let events = fs::read_to_string(path.join("cgroup.events")).unwrap_or_default();
    !events.lines().any(|line| line == "populated 0")
}

fn remove_once(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_once(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_cgroup2_hierarchy_counts() {
        let whole = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2_mount(whole), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let version1 = "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd";
        assert_eq!(cgroup2_mount(version1), None);
        let subtree = "41 31 0:38 /kubepods /sys/fs/cgroup ro,relatime shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2_mount(subtree), None);
    }
}
