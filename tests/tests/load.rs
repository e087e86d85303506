//! `trace` under load: every query is told, or counted as lost, and memory stays what it is.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::{ChildStdout, Command},
    thread::{self, JoinHandle},
    time::Duration,
};

use end_to_end::{
    hostdns_probe, is_installed_or_skips, is_root_or_skips,
    lab::Lab,
    load::{Client, Responder, Sent},
    names::{self, Seen},
    trace::Trace,
};
use hostdns_probe::netns::Netns;

/// Queries a second at which nothing may be lost. A development build takes ten times as long for everything.
const RATE: u32 = 20_000;
const RATE_UNOPTIMISED: u32 = 1_000;

/// Resident under that load; of a development build, whose own code is as large as all the rest, more.
const RESIDENT_MIB: u64 = 40;
const RESIDENT_MIB_UNOPTIMISED: u64 = 64;

/// And at five times the rate, when every buffer is full: those are bounded (`MAX_OPEN`, the queues, the rings).
const RESIDENT_MIB_FULL: u64 = 96;

/// Tries at losing nothing: others on the machine can take the processors away for longer than the buffers last.
const ATTEMPTS: usize = 3;

/// What a trace told of a load.
#[derive(Debug)]
struct Told {
    lines: u32,
    numbers: Seen,
    summary: String,
    /// At its highest, KiB.
    resident: u64,
}

fn trace(lab: &Lab, client: &Client, rate: Option<u32>, time: Duration) -> (Sent, Told) {
    traced(lab, || client.load(rate, time, 0).expect("it can be sent"))
}

fn traced<T>(lab: &Lab, send: impl FnOnce() -> T) -> (T, Told) {
    let mut trace = Trace::start(lab, &["--output", "json"]);
    let reader = read(trace.stdout());
    // What the start took is over: from here on the highest counts (proc_pid_clear_refs(5)).
    fs::write(format!("/proc/{}/clear_refs", trace.pid()), "5").expect("it is ours");
    let sent = send();
    // What was not answered has an end by then.
    thread::sleep(Duration::from_millis(700));
    let status = fs::read_to_string(format!("/proc/{}/status", trace.pid())).expect("it runs");
    let highest = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has memory");
    let resident = highest.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number");
    trace.interrupt();
    let (lines, numbers) = reader.join().expect("it is read");
    (sent, Told { lines, numbers, summary: trace.summary(), resident })
}

/// Counts lines, and takes in the numbers in them.
fn read(mut stdout: ChildStdout) -> JoinHandle<(u32, Seen)> {
    thread::spawn(move || {
        let (mut lines, mut numbers, mut buffer, mut rest) = (0, Seen::default(), vec![0; 1 << 18], Vec::new());
        while let Ok(len @ 1..) = stdout.read(&mut buffer) {
            lines += u32::try_from(buffer[..len].iter().filter(|&&byte| byte == b'\n').count()).expect("few");
            rest.extend_from_slice(&buffer[..len]);
            rest = numbers.scan(&rest).to_vec();
        }
        (lines, numbers)
    })
}

/// From "3 of 100 queries over UDP were lost".
fn lost(summary: &str) -> u32 {
    let line = summary.lines().find(|line| line.contains("queries over UDP were lost"));
    line.map_or(0, |line| line.trim().split(' ').next().and_then(|count| count.parse().ok()).expect("a number"))
}

fn is_released() -> bool {
    hostdns_probe().components().any(|part| part.as_os_str() == "release")
}

/// A load by DNS-OARC's own tool: how many queries it says that it sent.
fn dnsperf(pod: &Netns, questions: &Path, rate: u32, time: Duration) -> u32 {
    let mut dnsperf = Command::new("dnsperf");
    dnsperf.args(["-s", "169.254.116.108", "-d"]).arg(questions);
    dnsperf.args(["-Q", &rate.to_string(), "-l", &time.as_secs().to_string(), "-t", "1"]);
    let output = pod.run(|| dnsperf.output()).expect("the pod's namespace").expect("dnsperf runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Queries sent:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

#[test]
fn under_load_every_query_is_told_and_beyond_it_every_lost_one_counted() {
    if !is_root_or_skips("under_load_every_query_is_told_and_beyond_it_every_lost_one_counted") {
        return;
    }
    // The address is there and known to Cilium; its port is free for a responder that can do the rate.
    let lab = Lab::up("nobody-listens", "trace-load");
    let (node, pod) = (lab.netns(None), lab.netns(Some("coredns")));
    let server = "169.254.116.108:53".parse().expect("an address");
    let _responder = Responder::start(&node, server).expect("the port is free");
    let client = Client::new(&pod, server).expect("a socket");

    let time = Duration::from_secs(if is_released() { 10 } else { 4 });
    let untraced = client.load(None, Duration::from_millis(500), 0).expect("it can be sent").rate as u32;
    let rate = untraced.min(if is_released() { RATE } else { RATE_UNOPTIMISED });
    let complete = (0..ATTEMPTS).any(|_| {
        let (sent, told) = trace(&lab, &client, Some(rate), time);
        eprintln!("{rate}/s: sent {sent:?}, {} told, {} KiB\n{}", told.lines, told.resident, told.summary);
        is_exact(&sent, &told);
        is_small(&told, if is_released() { RESIDENT_MIB } else { RESIDENT_MIB_UNOPTIMISED });
        told.lines == sent.sent && told.summary.contains(" 0 lost")
    });
    assert!(complete, "of {rate} queries a second some were lost, {ATTEMPTS} times");

    if is_installed_or_skips("dnsperf", "dnsperf's queries are told") {
        let mut questions = tempfile::NamedTempFile::new().expect("a file");
        (0..10_000).for_each(|n| writeln!(questions, "{} A", names::name(n)).expect("it can be written"));
        let complete = (0..ATTEMPTS).any(|_| {
            let (sent, told) = traced(&lab, || dnsperf(&pod, questions.path(), rate, time));
            eprintln!("dnsperf at {rate}/s: sent {sent}, {} told, {} KiB\n{}", told.lines, told.resident, told.summary);
            assert_eq!(told.lines + lost(&told.summary), sent, "{}", told.summary);
            told.lines == sent && told.summary.contains(" 0 lost")
        });
        assert!(complete, "of dnsperf's queries some were lost, {ATTEMPTS} times");
    }

    let (sent, told) = trace(&lab, &client, None, Duration::from_secs(3));
    eprintln!("at full speed: sent {sent:?}, {} told, {} KiB\n{}", told.lines, told.resident, told.summary);
    is_exact(&sent, &told);
    is_small(&told, RESIDENT_MIB_FULL);
}

/// Sent = told + lost, each told once.
fn is_exact(sent: &Sent, told: &Told) {
    let lost = lost(&told.summary);
    assert_eq!(told.lines + lost, sent.sent, "{} lines, {lost} lost\n{}", told.lines, told.summary);
    assert_eq!(told.numbers.count(0..sent.sent), told.lines, "a query was told twice\n{}", told.summary);
}

fn is_small(told: &Told, limit_mib: u64) {
    assert!(told.resident <= limit_mib * 1024, "{} KiB", told.resident);
}
