//! What is measured side by side: nothing, tcpdump twice, bpftrace, and this project's tracer.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{names::Seen, place::Lab, wait_until};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    None,
    TcpdumpToNull,
    TcpdumpPrints,
    Bpftrace,
    Probe,
}

impl Subject {
    pub(crate) const ALL: [Self; 5] =
        [Self::None, Self::TcpdumpToNull, Self::TcpdumpPrints, Self::Bpftrace, Self::Probe];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "no tracer",
            Self::TcpdumpToNull => "tcpdump -i any -w /dev/null",
            Self::TcpdumpPrints => "tcpdump -i any, printing",
            Self::Bpftrace => "bpftrace, raw tracepoint",
            Self::Probe => "hostdns-probe trace",
        }
    }

    fn command(self, lab: &Lab<'_>) -> Option<Command> {
        let tcpdump = |more: &[&str]| {
            let mut command = Command::new("tcpdump");
            command.args(["-i", "any", "-n"]).args(more).args(["udp", "port", "53"]);
            command
        };
        match self {
            Self::None => None,
            Self::TcpdumpToNull => Some(tcpdump(&["-w", "/dev/null"])),
            Self::TcpdumpPrints => Some(tcpdump(&[])),
            Self::Bpftrace => {
                let mut command = Command::new("bpftrace");
                command.args(["-e", BPFTRACE]);
                Some(command)
            }
            Self::Probe => {
                // As on a node: it finds pods, Cilium and cgroups by itself.
                let args = [lab.probe.as_os_str(), OsStr::new("trace")];
                Some(lab.command(false, args))
            }
        }
    }

    /// What it prints when it is attached, and where.
    const fn ready_line(self) -> &'static str {
        match self {
            Self::None => "",
            Self::TcpdumpToNull | Self::TcpdumpPrints => "listening on",
            Self::Bpftrace => "Attaching",
            Self::Probe => "tracing DNS",
        }
    }
}

/// The names of DNS queries over UDP and IPv4, as devices transmit them: Ethernet 14, IPv4 20, UDP 8 and DNS 12 bytes
/// stand before them, and the length of the first label.
const BPFTRACE: &str = "rawtracepoint:net_dev_start_xmit { $skb = (struct sk_buff *)arg0; \
    $port = *(uint16 *)($skb->data + 36); if ($port == 0x3500) { printf(\"%r\\n\", buf($skb->data + 55, 8)); } }";

/// A running one.
pub(crate) struct Running {
    subject: Subject,
    child: Option<Child>,
    readers: Vec<JoinHandle<()>>,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    /// Its first lines, to tell when it is ready and, where it fails, why.
    text: String,
    seen: Seen,
}

/// What a subject has told when it was ended.
pub(crate) struct Told {
    /// The numbers in what it printed; none for a subject that prints none.
    pub(crate) seen: Option<Seen>,
    /// Its own count of what it lost, in packets or events.
    pub(crate) lost: Option<u64>,
}

impl Running {
    /// Starts it in the node's namespace and waits until it says that it is attached.
    pub(crate) fn start(subject: Subject, lab: &Lab<'_>) -> anyhow::Result<Self> {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut running = Self { subject, child: None, readers: Vec::new(), heard };
        let Some(mut command) = subject.command(lab) else { return Ok(running) };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            lab.node.run(|| command.spawn())?.with_context(|| format!("{} is not installed", subject.name()))?;
        if let Some(out) = child.stdout.take() {
            running.readers.push(read(out, Arc::clone(&running.heard)));
        }
        if let Some(err) = child.stderr.take() {
            running.readers.push(read(err, Arc::clone(&running.heard)));
        }
        let mut ended = false;
        let ready = wait_until(Duration::from_secs(15), || {
            ended = child.try_wait().is_ok_and(|status| status.is_some());
            ended || running.text().contains(subject.ready_line())
        });
        running.child = Some(child);
        if ended || !ready {
            std::thread::sleep(Duration::from_millis(20));
            let text = running.text();
            let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned();
            bail!("{} does not run here: {last}", subject.name());
        }
        // tcpdump says so before its buffer is mapped; a moment, the same for all, levels that.
        std::thread::sleep(Duration::from_millis(50));
        Ok(running)
    }

    /// The process that does the work: this project's is the child of `lab exec`.
    pub(crate) fn pid(&self) -> Option<u32> {
        let started = self.child.as_ref().map(Child::id)?;
        if self.subject == Subject::Probe { only_child(started) } else { Some(started) }
    }

    fn text(&self) -> String {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).text.clone()
    }

    /// Ends it, and reads what it still had to say.
    pub(crate) fn stop(mut self) -> Told {
        // What it still holds in buffers belongs to it: tcpdump asks the kernel for blocks, which are handed over when
        // full or after its timeout of a second, and drops what it has not read when it is interrupted.
        if self.child.is_some() {
            std::thread::sleep(Duration::from_millis(1300));
        }
        self.end();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        let text = self.text();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let prints = matches!(self.subject, Subject::TcpdumpPrints | Subject::Bpftrace | Subject::Probe);
        Told { seen: prints.then(|| std::mem::take(&mut heard.seen)), lost: lost(&text) }
    }

    fn end(&mut self) {
        let pid = self.pid();
        let Some(mut child) = self.child.take() else { return };
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        if !wait_until(Duration::from_secs(10), || child.try_wait().is_ok_and(|status| status.is_some())) {
            let _ = child.kill();
        }
        let _ = child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn read(stream: impl Read + Send + 'static, heard: Arc<Mutex<Heard>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::with_capacity(1 << 16, stream);
        let mut rest = Vec::new();
        while let Ok(piece) = stream.fill_buf() {
            if piece.is_empty() {
                break;
            }
            let len = piece.len();
            rest.extend_from_slice(piece);
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            // The beginning, for its words when ready; and the end, for its counts.
            if heard.text.len() > 16_384 {
                let middle = heard.text.floor_char_boundary(8192);
                heard.text.drain(..middle);
            }
            heard.text.push_str(&String::from_utf8_lossy(&rest[rest.len() - len.min(4096)..]));
            rest = heard.seen.scan(&rest).to_vec();
            drop(heard);
            stream.consume(len);
        }
    })
}

/// tcpdump: `12 packets dropped by kernel`; this project's: `1200 events seen, 12 lost`.
fn lost(text: &str) -> Option<u64> {
    text.lines().rev().find_map(|line| {
        let count = line
            .split_once(" packets dropped by kernel")
            .map(|(count, _)| count)
            .or_else(|| line.split_once(" events seen, ")?.1.strip_suffix(" lost"))?;
        count.trim().parse().ok()
    })
}

/// The child of a process that has one (`/proc/PID/task/TID/children`, proc(5)).
fn only_child(pid: u32) -> Option<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    children.flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).next()
}

/// Resident memory of a process now and at its highest, in KiB.
pub(crate) fn resident(pid: u32) -> anyhow::Result<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).with_context(|| format!("no {name}"))
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// Whether a program is on PATH.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| Path::new(&directory).join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_read_from_what_the_tools_say() {
        let tcpdump = "14 packets captured\n28 packets received by filter\n3 packets dropped by kernel\n";
        assert_eq!(lost(tcpdump), Some(3));
        assert_eq!(lost("\n3 transactions in 1.0 s: 3 answered\n  21 events seen, 7 lost\n"), Some(7));
        assert_eq!(lost("nothing"), None);
    }
}
