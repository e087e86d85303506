//! A `hostdns-probe trace` beside real queries.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    thread::JoinHandle,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{hostdns_probe, innermost_child, lab::Lab, schema};

/// Where a pod asks, if nothing else is said.
pub const HOST_DNS: &str = "169.254.116.108:53";

/// A trace that is known to watch already.
#[derive(Debug)]
pub struct Trace {
    child: Child,
    stderr: Option<JoinHandle<Vec<String>>>,
}

impl Trace {
    /// In a lab's node.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn start(lab: &Lab, args: &[&str]) -> Self {
        let probe = hostdns_probe();
        let mut command = lab.command([probe.as_os_str(), "trace".as_ref()]);
        command.args(args);
        Self::of(command)
    }

    /// Whatever starts it.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("trace starts");
        let stderr = child.stderr.take().expect("it is piped");
        let mut lines = BufReader::new(stderr).lines();
        let first = lines.next().expect("it says that it traces").expect("text");
        assert!(first.starts_with("tracing DNS"), "{first}");
        let rest = std::thread::spawn(move || lines.map_while(Result::ok).collect());
        Self { child, stderr: Some(rest) }
    }

    /// Its process; not the one that entered the lab.
    #[must_use]
    pub fn pid(&self) -> u32 {
        innermost_child(&self.child)
    }

    /// What it prints, for whoever wants to read it while it runs.
    ///
    /// # Panics
    /// Where it was taken before.
    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("nobody reads it yet")
    }

    pub fn close_stdout(&mut self) {
        drop(self.child.stdout.take());
    }

    /// Ends it as Ctrl-C does.
    ///
    /// # Panics
    /// Where it is gone already.
    pub fn interrupt(&self) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid"));
        kill(pid, Signal::SIGINT).expect("it runs");
    }

    /// What it said on stderr besides, once it has ended.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn summary(mut self) -> String {
        let status = self.child.wait().expect("trace ends");
        let lines = self.stderr.take().map_or_else(Vec::new, |rest| rest.join().expect("it is read"));
        let text = lines.join("\n");
        assert!(status.success(), "{status}: {text}");
        text
    }

    /// What it printed, once it has ended by itself.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn output(self) -> Vec<u8> {
        let output = self.child.wait_with_output().expect("trace ends");
        assert!(output.status.success(), "{}", output.status);
        output.stdout
    }

    /// The lines of `--output json`, each as its schema says.
    ///
    /// # Panics
    /// Where one is none.
    #[must_use]
    pub fn transactions(self) -> Vec<Value> {
        let text = String::from_utf8(self.output()).expect("text");
        let read = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        text.lines().map(read).inspect(schema::assert_valid).collect()
    }
}

/// A plain question from a pod, whatever becomes of it.
///
/// # Panics
/// Where it cannot be asked.
pub fn ask(lab: &str, pod: &str, transport: &str) {
    ask_at(lab, pod, HOST_DNS, transport);
}

/// The same of another server.
///
/// # Panics
/// Where it cannot be asked.
pub fn ask_at(lab: &str, pod: &str, server: &str, transport: &str) {
    let mut command = Command::new(hostdns_probe());
    command.args(["lab", "exec", "--lab", lab, "--pod", pod, "--"]);
    command.args(["timeout", "1"]).arg(hostdns_probe()).args(["lab", "__ask", server, transport]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it can be asked");
}
