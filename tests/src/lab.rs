//! A standing lab that goes away with its guard.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use anyhow::bail;
use hostdns_probe::netns::Netns;

use crate::{hostdns_probe, run, schema, stderr, stdout};

/// A lab brought up for one test.
#[derive(Debug)]
pub struct Lab {
    name: String,
}

impl Lab {
    /// Brings `scenario` up under a name of its own. One that stands is what a killed run of the same test left.
    ///
    /// # Panics
    /// Where it does not come up.
    #[must_use]
    pub fn up(scenario: &str, name: &str) -> Self {
        Self::up_with(scenario, name, |_command| {})
    }

    /// The same, its datapath on clsact qdiscs as on a kernel without tcx.
    ///
    /// # Panics
    /// Where it does not come up.
    #[must_use]
    pub fn up_without_tcx(scenario: &str, name: &str) -> Self {
        Self::up_with(scenario, name, |command| {
            command.env("HOSTDNS_PROBE_FORCE_CLSACT", "1");
        })
    }

    fn up_with(scenario: &str, name: &str, change: impl FnOnce(&mut Command)) -> Self {
        let _left = run(["lab", "down", name]);
        let mut command = Command::new(hostdns_probe());
        command.args(["lab", "up", scenario, "--name", name]);
        change(&mut command);
        let output = command.output().expect("the lab's command starts");
        assert!(output.status.success(), "lab up {scenario}: {}{}", stdout(&output), stderr(&output));
        Self { name: name.to_owned() }
    }

    /// A command inside the node.
    #[must_use]
    pub fn command<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new(hostdns_probe());
        command.args(["lab", "exec", "--lab", &self.name, "--"]).args(args);
        command
    }

    /// The network namespace of a pod; none: of the node.
    ///
    /// # Panics
    /// Where it is not found.
    #[must_use]
    pub fn netns(&self, pod: Option<&str>) -> Netns {
        netns(&hostdns_probe(), &self.name, pod).expect("the lab's namespaces can be found")
    }

    /// Runs `hostdns-probe check --output json` inside the node, and reads its report, which is held against its schema.
    ///
    /// # Panics
    /// Where it prints no report, or one that its schema does not know.
    #[must_use]
    pub fn check(&self, args: &[&str]) -> (serde_json::Value, Output) {
        let (report, output) = self.check_unread(args);
        schema::assert_valid(&report);
        (report, output)
    }

    /// The same without the schema, for whoever measures how long it takes.
    ///
    /// # Panics
    /// Where it prints no report.
    #[must_use]
    pub fn check_unread(&self, args: &[&str]) -> (serde_json::Value, Output) {
        let probe = hostdns_probe();
        let mut all = vec![probe.as_os_str(), OsStr::new("check"), OsStr::new("--output"), OsStr::new("json")];
        all.extend(args.iter().map(OsStr::new));
        let output = self.command(all).output().expect("check starts");
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("no report ({error}): {}{}", stdout(&output), stderr(&output)));
        (report, output)
    }

    /// Starts a command inside the node without waiting for it.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn spawn<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Child {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let output = run(["lab", "down", &self.name]);
        if !output.status.success() {
            eprintln!("lab down {}: {}", self.name, stderr(&output));
        }
    }
}

/// The network namespace of a lab's node or pod, found again among the processes seen from here by its inode.
///
/// # Errors
/// There is no such lab, or its processes are not seen from here.
pub fn netns(probe: &Path, lab: &str, pod: Option<&str>) -> anyhow::Result<Netns> {
    let mut command = Command::new(probe);
    command.args(["lab", "exec", "--lab", lab]);
    if let Some(pod) = pod {
        command.args(["--pod", pod]);
    }
    let output = command.args(["--", "readlink", "/proc/self/ns/net"]).output()?;
    if !output.status.success() {
        bail!("lab exec: {}", stderr(&output).trim());
    }
    let wanted = stdout(&output).trim().to_owned();
    for process in std::fs::read_dir("/proc")?.flatten() {
        let path = process.path().join("ns/net");
        if std::fs::read_link(&path).is_ok_and(|link| link.as_os_str() == wanted.as_str()) {
            return Ok(Netns::open(path)?);
        }
    }
    bail!("no process in {wanted}, the network namespace of {lab}, is seen from here; run this outside of containers")
}
