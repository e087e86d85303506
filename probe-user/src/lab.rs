//! The lab: cilium issue 36761, its relatives and its fixes, in network namespaces on one machine.
//!
//! One lab is a tree of processes: a *supervisor*, whose network namespace is the world outside the node, and below it
//! the *node*, PID 1 of namespaces of its own, with its *pods*. The node's own /proc, /run, /sys/fs/bpf and cgroup
//! mounts show what a node's would, so that `check` inside finds everything by itself; when PID 1 dies, the kernel takes
//! the rest away.

pub mod agent;
pub mod ask;
pub mod cgroup;
pub mod datapath;
pub mod dns;
pub mod enter;
pub mod firewall;
pub mod links;
pub mod listing;
pub mod matrix;
pub mod mounts;
pub mod node;
pub mod observe;
pub mod outside;
pub mod pod;
pub mod scenario;
pub mod scenarios;
pub mod spec;
pub mod standing;
pub mod stuck_queue;
pub mod supervisor;
pub mod topology;
pub mod tun;

use std::{io, path::PathBuf};

/// Why a lab could not be made, entered or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the lab needs root: network, mount and PID namespaces, cgroups and eBPF; run it with sudo")]
    NotRoot,
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{what}: {source}")]
    Sys { what: String, source: nix::Error },
    #[error("{what}: {source}")]
    Netlink { what: String, source: rtnetlink::Error },
    #[error(transparent)]
    Netns(#[from] crate::netns::Error),
    #[error("{what}: {source}")]
    Json { what: String, source: serde_json::Error },
    #[error("no cgroup v2 hierarchy is mounted; mount one (mount -t cgroup2 none /sys/fs/cgroup) and try again")]
    NoCgroup,
    #[error("no scenario is called {0}; `hostdns-probe lab list` shows them")]
    NoSuchScenario(String),
    #[error("no lab called {0} is standing; `hostdns-probe lab list` shows those that are, `lab up` makes one")]
    NoSuchLab(String),
    #[error("no pod of this lab is called {0}; it has: {1}")]
    NoSuchPod(String, String),
    #[error("a lab called {0} is already standing; take it down with `hostdns-probe lab down {0}`, or name another")]
    Exists(String),
    #[error("{0} is not a name for a lab: letters, digits, dots and dashes, at most 60")]
    BadName(String),
    #[error("the lab's {process} is not ready: {why}")]
    NotReady { process: &'static str, why: String },
    /// What a process of the lab said of its own failure.
    #[error("{0}")]
    Told(String),
    #[error("the lab's model of Cilium's datapath cannot be attached: {0}")]
    Datapath(String),
    #[error("the lab's packet filter was not taken by the kernel: {0}; does it have nf_tables?")]
    Firewall(io::Error),
    #[error("the interface {0}, just made, is not there")]
    NoLink(String),
}

impl Error {
    /// The command line named what there is not, or cannot be.
    #[must_use]
    pub const fn is_wrong_usage(&self) -> bool {
        matches!(self, Self::NoSuchScenario(_) | Self::NoSuchLab(_) | Self::NoSuchPod(..) | Self::BadName(_))
    }
}

impl Error {
    /// An I/O error, with what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// A system call's error, with what was being done.
    pub fn sys(what: impl Into<String>) -> impl FnOnce(nix::Error) -> Self {
        let what = what.into();
        move |source| Self::Sys { what, source }
    }

    /// A netlink error, with what was being done.
    pub fn netlink(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let what = what.into();
        move |source| Self::Netlink { what, source }
    }

    /// A JSON error, with what was being read or written.
    pub fn json(what: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Self {
        let what = what.into();
        move |source| Self::Json { what, source }
    }
}

/// What a process of the lab serves DNS on: one thread beside its own.
fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().map_err(Error::io("cannot start a runtime"))
}

/// Where standing labs are recorded, on the machine that holds them (not visible inside).
#[must_use]
pub fn state_root() -> PathBuf {
    PathBuf::from("/run/hostdns-probe/labs")
}
