//! What is measured side by side: nothing, tcpdump twice, bpftrace, and this project's tracer.

use std::{
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, bail};
use hostdns_probe::netns::Netns;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{names::Seen, traced::wait_until};

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
            Self::Probe => "hostdns-probe tracer",
        }
    }

    fn command(self, pod_cookie: u64) -> anyhow::Result<Option<Command>> {
        let tcpdump = |more: &[&str]| {
            let mut command = Command::new("tcpdump");
            command.args(["-i", "any", "-n"]).args(more).args(["udp", "port", "53"]);
            command
        };
        Ok(match self {
            Self::None => None,
            Self::TcpdumpToNull => Some(tcpdump(&["-w", "/dev/null"])),
            Self::TcpdumpPrints => Some(tcpdump(&[])),
            Self::Bpftrace => {
                let mut command = Command::new("bpftrace");
                command.args(["-e", BPFTRACE]);
                Some(command)
            }
            Self::Probe => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["__trace", "--sequence", "--pod"]).arg(pod_cookie.to_string());
                Some(command)
            }
        })
    }

    /// What it prints when it is attached, and where.
    const fn ready_line(self) -> &'static str {
        match self {
            Self::None => "",
            Self::TcpdumpToNull | Self::TcpdumpPrints => "listening on",
            Self::Bpftrace => "Attaching",
            Self::Probe => "\"ready\"",
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
    pub(crate) fn start(subject: Subject, node: &Netns, pod_cookie: u64) -> anyhow::Result<Self> {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut running = Self { subject, child: None, readers: Vec::new(), heard };
        let Some(mut command) = subject.command(pod_cookie)? else { return Ok(running) };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            node.run(|| command.spawn())?.with_context(|| format!("{} is not installed", subject.name()))?;
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

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
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
        let Some(mut child) = self.child.take() else { return };
        drop(child.stdin.take());
        if self.subject != Subject::Probe
            && let Ok(pid) = i32::try_from(child.id())
        {
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

/// tcpdump: `12 packets dropped by kernel`; this project's: `{"lost":12,..}`.
fn lost(text: &str) -> Option<u64> {
    text.lines().rev().find_map(|line| {
        if let Some((count, _)) = line.split_once(" packets dropped by kernel") {
            return count.trim().parse().ok();
        }
        let (_, count) = line.split_once("{\"lost\":")?;
        count.split([',', '}']).next()?.parse().ok()
    })
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
        assert_eq!(lost("{\"ready\":1}\n{\"lost\":7,\"seen\":9}\nq0000001\n"), Some(7));
        assert_eq!(lost("nothing"), None);
    }
}
