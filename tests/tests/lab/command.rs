//! `hostdns-probe lab`, as a test calls it.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;

pub(crate) use end_to_end::hostdns_probe as probe;

/// A name that no other test's lab has.
pub(crate) fn unique(name: &str) -> String {
    format!("test-{}-{name}", std::process::id())
}

/// A standing lab, taken down when dropped.
pub(crate) struct Lab {
    pub(crate) name: String,
}

impl Lab {
    pub(crate) fn up(name: &str, args: &[&str]) -> Self {
        let name = unique(name);
        let output =
            Command::new(probe()).args(["lab", "up", "--name", &name]).args(args).output().expect("the command runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { name }
    }

    pub(crate) fn run(&self, pod: Option<&str>, command: &[&str]) -> Output {
        let mut run = Command::new(probe());
        run.args(["lab", "exec", "--lab", &self.name]);
        if let Some(pod) = pod {
            run.args(["--pod", pod]);
        }
        run.arg("--").args(command).output().expect("the command runs")
    }

    pub(crate) fn exec(&self, pod: Option<&str>, command: &[&str]) -> String {
        let output = self.run(pod, command);
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A plain DNS question; `answered 0`, or what came instead.
    pub(crate) fn ask(&self, pod: Option<&str>, server: &str, transport: &str) -> String {
        self.exec(pod, &["hostdns-probe", "lab", "__ask", server, transport])
    }

    pub(crate) fn maps(&self, address: &str) -> Value {
        let text = self.exec(None, &["hostdns-probe", "lab", "__maps", address]);
        serde_json::from_str(&text).expect("json")
    }

    /// `PROTOCOL SOURCE DESTINATION` of what arrived outside.
    pub(crate) fn leaks(&self) -> Vec<String> {
        let path = format!("/run/hostdns-probe/labs/{}/leaks", self.name);
        fs::read_to_string(path).expect("a record").lines().map(str::to_owned).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let output = Command::new(probe()).args(["lab", "down", &self.name]).output();
        let gone = !PathBuf::from("/run/hostdns-probe/labs").join(&self.name).exists();
        if !std::thread::panicking() {
            assert!(gone, "the lab is not taken down: {output:?}");
        }
    }
}
