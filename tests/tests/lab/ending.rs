//! A matrix that is interrupted or killed leaves nothing.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    thread,
};

use end_to_end::{bpf::Objects, is_root_or_skips};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::{command::probe, traces_of, wait_until};

/// The scenarios under way when it ends. The slow one's check is inside its lab for seconds.
const SCENARIOS: [&str; 2] = ["upstream-slow", "healthy-legacy"];

/// A process, told from a later one of the same id by its start (field 22 of /proc/PID/stat).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    started: u64,
    arguments: String,
}

impl Process {
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
            arguments: String::from_utf8_lossy(&arguments).replace('\0', " "),
        })
        .filter(|_| fields.first() != Some(&"Z"))
    }

    fn is_alive(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.started == self.started)
    }

    /// The process and all below it, as far as this namespace sees them.
    fn tree(root: i32) -> Vec<Self> {
        let pids = fs::read_dir("/proc").expect("/proc is there").flatten();
        let all: Vec<Self> =
            pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Self::of).collect();
        let mut tree: Vec<Self> = all.iter().filter(|process| process.pid == root).cloned().collect();
        let mut at = 0;
        while let Some(parent) = tree.get(at).map(|process| process.pid) {
            tree.extend(all.iter().filter(|process| process.parent == parent).cloned());
            at += 1;
        }
        tree
    }
}

/// A /run of this thread's own, so that `lab down --all` sees the labs of this test alone.
fn own_run() {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).expect("a /run");
}

fn mounts() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").expect("/proc is there");
    text.lines().map(str::to_owned).collect()
}

/// A matrix with both labs standing and a check in one of them.
struct Matrix {
    command: Child,
    tree: Vec<Process>,
    objects: Objects,
    mounts: BTreeSet<String>,
}

impl Matrix {
    fn begin() -> Self {
        own_run();
        let mounts = mounts();
        let command = Command::new(probe())
            .args(["lab", "matrix", "--jobs", "2"])
            .args(SCENARIOS)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("the command starts");
        let pid = i32::try_from(command.id()).expect("a pid");
        let (mut tree, mut objects) = (Vec::new(), Objects::default());
        wait_until("a lab stands and is checked", || {
            tree = Process::tree(pid);
            let labs = tree.iter().filter(|process| process.arguments.contains("lab __node")).count();
            let check = tree.iter().find(|process| process.arguments.contains(" check "));
            let traces = check.is_some_and(|check| !Objects::of(check.pid.unsigned_abs()).links.is_empty());
            labs > 0 && traces
        });
        for process in &tree {
            objects.extend(Objects::of(process.pid.unsigned_abs()));
        }
        let matrix = Self { command, tree, objects, mounts };
        assert!(!matrix.objects.programs.is_empty() && !matrix.traces().is_empty());
        matrix
    }

    /// Its labs' cgroups and records.
    fn traces(&self) -> BTreeSet<String> {
        let of = |scenario: &str| traces_of(&format!("{scenario}-{}", self.command.id()));
        SCENARIOS.iter().flat_map(|scenario| of(scenario)).collect()
    }

    /// Those processes of the tree that hold the labs from outside.
    fn supervisors(&self) -> impl Iterator<Item = &Process> {
        self.tree.iter().filter(|process| process.arguments.contains("lab __supervise"))
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.command.id()).expect("a pid"))
    }

    fn leaves_nothing(mut self) {
        let _ = self.command.wait();
        wait_until("its processes are gone", || !self.tree.iter().any(Process::is_alive));
        wait_until("cgroups and records are gone", || self.traces().is_empty());
        // The kernel detaches and frees after the processes are gone.
        wait_until("programs, maps and links are gone", || self.objects.left() == Objects::default());
        assert_eq!(mounts(), self.mounts);
    }
}

/// On a thread of its own: what it mounts is for that alone.
fn apart(test: fn()) {
    if let Err(panic) = thread::spawn(test).join() {
        std::panic::resume_unwind(panic);
    }
}

fn down_all() {
    let down = Command::new(probe()).args(["lab", "down", "--all"]).output().expect("the command runs");
    assert!(down.status.success(), "{down:?}");
}

#[test]
fn ctrl_c_on_a_matrix_leaves_nothing() {
    if !is_root_or_skips("ctrl_c_on_a_matrix_leaves_nothing") {
        return;
    }
    apart(|| {
        let matrix = Matrix::begin();
        // As the terminal does it: everything in the foreground hears of it.
        killpg(matrix.pid(), Signal::SIGINT).expect("it is there");
        matrix.leaves_nothing();
    });
}

#[test]
fn a_killed_matrix_and_down_all_leave_nothing() {
    if !is_root_or_skips("a_killed_matrix_and_down_all_leave_nothing") {
        return;
    }
    apart(|| {
        let matrix = Matrix::begin();
        kill(matrix.pid(), Signal::SIGKILL).expect("it is there");
        down_all();
        matrix.leaves_nothing();
    });
}

#[test]
fn what_killed_supervisors_leave_down_all_removes() {
    if !is_root_or_skips("what_killed_supervisors_leave_down_all_removes") {
        return;
    }
    apart(|| {
        let matrix = Matrix::begin();
        for supervisor in matrix.supervisors() {
            kill(Pid::from_raw(supervisor.pid), Signal::SIGKILL).expect("it is there");
        }
        kill(matrix.pid(), Signal::SIGKILL).expect("it is there");
        assert!(!matrix.traces().is_empty(), "somebody cleared up already");
        down_all();
        assert_eq!(matrix.traces(), BTreeSet::new(), "down waits until all is gone");
        matrix.leaves_nothing();
    });
}
