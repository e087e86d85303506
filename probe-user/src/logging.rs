//! Logs and progress: to stderr, so that stdout holds the output alone.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::cli::Global;

/// Sets the process' subscriber up. `RUST_LOG` wins over the flags.
pub fn init(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    };
    let mut filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    // A Kubernetes API that refuses is a fact, and in the report; the client would call each answer an error.
    let wanted = std::env::var("RUST_LOG").is_ok_and(|directives| directives.contains("kube"));
    if let (false, Ok(directive)) = (wanted, "kube_client=off".parse()) {
        filter = filter.add_directive(directive);
    }
    // It fails only where a subscriber is already there, which then does the work.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(global.verbose > 1)
        .without_time()
        .try_init();
}
