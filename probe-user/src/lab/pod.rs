//! A pod: a process in a network, UTS and mount namespace and a cgroup of its own.
//!
//! The node starts it as `hostdns-probe lab __pod`, with its plan on stdin. It says `made` when its namespaces are
//! there, waits for a line while the node wires it up, and says `serving` when its work has begun.

mod running;

use std::{
    ffi::CString,
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::PathBuf,
    process::Command,
};

use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

pub use self::running::RunningPod;
use super::{Error, cgroup, dns, mounts};

/// Where the Corefile is, as in CoreDNS' own deployment.
pub const COREFILE: &str = "/etc/coredns/Corefile";

/// What a pod says when its namespaces are there.
const MADE: &str = "made";
/// What a pod says when its work has begun.
const SERVING: &str = "serving";
/// How the line begins that a real CoreDNS prints once it listens: its zone and port, `.:53`.
const COREDNS_SERVING: &str = ".:";

/// What a pod is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PodPlan {
    pub name: String,
    /// Name in /proc/PID/comm.
    pub comm: String,
    /// argv\[0\].
    pub program: String,
    /// Absolute, as the node sees it.
    pub cgroup: PathBuf,
    pub host_network: bool,
    /// UTS name; none: the node's.
    pub hostname: Option<String>,
    /// Files of its own; none: it shares the node's.
    pub files: Option<Files>,
    pub work: Work,
    /// Its device on the node's side.
    pub interface: String,
    pub endpoint_id: u16,
    pub identity: u32,
}

/// A folder in the process' own mount namespace, empty but for these files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Files {
    pub folder: PathBuf,
    /// Names below the folder, and what is in them.
    pub files: Vec<(String, String)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    Idle,
    /// Forward what comes to port 53 as the Corefile says.
    Forward,
    /// Run a real CoreDNS with the Corefile.
    Coredns(PathBuf),
}

/// The pod's process. It does not return while the pod lives.
///
/// # Errors
/// The namespaces, mounts or the server cannot be made.
pub fn run() -> Result<(), Error> {
    let plan: PodPlan = read_line_of("the pod's plan")?;
    cgroup::join(&plan.cgroup)?;
    let mut namespaces = CloneFlags::empty();
    if !plan.host_network {
        namespaces |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
    }
    if plan.hostname.is_some() {
        namespaces |= CloneFlags::CLONE_NEWUTS;
    }
    if plan.files.is_some() {
        namespaces |= CloneFlags::CLONE_NEWNS;
    }
    unshare(namespaces).map_err(Error::sys("cannot make a pod's namespaces"))?;
    if let Some(hostname) = &plan.hostname {
        nix::unistd::sethostname(hostname).map_err(Error::sys("cannot set a pod's hostname"))?;
    }
    if let Some(Files { folder, files }) = &plan.files {
        mounts::of_pod(folder, files)?;
    }
    set_comm(&plan.comm);
    say(MADE)?;
    let mut go = String::new();
    if io::stdin().read_line(&mut go).map_err(Error::io("the node went away"))? == 0 {
        return Ok(()); // the lab came to nothing, and said so
    }
    match &plan.work {
        Work::Idle => {
            say(SERVING)?;
            wait_for_end();
            Ok(())
        }
        Work::Forward => forward(&plan),
        Work::Coredns(binary) => {
            let error = Command::new(binary).args(["-conf", COREFILE]).exec();
            Err(Error::Io { what: format!("cannot run {}", binary.display()), source: error })
        }
    }
}

fn forward(plan: &PodPlan) -> Result<(), Error> {
    let corefile = fs::read_to_string(COREFILE).map_err(Error::io(format!("cannot read {COREFILE}")))?;
    let upstream = dns::forward_target(&corefile, |path| fs::read_to_string(path).ok()).ok_or_else(|| {
        Error::NotReady { process: "pod", why: format!("{COREFILE} forwards . to nothing that can be understood") }
    })?;
    let runtime = super::runtime()?;
    let _inside = runtime.enter();
    // On the node itself port 53 of some addresses is taken: by host DNS.
    let address = if plan.host_network { super::topology::NODE_V4 } else { Ipv4Addr::UNSPECIFIED };
    let listen = dns::Listen { address: SocketAddr::new(address.into(), 53), udp: true, tcp: true, ttl: None };
    let _server =
        dns::serve(dns::Role::Forwarder { upstream }, &[listen]).map_err(Error::io("cannot serve DNS in a pod"))?;
    say(SERVING)?;
    runtime.block_on(async {
        let _ = tokio::task::spawn_blocking(wait_for_end).await;
    });
    Ok(())
}

/// Reads one line of JSON from stdin.
pub(super) fn read_line_of<T: for<'de> Deserialize<'de>>(what: &str) -> Result<T, Error> {
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(Error::io(format!("cannot read {what}")))?;
    serde_json::from_str(&line).map_err(Error::json(format!("cannot read {what}; this command is not for people")))
}

/// Says a line to the process that started this one.
pub(super) fn say(line: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Error::io("nobody listens any more"))
}

/// Waits until the process at the other end of stdin is gone.
pub(super) fn wait_for_end() {
    let mut line = String::new();
    while io::stdin().read_line(&mut line).is_ok_and(|len| len > 0) {
        line.clear();
    }
}

/// Sets the main thread's name, which is the process' in /proc/PID/comm (15 bytes).
pub(super) fn set_comm(comm: &str) {
    let Ok(name) = CString::new(std::ffi::OsStr::new(comm).as_bytes()) else { return };
    let _ = nix::sys::prctl::set_name(&name);
}
