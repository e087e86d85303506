//! Network namespaces: who they are, and doing something inside one.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::facts::NetnsId;

/// Why a namespace could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open network namespace {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot enter network namespace {path}: {source}; CAP_SYS_ADMIN is needed")]
    Enter { path: PathBuf, source: nix::Error },
    #[error("cannot make a network namespace: {0}")]
    Make(nix::Error),
    #[error("the thread working in network namespace {0} panicked")]
    Panicked(PathBuf),
}

/// A network namespace, kept alive by its open file.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
}

impl Netns {
    /// Opens a namespace file: `/proc/PID/ns/net`, or a bind mount of one.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let file = File::open(&path).map_err(|source| Error::Open { path: path.clone(), source })?;
        Ok(Self { file, path })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// /proc is not there.
    pub fn current() -> Result<Self, Error> {
        Self::open("/proc/thread-self/ns/net")
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode name it; the cookie is what eBPF programs see.
    ///
    /// # Errors
    /// It cannot be entered to ask for its cookie.
    pub fn id(&self) -> Result<NetnsId, Error> {
        let meta = self.file.metadata().map_err(|source| Error::Open { path: self.path.clone(), source })?;
        let cookie = self.run(netns_cookie)?;
        Ok(NetnsId { dev: meta.dev(), inode: meta.ino(), cookie })
    }

    /// Runs `work` on a thread of its own inside the namespace, and waits for it. The caller's thread never moves, so
    /// nothing can be left in the wrong namespace.
    ///
    /// # Errors
    /// The namespace cannot be entered, or `work` panicked.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
                        .map_err(|source| Error::Enter { path: self.path.clone(), source })?;
                    Ok(work())
                })
                .join()
                .map_err(|_panic| Error::Panicked(self.path.clone()))?
        })
    }

    /// A new, empty namespace, kept alive by the returned handle alone.
    ///
    /// # Errors
    /// CAP_SYS_ADMIN is missing.
    pub fn new() -> Result<Self, Error> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    unshare(CloneFlags::CLONE_NEWNET).map_err(Error::Make)?;
                    Self::current()
                })
                .join()
                .map_err(|_panic| Error::Panicked(PathBuf::from("(new)")))?
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// `SO_NETNS_COOKIE` (Linux 5.14) of the calling thread's namespace; 0 where the kernel has none.
#[must_use]
pub fn netns_cookie() -> u64 {
    use std::os::fd::AsRawFd as _;
    const SO_NETNS_COOKIE: libc::c_int = 71; // asm-generic/socket.h
    let Ok(socket) = std::os::unix::net::UnixDatagram::unbound() else {
        return 0;
    };
    let mut cookie = 0_u64;
    let mut len = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(8);
    // SAFETY: `cookie` and `len` outlive the call and have the sizes it is told.
    let status = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut len)
    };
    if status == 0 { cookie } else { 0 }
}
