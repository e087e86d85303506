//! `hostdns-probe wait`: sleeps until it is told to end. What a container runs whose image has no `sleep`, so that
//! there is something to `kubectl exec` a check into.

use std::process::ExitCode;

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal};

/// Returns at SIGTERM, SIGINT or SIGHUP. Blocked and waited for: a container's first process, which this is, gets
/// no signal that it does not take itself.
///
/// # Errors
/// The signals cannot be waited for.
pub fn run() -> anyhow::Result<ExitCode> {
    let mut ends = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        ends.add(signal);
    }
    ends.thread_block().context("cannot block the signals to wait for")?;
    eprintln!("waiting; run `hostdns-probe check` beside this (kubectl exec POD -- /hostdns-probe check)");
    let signal = ends.wait().context("cannot wait for a signal")?;
    tracing::debug!(%signal, "told to end");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::thread::JoinHandleExt as _, time::Duration};

    use super::*;

    #[test]
    fn it_ends_when_told_to_and_not_before() {
        let waiting = std::thread::spawn(run);
        // Until the thread has blocked the signal, sending it would end the test: ask the kernel.
        let blocks_sigterm = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap();
            tasks.flatten().any(|task| {
                let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
                let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t"));
                let blocked = blocked.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
                blocked & (1 << (Signal::SIGTERM as u64 - 1)) != 0
            })
        };
        while !blocks_sigterm() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!waiting.is_finished());
        // SAFETY: the thread has not been joined, so its handle is valid.
        let sent = unsafe { libc::pthread_kill(waiting.as_pthread_t(), libc::SIGTERM) };
        assert_eq!(sent, 0);
        assert_eq!(waiting.join().unwrap().unwrap(), ExitCode::SUCCESS);
    }
}
