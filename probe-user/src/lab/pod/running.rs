//! A pod as the process that started it sees it.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Read, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use super::{COREDNS_SERVING, COREFILE, Error, MADE, PodPlan, SERVING, Work};
use crate::report::escape;

/// The user's own CoreDNS may take so long until it says that it listens.
const COREDNS_PATIENCE: Duration = Duration::from_secs(10);
/// The lab's own pods may take so long; a node that is emulated is slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of what a pod printed, an error tells so many lines, the last ones.
const LINES_TOLD: usize = 5;
/// Bytes of a line at most; a longer one is several.
const LINE_MAX: u64 = 400;

/// A pod that was started.
pub struct RunningPod {
    pub plan: PodPlan,
    /// In the node's PID namespace.
    pub pid: u32,
    child: Child,
    to: ChildStdin,
    /// Until it serves; later lines of stdout go nowhere and those of stderr to ours.
    from: Option<Receiver<String>>,
}

impl RunningPod {
    /// Starts a pod; [`Self::made`] waits for its namespaces.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(plan: PodPlan, node_name: &str) -> Result<Self, Error> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0(&plan.program).args(["lab", "__pod"]);
        if !matches!(plan.work, Work::Idle) {
            command.args(["-conf", COREFILE]);
        }
        let mut child = command
            .env_clear()
            .env("HOSTNAME", plan.hostname.as_deref().unwrap_or(node_name))
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("KUBERNETES_SERVICE_HOST", "10.96.0.1")
            .env("KUBERNETES_SERVICE_PORT", "443")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::io(format!("cannot start pod {}", plan.name)))?;
        let pid = child.id();
        let (Some(mut to), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::NotReady { process: "pod", why: "it has no pipes".into() });
        };
        let (said, from) = sync_channel(LINES_TOLD);
        read_on(stdout, said.clone(), |_line| {})?;
        read_on(stderr, said, |line| eprintln!("{line}"))?;
        let text = serde_json::to_string(&plan).map_err(Error::json("cannot write a pod's plan"))?;
        writeln!(to, "{text}").map_err(Error::io(format!("cannot tell pod {} its plan", plan.name)))?;
        Ok(Self { plan, pid, child, to, from: Some(from) })
    }

    /// Waits until its namespaces are there.
    ///
    /// # Errors
    /// It ended, or takes too long.
    pub fn made(&mut self) -> Result<(), Error> {
        self.expect("it did not say that its namespaces are made", PATIENCE, |line| line == MADE)
    }

    /// Lets it begin its work and waits until it has.
    ///
    /// # Errors
    /// It ended, or takes too long.
    pub fn serve(&mut self) -> Result<(), Error> {
        writeln!(self.to, "go").map_err(Error::io(format!("cannot tell pod {} to begin", self.plan.name)))?;
        match &self.plan.work {
            Work::Coredns(program) => {
                let missing = format!(
                    "the line that CoreDNS prints once it listens (it begins with `{COREDNS_SERVING}`) did not come \
                     from {}",
                    program.display()
                );
                self.expect(&missing, COREDNS_PATIENCE, |line| line.starts_with(COREDNS_SERVING))?;
            }
            Work::Idle | Work::Forward => {
                self.expect("it did not say that it serves", PATIENCE, |line| line == SERVING)?
            }
        }
        self.from = None;
        Ok(())
    }

    /// Waits for a line. The error begins with `missing`, what its absence means, and tells what was printed instead.
    fn expect(&mut self, missing: &str, patience: Duration, wanted: impl Fn(&str) -> bool) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        let mut printed = VecDeque::new();
        let when = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let heard = self.from.as_ref().map_or(Err(RecvTimeoutError::Disconnected), |from| from.recv_timeout(left));
            match heard {
                Ok(line) if wanted(line.trim()) => return Ok(()),
                Ok(line) => {
                    printed.push_back(line);
                    if printed.len() > LINES_TOLD {
                        printed.pop_front();
                    }
                    // Somebody who never stops talking is not waited for either.
                    if Instant::now() < deadline {
                        continue;
                    }
                    break format!("within {} s", patience.as_secs());
                }
                Err(RecvTimeoutError::Timeout) => break format!("within {} s", patience.as_secs()),
                Err(RecvTimeoutError::Disconnected) => break self.how_it_ended(deadline),
            }
        };
        let printed: Vec<&str> = printed.iter().map(String::as_str).filter(|line| !line.is_empty()).collect();
        let said = if printed.is_empty() {
            "nothing".to_owned()
        } else {
            format!("\"{}\"", escape::line(&printed.join(" | ")))
        };
        let why = format!("{}: {missing} {when}; it printed {said}", self.plan.name);
        Err(Error::NotReady { process: "pod", why })
    }

    /// Its output is closed: it ended, or closed it and lives on.
    fn how_it_ended(&mut self, deadline: Instant) -> String {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return format!("before it ended ({status})"),
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                _ => return "before it closed its output".to_owned(),
            }
        }
    }
}

/// Reads lines for as long as they come, so that nobody has to wait for a full pipe. Those that are not waited for any
/// more go to `then`.
fn read_on(
    from: impl Read + Send + 'static,
    to: SyncSender<String>,
    then: impl Fn(&str) + Send + 'static,
) -> Result<(), Error> {
    let mut from = BufReader::new(from);
    let read = move || {
        let mut line = Vec::new();
        while from.by_ref().take(LINE_MAX).read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if let Err(unheard) = to.send(text) {
                then(&unheard.0);
            }
            line.clear();
        }
    };
    thread::Builder::new().name("pod".into()).spawn(read).map_err(Error::io("cannot start a thread"))?;
    Ok(())
}
