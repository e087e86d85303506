//! Ten thousand packets to port 53 that are no DNS queries: each is told as malformed, and memory does not grow.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use end_to_end::{is_root_or_skips, lab::Lab, load::Responder, trace::Trace};
use hickory_proto::op::Message;
use hostdns_probe::netns::Netns;
use serde_json::Value;

const PACKETS: usize = 10_000;

/// Packets a second: a development build takes its time for each.
const RATE: f64 = 1_000.0;

/// Sockets that they come from, so that no DNS id comes twice from one port.
const SOCKETS: usize = 16;

/// Sent at once: several from each socket before the first is answered.
const BURST: usize = 4 * SOCKETS;

/// What the second half may take beyond the first, KiB: the allocator keeps some of what it gets back.
const GROWTH_KIB: u64 = 3 * 1024;

/// Xorshift (Marsaglia, 2003): the same packets in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// No query by anybody's reading: of another kind in each of seven turns.
fn no_query(turn: usize, random: &mut Random) -> Vec<u8> {
    let id = (turn / SOCKETS) as u16;
    let query = |flags: u16, question: &[u8]| {
        let mut message = [id, flags, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
        message.extend(question);
        message
    };
    let good: &[u8] = b"\x07example\x03com\x00\x00\x01\x00\x01";
    match turn % 7 {
        // Too short for a header; the empty one as well.
        0 => {
            let len = random.below(12);
            random.bytes(len)
        }
        // An answer, to a question that nobody asked.
        1 => query(0x8180, good),
        // An opcode that does not exist.
        2 => query((7 + random.below(9) as u16) << 11, good),
        // A label that is longer than the message.
        3 => query(0x0100, &[&[20 + random.below(40) as u8], &random.bytes(6)[..]].concat()),
        // A first name that points at itself.
        4 => query(0x0100, b"\xc0\x0c\x00\x01\x00\x01"),
        // A header that announces a question, and none.
        5 => query(0x0100, b""),
        // Whatever comes, as long as another parser takes it for no query either.
        _ => loop {
            let len = 13 + random.below(140);
            let mut bytes = random.bytes(len);
            bytes[..2].copy_from_slice(&id.to_be_bytes());
            let broken_name = bytes[12] >= 64 && bytes[4..6] != [0, 0];
            let no_header = bytes[2] & 0x80 != 0 || bytes[2] >> 3 & 0xf > 6;
            if Message::from_vec(&bytes).is_err() && (broken_name || no_header) {
                return bytes;
            }
        },
    }
}

fn send(pod: &Netns, server: SocketAddr, from: usize, random: &mut Random) {
    let bind = || -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let sockets: Vec<UdpSocket> =
        (0..SOCKETS).map(|_| pod.run(bind).expect("the pod is there").expect("a socket")).collect();
    let began = Instant::now();
    for sent in 0..PACKETS / 2 {
        let socket = &sockets[sent % SOCKETS];
        socket.send(&no_query(from + sent, random)).expect("it can be sent");
        if sent % BURST == BURST - 1 {
            let due = Duration::from_secs_f64(sent as f64 / RATE);
            thread::sleep(due.saturating_sub(began.elapsed()));
            for socket in &sockets {
                while socket.recv(&mut [0; 2048]).is_ok() {} // a full buffer would be another end
            }
        }
    }
    // The last ones have their end.
    thread::sleep(Duration::from_secs(1));
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
}

/// Hops that one packet and its echo cannot have: each hook shows each of them once on each device.
fn is_joined(line: &str) -> bool {
    let transaction: Value = serde_json::from_str(line).expect("JSON");
    let hops = transaction["hops"].as_array().expect("hops");
    let places: BTreeSet<String> = hops
        .iter()
        .map(|hop| [&hop["direction"], &hop["hook"], &hop["interface"]].map(Value::to_string).concat())
        .collect();
    places.len() < hops.len()
}

#[test]
fn ten_thousand_packets_that_are_no_queries() {
    if !is_root_or_skips("ten_thousand_packets_that_are_no_queries") {
        return;
    }
    // The responder answers everything with itself: as many answers that are none.
    let lab = Lab::up("nobody-listens", "trace-malformed");
    let (node, pod) = (lab.netns(None), lab.netns(Some("app")));
    let server = "169.254.116.108:53".parse().expect("an address");
    let _responder = Responder::start(&node, server).expect("the port is free");
    let mut trace = Trace::start(&lab, &["--output", "json"]);
    let stdout = trace.stdout();
    let reader = thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let (mut malformed, mut other, mut joined) = (0, Vec::new(), Vec::new());
        for line in lines {
            if is_joined(&line) {
                joined.push(line);
            } else if line.contains("\"ended\":\"malformed\"") {
                malformed += 1;
            } else {
                other.push(line);
            }
        }
        (malformed, other, joined)
    });
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    send(&pod, server, 0, &mut random);
    let first = resident_kib(trace.pid());
    send(&pod, server, PACKETS / 2, &mut random);
    let second = resident_kib(trace.pid());
    trace.interrupt();
    let (malformed, other, joined) = reader.join().expect("it is read");
    let summary = trace.summary();
    eprintln!("{malformed} malformed, {} other; {first} KiB, then {second} KiB\n{summary}", other.len());
    assert!(joined.is_empty(), "{} are of several packets, such as {}", joined.len(), joined[0]);
    assert!(
        other.is_empty(),
        "{} were told as something else, such as {}",
        other.len(),
        other[0].get(other[0].len().saturating_sub(700)..).unwrap_or_default()
    );
    let lost = summary.lines().find(|line| line.contains("queries over UDP were lost"));
    let lost = lost.map_or(0, |line| line.trim().split(' ').next().and_then(|n| n.parse().ok()).expect("a number"));
    assert_eq!(malformed + lost, PACKETS, "{summary}");
    assert!(second <= first + GROWTH_KIB, "memory grew from {first} to {second} KiB");
}
