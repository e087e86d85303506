//! `cargo xtask bench`: build as released, then measure. The measuring itself is the `bench` binary of the tests' package.

use std::process::Command;

use anyhow::{Context as _, bail};

use crate::{
    cli, setup,
    step::{step, succeed},
    workspace::{self, BINARY},
};

pub(crate) fn run(options: &cli::Bench) -> anyhow::Result<()> {
    if !workspace::is_root() {
        bail!("bench makes network namespaces, which needs root: sudo -E env \"PATH=$PATH\" cargo xtask bench");
    }
    setup::run(options.consent)?;
    setup::tools(options.consent, &setup::MEASURING)?;
    let mut cargo = workspace::cargo("build");
    cargo.args(["--release", "--package", "probe-user", "--package", "end-to-end", "--bin", BINARY, "--bin", "bench"]);
    step("build as released", || succeed(&mut cargo))?;
    let built = workspace::target_dir().join("release");
    let mut bench = Command::new(built.join("bench"));
    bench.arg("--probe").arg(built.join(BINARY)).args(&options.args);
    step("measure", || succeed(&mut bench)).context("no result")
}
