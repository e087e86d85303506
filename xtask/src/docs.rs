//! `cargo xtask docs`: writes the pages that are made from the source. They are checked in, and a test compares them.

use std::{fs, process::Command};

use anyhow::{Context as _, bail};

use crate::{
    step::{shown, step},
    workspace,
};

const FINDINGS: &str = "docs/findings.md";

pub(crate) fn run() -> anyhow::Result<()> {
    step("write docs/findings.md", || {
        let mut explain = explain();
        let output = explain.output().with_context(|| format!("cannot run {}", shown(&explain)))?;
        if !output.status.success() {
            bail!("{} failed: {}", shown(&explain), String::from_utf8_lossy(&output.stderr));
        }
        let path = workspace::root().join(FINDINGS);
        fs::write(&path, &output.stdout).with_context(|| format!("cannot write {}", path.display()))
    })
}

/// Without the probe: neither eBPF nor what it needs is built for this.
fn explain() -> Command {
    let mut command = workspace::cargo("run");
    command.args(["--quiet", "--package", "probe-user"]).args(workspace::without_probe());
    command.args(["--", "explain", "--output", "markdown"]);
    command
}
