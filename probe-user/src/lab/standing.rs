//! Labs that stand: where they are recorded, who they are, and how they go.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use super::{Error, cgroup, node::PodPlace, scenario::NodeSpec, state_root};

/// How long a lab may take to go before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a lab is made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LabPlan {
    pub name: String,
    /// Scenario it was made from; for people.
    pub scenario: String,
    pub spec: NodeSpec,
    /// A real CoreDNS to run in place of the forwarder.
    pub coredns: Option<PathBuf>,
    /// It outlives the command that made it.
    pub detached: bool,
}

/// A process, and when it began, so that another that was given its id is not taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: clock ticks since boot.
    pub started: u64,
}

impl Process {
    /// The process that has this id now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, started: started(&stat)? })
    }

    #[must_use]
    pub fn is_alive(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        started(&stat) == Some(self.started) && !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"))
    }

    fn signal(self, signal: Signal) {
        if self.is_alive() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    fn wait_for_end(self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

/// Field 22 of /proc/PID/stat (proc_pid_stat(5)); the name in parentheses may hold anything.
fn started(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// A lab as recorded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Standing {
    pub name: String,
    pub scenario: String,
    pub supervisor: Process,
    /// PID 1 of the lab, as seen from here; none: not made yet.
    pub node: Option<Process>,
    pub pods: Vec<PodPlace>,
    /// Commands inside get a cgroup namespace of their own.
    pub private_cgroup_namespace: bool,
}

impl Standing {
    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        state_root().join(&self.name)
    }

    /// Writes the record.
    ///
    /// # Errors
    /// The folder is not there.
    pub fn save(&self) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).map_err(Error::json("cannot write a lab's record"))?;
        let (new, path) = (self.folder().join("lab.json.new"), self.folder().join("lab.json"));
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(Error::io(format!("cannot write {}", path.display())))
    }

    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.supervisor.is_alive() && self.node.is_some_and(Process::is_alive)
    }

    /// The pod of that name; the beginning of a name will do.
    ///
    /// # Errors
    /// No pod is called so.
    pub fn pod(&self, name: &str) -> Result<&PodPlace, Error> {
        let is_it = |pod: &&PodPlace| pod.name == name || pod.interface.as_deref() == Some(name);
        self.pods.iter().find(is_it).or_else(|| self.pods.iter().find(|pod| pod.name.starts_with(name))).ok_or_else(
            || {
                let names: Vec<&str> = self.pods.iter().map(|pod| pod.name.as_str()).collect();
                Error::NoSuchPod(name.into(), names.join(", "))
            },
        )
    }

    /// Ends the lab and removes what it left: processes (only those that are certainly its own), cgroups, its record.
    ///
    /// # Errors
    /// Its cgroups stay in use.
    pub fn down(&self) -> Result<(), Error> {
        self.supervisor.signal(Signal::SIGTERM);
        if !self.supervisor.wait_for_end(PATIENCE) {
            self.supervisor.signal(Signal::SIGKILL);
        }
        if let Some(node) = self.node {
            node.signal(Signal::SIGKILL);
            node.wait_for_end(PATIENCE);
        }
        clear(&self.name)
    }
}

/// Removes the cgroups and the record of a lab whose processes are gone.
///
/// # Errors
/// Its cgroups are in use.
pub fn clear(name: &str) -> Result<(), Error> {
    let root = cgroup::root()?;
    cgroup::remove(&root.join(cgroup::of_lab(name)), PATIENCE)?;
    let _ = fs::remove_dir(root.join(cgroup::FOLDER)); // the last one turns off the light
    match fs::remove_dir_all(state_root().join(name)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { what: format!("cannot remove the record of lab {name}"), source: error })
        }
        _ => Ok(()),
    }
}

/// Every lab that is recorded, standing or left behind.
#[must_use]
pub fn all() -> Vec<Standing> {
    let Ok(entries) = fs::read_dir(state_root()) else { return Vec::new() };
    let mut labs: Vec<Standing> = entries.flatten().filter_map(|entry| read(&entry.path())).collect();
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    labs
}

fn read(folder: &Path) -> Option<Standing> {
    let text = fs::read_to_string(folder.join("lab.json")).ok()?;
    serde_json::from_str(&text).ok()
}

/// The standing lab of that name; without a name, the only one.
///
/// # Errors
/// It is not there.
pub fn find(name: Option<&str>) -> Result<Standing, Error> {
    let mut labs = all().into_iter().filter(Standing::is_alive);
    match name {
        Some(name) => labs.find(|lab| lab.name == name).ok_or_else(|| Error::NoSuchLab(name.into())),
        None => {
            let first = labs.next().ok_or_else(|| Error::NoSuchLab("(any)".into()))?;
            match labs.next() {
                None => Ok(first),
                Some(_) => Err(Error::NoSuchLab("(several are standing: name one with --lab)".into())),
            }
        }
    }
}

/// Removes what killed runs left: records without processes, and cgroups without records.
///
/// # Errors
/// Something stays in use.
pub fn clear_leftovers() -> Result<(), Error> {
    for lab in all() {
        if !lab.supervisor.is_alive() {
            lab.down()?;
        }
    }
    let Ok(root) = cgroup::root() else { return Ok(()) };
    let Ok(entries) = fs::read_dir(root.join(cgroup::FOLDER)) else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let name = entry.file_name().to_string_lossy().into_owned();
        // With processes in it, it is somebody's lab whose record cannot be seen from here (from a container with a
        // /run of its own, for one).
        if !state_root().join(&name).exists() && !cgroup::is_populated(&entry.path()) {
            cgroup::remove(&entry.path(), Duration::ZERO)?;
        }
    }
    Ok(())
}

/// A lab of this process: gone when dropped, unless detached.
#[derive(Debug)]
pub struct Lab {
    pub standing: Standing,
    supervisor: Option<Child>,
}

impl Lab {
    /// Brings a lab up and waits until it is ready.
    ///
    /// # Errors
    /// What its processes say went wrong.
    pub fn up(plan: &LabPlan) -> Result<Self, Error> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let name_is_good = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
        if plan.name.is_empty()
            || plan.name.len() > 60
            || plan.name.starts_with('.')
            || !plan.name.chars().all(name_is_good)
        {
            return Err(Error::BadName(plan.name.clone()));
        }
        let mut command = Command::new("/proc/self/exe");
        command.args(["lab", "__supervise"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut supervisor = command.spawn().map_err(Error::io("cannot start the lab's supervisor"))?;
        let not_ready = |why: &str| Error::NotReady { process: "supervisor", why: why.into() };
        let text = serde_json::to_string(plan).map_err(Error::json("cannot write the lab's plan"))?;
        let stdin = supervisor.stdin.as_mut().ok_or_else(|| not_ready("it has no stdin"))?;
        writeln!(stdin, "{text}").map_err(Error::io("cannot tell the supervisor its plan"))?;
        let stdout = supervisor.stdout.take().ok_or_else(|| not_ready("it has no stdout"))?;
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let said: Result<Standing, String> =
            serde_json::from_str(&line).unwrap_or_else(|_| Err("the lab's supervisor said nothing; see stderr".into()));
        match said {
            Ok(standing) => Ok(Self { standing, supervisor: Some(supervisor) }),
            Err(why) => {
                drop(supervisor.stdin.take());
                let _ = supervisor.wait();
                Err(Error::Told(why))
            }
        }
    }

    /// Leaves it standing.
    #[must_use]
    pub fn leave(mut self) -> Standing {
        // It was told to be detached: it does not care that its stdin closes.
        drop(self.supervisor.take());
        self.standing.clone()
    }

    /// Takes it down and waits until nothing is left.
    ///
    /// # Errors
    /// Something stays in use.
    pub fn down(mut self) -> Result<(), Error> {
        self.end();
        clear(&self.standing.name)
    }

    fn end(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            drop(supervisor.stdin.take()); // it ends by itself
            let process = self.standing.supervisor;
            if !process.wait_for_end(PATIENCE) {
                process.signal(Signal::SIGKILL);
            }
            let _ = supervisor.wait();
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let me = Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        assert!(!Process { started: me.started + 1, ..me }.is_alive());
        assert_eq!(started("7 (a ) b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0"), Some(4242));
        assert_eq!(started(""), None);
    }
}
