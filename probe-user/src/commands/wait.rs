//! `hostdns-probe wait`: sleeps until it is told to end. What a container runs whose image has no `sleep`, so that
//! there is something to `kubectl exec` a check into.

use std::process::ExitCode;

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal};

pub(crate) const EXAMPLES: &str = "\
Examples:
  kubectl -n hostdns-probe exec ds/hostdns-probe -- /hostdns-probe check

Ends at SIGTERM, SIGINT or SIGHUP.";

/// Returns at SIGTERM, SIGINT or SIGHUP.
///
/// # Errors
/// The signals cannot be waited for.
pub fn run() -> anyhow::Result<ExitCode> {
    eprintln!("waiting; run `hostdns-probe check` beside this (kubectl exec POD -- /hostdns-probe check)");
    let signal = wait_for_end()?;
    tracing::debug!(%signal, "told to end");
    Ok(ExitCode::SUCCESS)
}

/// The signal that came. Blocked and waited for: a container's first process gets no signal that it does not take.
fn wait_for_end() -> anyhow::Result<Signal> {
    let mut ends = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        ends.add(signal);
    }
    ends.thread_block().context("cannot block the signals to wait for")?;
    ends.wait().context("cannot wait for a signal")
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{SigmaskHow, raise};

    use super::*;

    #[test]
    fn it_ends_by_the_signal_that_came() {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let came = std::thread::spawn(move || {
                // Blocked, it stays pending for this thread alone until it is waited for.
                SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).unwrap();
                raise(signal).unwrap();
                wait_for_end().unwrap()
            });
            assert_eq!(came.join().unwrap(), signal);
        }
    }
}
