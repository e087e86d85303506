//! `cargo xtask lab`: set up, build, `hostdns-probe lab matrix`.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};

use crate::{build, cli, setup, step::shown, workspace};

/// The exit code is the matrix' own: 0 only when every scenario came out as it should.
pub(crate) fn run(options: &cli::Lab) -> anyhow::Result<ExitCode> {
    setup::run(options.consent)?;
    let binary = build::development(None)?;
    let mut matrix = Command::new(binary);
    matrix.args(["lab", "matrix"]).args(&options.args);
    if !workspace::is_root() {
        bail!("built; the lab makes network namespaces, which needs root: sudo {}", shown(&matrix));
    }
    let status = matrix.status().with_context(|| format!("cannot run {}", shown(&matrix)))?;
    // Killed by a signal: not a judgement, so neither 0 nor 1.
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(2);
    Ok(ExitCode::from(code))
}
