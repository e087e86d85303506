//! The processes that can be seen, each with its network namespace.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::fd::AsRawFd as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// More processes than this, or longer, is not looked at.
const MAX: usize = 100_000;
const LIMIT: Duration = Duration::from_millis(400);

/// Device and inode of a network namespace.
pub(super) type NetnsKey = (u64, u64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// At most 15 bytes of it (`TASK_COMM_LEN`).
    pub(super) name: String,
    /// `None`: it may not be looked at, or it is gone.
    pub(super) netns: Option<NetnsKey>,
    /// `/proc/PID`.
    pub(super) path: PathBuf,
}

/// What was seen of /proc.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes {
    pub(super) all: Vec<Process>,
    /// What could not be seen, as text.
    pub(super) gaps: Vec<String>,
}

impl Processes {
    /// # Errors
    /// There is no /proc.
    pub(super) fn read(proc_root: &Path) -> io::Result<Self> {
        let started = Instant::now();
        let (mut seen, mut hidden) = (Self::default(), 0);
        for entry in fs::read_dir(proc_root)?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if seen.all.len() >= MAX || started.elapsed() > LIMIT {
                seen.gaps.push(format!("only {} processes were looked at within {LIMIT:?}", seen.all.len()));
                break;
            }
            let path = entry.path();
            let Ok(name) = read_text(&path.join("comm"), 64) else { continue };
            // One that is ending has none any more; only what is refused is a gap.
            let netns = fs::metadata(path.join("ns/net"));
            let refused = netns.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied);
            hidden += usize::from(refused && pid != 1); // the node's init is in no pod
            let netns = netns.ok().map(|meta| (meta.dev(), meta.ino()));
            seen.all.push(Process { pid, name: name.trim_end().to_owned(), netns, path });
        }
        if hidden > 0 {
            seen.gaps.push(format!("the network namespaces of {hidden} processes may not be read (CAP_SYS_PTRACE)"));
        }
        Ok(seen)
    }
}

impl Process {
    /// A CoreDNS: by its name, or by the name of what it runs.
    pub(super) fn is_coredns(&self) -> bool {
        let program = || fs::read_link(self.path.join("exe")).ok();
        self.name == "coredns" || program().is_some_and(|path| path.file_name().is_some_and(|name| name == "coredns"))
    }

    /// Its arguments, from the program's name on.
    pub(super) fn arguments(&self) -> io::Result<Vec<String>> {
        Ok(split_nul(&read_text(&self.path.join("cmdline"), 64 << 10)?))
    }

    /// Its environment when it began, as `NAME=VALUE`.
    pub(super) fn environment(&self) -> io::Result<Vec<String>> {
        Ok(split_nul(&read_text(&self.path.join("environ"), 1 << 20)?))
    }

    /// What is in a directory as the process sees it.
    pub(super) fn list_inside(&self, path: &Path) -> io::Result<fs::ReadDir> {
        let directory = self.open_inside(path, OFlag::O_DIRECTORY)?;
        fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))
    }

    /// A file as the process sees it, of at most 1 MiB; a relative path is one of its working directory.
    pub(super) fn read_inside(&self, path: &Path) -> io::Result<String> {
        read_regular(self.open_inside(path, OFlag::empty())?)
    }

    /// Links are resolved below the process's own root: what a pod wrote must not lead to a file of the node. A pipe is
    /// not waited for.
    fn open_inside(&self, path: &Path, flags: OFlag) -> io::Result<File> {
        let root = if path.is_absolute() { "root" } else { "cwd" };
        open_below(&self.path.join(root), path, flags)
    }
}

/// A file of at most 1 MiB below a root directory, which no link leads out of.
pub(super) fn read_below(root: &Path, path: &Path) -> io::Result<String> {
    read_regular(open_below(root, path, OFlag::empty())?)
}

fn open_below(root: &Path, path: &Path, flags: OFlag) -> io::Result<File> {
    let root = File::open(root)?;
    let how = OpenHow::new()
        .flags(flags | OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // In the directory that the descriptor is, `/` means that directory.
    Ok(File::from(openat2(&root, path, how)?))
}

/// A file that may be anything: of at most 1 MiB, and a pipe in its place is not waited for.
pub(super) fn read_file(path: &Path) -> io::Result<String> {
    let mut how = File::options();
    read_regular(how.read(true).custom_flags(libc::O_NONBLOCK).open(path)?)
}

fn read_regular(file: File) -> io::Result<String> {
    const MAX: u64 = 1 << 20;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn split_nul(text: &str) -> Vec<String> {
    text.split('\0').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// A file of at most `max` bytes; what is longer is cut.
pub(super) fn read_text(path: &Path, max: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_with_its_namespace_and_arguments() {
        let seen = Processes::read(Path::new("/proc")).unwrap();
        let own = seen.all.iter().find(|process| process.pid == std::process::id()).expect("it runs");
        let meta = fs::metadata("/proc/self/ns/net").unwrap();
        assert_eq!(own.netns, Some((meta.dev(), meta.ino())));
        assert!(!own.is_coredns());
        assert_eq!(own.arguments().unwrap().first(), std::env::args().next().as_ref());
        assert!(own.list_inside(Path::new("/proc/self")).unwrap().count() > 0);
    }

    #[test]
    fn no_proc_is_an_error() {
        assert!(Processes::read(Path::new("/nonexistent")).is_err());
    }
}
