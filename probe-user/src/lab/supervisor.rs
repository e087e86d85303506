//! The process that holds a lab: it lives outside the lab's PID namespace, so that /proc inside does not show it, and its
//! network namespace is the world outside the node.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sched::{CloneFlags, setns, unshare},
    sys::signal::{SigSet, Signal},
};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Error, dns,
    node::{NodePlan, Said},
    outside,
    pod::{read_line_of, say, wait_for_end},
    standing::{LabPlan, Process, Standing, clear},
    state_root,
};
use crate::{netns::Netns, trace::load::chain};

/// The supervisor's process: `hostdns-probe lab __supervise`, its plan on stdin. Says on stdout, in one line of JSON, the
/// lab's record or why there is none, and stays until it is told to end.
///
/// # Errors
/// Only when nobody can be told any more.
pub fn run() -> Result<(), Error> {
    // Told to end while still beginning: it clears up all the same, once it can.
    endings().thread_block().map_err(Error::sys("cannot hold back signals"))?;
    let plan: LabPlan = read_line_of("the lab's plan")?;
    if plan.detached {
        nix::unistd::setsid().map_err(Error::sys("cannot leave the terminal's session"))?;
    } else {
        // The command that made this lab may be killed: then the lab goes, cgroups and record included.
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(Error::sys("cannot watch the parent"))?;
    }
    let folder = state_root().join(&plan.name);
    if let Err(error) = claim(&plan) {
        return say_json(&Err(chain(&error)));
    }
    let log = folder.join("log");
    if plan.detached
        && let Err(error) = stderr_to(&log)
    {
        clear(&plan.name)?;
        return say_json(&Err(chain(&error)));
    }
    let held = hold(&plan);
    let said_on_stderr = fs::read_to_string(&log).unwrap_or_default();
    let cleared = clear(&plan.name);
    match held {
        Ok(()) => cleared,
        Err(error) => {
            let _ = fs::remove_dir_all(&folder);
            say_json(&Err(format!("{} {}", chain(&error), said_on_stderr.trim()).trim().into()))
        }
    }
}

/// A lab that outlives its command does not hold on to its terminal; what it says goes into its folder.
fn stderr_to(log: &Path) -> Result<(), Error> {
    let file = fs::File::create(log).map_err(Error::io(format!("cannot write {}", log.display())))?;
    nix::unistd::dup2_stderr(&file).map_err(Error::sys("cannot redirect stderr"))
}

/// The signals that end a lab.
fn endings() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT].into_iter().collect()
}

/// Takes the name, from a lab that is no more if need be.
fn claim(plan: &LabPlan) -> Result<(), Error> {
    let folder = state_root().join(&plan.name);
    if folder.exists() {
        match super::standing::all().into_iter().find(|lab| lab.name == plan.name) {
            Some(lab) if lab.supervisor.is_alive() => return Err(Error::Exists(plan.name.clone())),
            Some(lab) => lab.down()?,
            None => clear(&plan.name)?,
        }
    }
    fs::create_dir_all(state_root()).map_err(Error::io(format!("cannot make {}", state_root().display())))?;
    fs::create_dir(&folder).map_err(|_| Error::Exists(plan.name.clone()))?;
    let me = i32::try_from(std::process::id()).unwrap_or_default();
    record(plan, me)?.save()
}

fn record(plan: &LabPlan, me: i32) -> Result<Standing, Error> {
    let supervisor = Process::of(me)
        .ok_or_else(|| Error::NotReady { process: "supervisor", why: "/proc does not show it".into() })?;
    Ok(Standing {
        name: plan.name.clone(),
        scenario: plan.scenario.clone(),
        supervisor,
        node: None,
        pods: Vec::new(),
        private_cgroup_namespace: plan.spec.faults.private_cgroup_namespace,
    })
}

fn hold(plan: &LabPlan) -> Result<(), Error> {
    let me = i32::try_from(std::process::id()).unwrap_or_default();
    let mut standing = record(plan, me)?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(Error::sys("cannot make the outside's network namespace"))?;
    let outside_netns = Netns::current()?;
    outside::prepare(&plan.spec)?;
    let mut node = start_node(plan, &outside_netns)?;
    let ended = (|| {
        outside::watch_leaks(&plan.spec, &standing.folder().join("leaks"))?;
        let runtime = super::runtime()?;
        let inside = runtime.enter();
        let _upstream = dns::serve(outside::role(&plan.spec), &outside::listens(&plan.spec))
            .map_err(Error::io("cannot serve DNS outside"))?;
        let node_pid = i32::try_from(node.id()).unwrap_or_default();
        standing.pods = match hear(&mut node)? {
            Said::Ready { pods } => pods,
            Said::Failed(why) => return Err(Error::Told(why)),
        };
        standing.node = Process::of(node_pid);
        standing.save()?;
        say_json(&Ok(standing))?;
        drop(inside);
        runtime.block_on(until_told_to_end(plan.detached, node_pid));
        runtime.shutdown_timeout(Duration::ZERO);
        Ok(())
    })();
    // Killing PID 1 ends everything in its PID namespace; when it can be waited for, all of it is gone.
    let _ = node.kill();
    let _ = node.wait();
    ended
}

/// Starts PID 1 of a new PID namespace.
fn start_node(plan: &LabPlan, outside_netns: &Netns) -> Result<Child, Error> {
    use std::os::fd::AsFd as _;
    let own_pids = fs::File::open("/proc/self/ns/pid").map_err(Error::io("cannot open the PID namespace"))?;
    fcntl(outside_netns.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))
        .map_err(Error::sys("cannot hand on the outside's network namespace"))?;
    let what = "cannot make the node's PID namespace";
    unshare(CloneFlags::CLONE_NEWPID).map_err(Error::sys(what))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("/sbin/init").args(["lab", "__node"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    // SAFETY: prctl is async-signal-safe, and nothing else is done between fork and exec.
    unsafe {
        command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
    }
    let spawned = command.spawn().map_err(Error::io("cannot start the node"));
    // Threads cannot be started while children are to go elsewhere.
    setns(&own_pids, CloneFlags::CLONE_NEWPID).map_err(Error::sys(what))?;
    let mut node = spawned?;
    fcntl(outside_netns.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(Error::sys(what))?;
    let node_plan = NodePlan {
        name: plan.name.clone(),
        spec: plan.spec.clone(),
        coredns: plan.coredns.clone(),
        outside: outside_netns.as_fd().as_raw_fd(),
    };
    let text = serde_json::to_string(&node_plan).map_err(Error::json("cannot write the node's plan"))?;
    let told = node.stdin.as_mut().map(|stdin| writeln!(stdin, "{text}"));
    match told {
        Some(Ok(())) => Ok(node),
        _ => {
            let _ = node.kill();
            let _ = node.wait();
            Err(Error::NotReady { process: "node", why: "it does not read its plan".into() })
        }
    }
}

fn hear(node: &mut Child) -> Result<Said, Error> {
    let ended = || Error::NotReady { process: "node", why: "it ended without a word; see stderr".into() };
    let stdout = node.stdout.take().ok_or_else(ended)?;
    let mut line = String::new();
    let len = BufReader::new(stdout).read_line(&mut line).map_err(Error::io("cannot hear the node"))?;
    if len == 0 { Err(ended()) } else { serde_json::from_str(&line).map_err(Error::json("cannot understand the node")) }
}

/// Until a signal, the end of the node or, unless detached, the end of the command that made the lab.
async fn until_told_to_end(detached: bool, node: i32) {
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut child)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::child()))
    else {
        return;
    };
    let _ = endings().thread_unblock();
    let mut parent_gone = tokio::task::spawn_blocking(move || {
        if detached {
            loop {
                std::thread::park();
            }
        }
        wait_for_end();
    });
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
            _ = &mut parent_gone => return,
            _ = child.recv() => if !Process::of(node).is_some_and(Process::is_alive) { return },
        }
    }
}

fn say_json(said: &Result<Standing, String>) -> Result<(), Error> {
    say(&serde_json::to_string(said).map_err(Error::json("cannot write an answer"))?)
}
