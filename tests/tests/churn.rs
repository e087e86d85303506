//! Pods that come and go while `trace` runs: what they ask is told, their devices are covered or counted as missed, and
//! nothing of them stays behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

#[path = "tracer/net.rs"]
#[expect(dead_code, reason = "shared with the tracer's tests")]
mod net;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::UdpSocket,
    os::fd::{AsFd as _, AsRawFd as _},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use end_to_end::{hostdns_probe, is_root_or_skips, load::Responder, trace::Trace};
use hostdns_probe::netns::Netns;
use net::Node;
use serde_json::Value;

const SERVER: &str = "169.254.116.108:53";

/// A network namespace behind an `lxc` device, with no process in it.
struct Pod {
    number: u16,
    netns: Netns,
    born: Instant,
}

impl Pod {
    fn new(node: &Node, number: u16) -> Self {
        let netns = Netns::new().unwrap();
        let [high, low] = number.to_be_bytes();
        let (device, address) = (format!("lxc{number}n"), format!("10.9.{high}.{low}"));
        let far = format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd());
        let (near_mac, far_mac) =
            (format!("02:00:00:01:{high:02x}:{low:02x}"), format!("02:00:00:02:{high:02x}:{low:02x}"));
        batch(
            &node.node,
            &format!(
                "link add {device} address {near_mac} type veth peer name eth0 address {far_mac} netns {far}\n\
                 link set {device} up\nroute add {address}/32 dev {device}\n\
                 neigh replace {address} dev {device} lladdr {far_mac}\n"
            ),
        );
        batch(
            &netns,
            &format!(
                "link set eth0 up\naddr add {address}/32 dev eth0\nroute add default dev eth0\n\
                 neigh replace 169.254.116.108 dev eth0 lladdr {near_mac}\n"
            ),
        );
        Self { number, netns, born: Instant::now() }
    }

    /// Asks for a name of its own, and says whether there was an answer. A device that has just come up drops for a while:
    /// it is asked again, as resolvers do.
    fn ask(&self, letter: char) -> bool {
        let label = format!("p{:05}{letter}", self.number);
        let mut query = self.number.to_be_bytes().to_vec();
        query.extend(b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07");
        query.extend(label.as_bytes());
        query.extend(b"\x04test\x00\x00\x01\x00\x01");
        let socket = self.netns.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
        (0..40).any(|_| {
            socket.send_to(&query, SERVER).unwrap();
            socket.recv(&mut [0; 512]).is_ok()
        })
    }
}

fn batch(netns: &Netns, commands: &str) {
    let mut ip = Command::new("ip");
    ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut ip = netns.run(|| ip.spawn()).unwrap().unwrap();
    ip.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    let output = ip.wait_with_output().unwrap();
    assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The node of the tracer's tests, and a trace in it.
fn trace(node: &Node) -> Trace {
    let mut command = Command::new(hostdns_probe());
    command.args(["trace", "--output", "json"]);
    node.node.run(|| Trace::of(command)).unwrap()
}

/// Links that a process holds.
fn links(pid: u32) -> usize {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten();
    infos.filter(|info| fs::read_to_string(info.path()).is_ok_and(|text| text.contains("link_id:"))).count()
}

/// What a trace told, by name; and its summary.
fn end(trace: Trace, reader: thread::JoinHandle<String>) -> (BTreeMap<String, Value>, String) {
    // The last answers linger for their last hops.
    thread::sleep(Duration::from_millis(600));
    trace.interrupt();
    let text = reader.join().unwrap();
    let told: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names = told.into_iter().map(|one| (one["qname"].as_str().unwrap_or_default().to_owned(), one));
    (names.collect(), trace.summary())
}

fn read(trace: &mut Trace) -> thread::JoinHandle<String> {
    let mut stdout = trace.stdout();
    thread::spawn(move || std::io::read_to_string(&mut stdout).unwrap())
}

/// From "of 9 pods that asked, 3 were gone before their device was covered".
fn too_late(summary: &str) -> usize {
    let line = summary.lines().find(|line| line.contains("were gone before their device was covered"));
    line.map_or(0, |line| line.split(' ').rev().nth(7).and_then(|count| count.parse().ok()).unwrap())
}

fn came_by_its_device(transaction: &Value, number: u16) -> bool {
    let device = format!("lxc{number}n");
    let hops = transaction["hops"].as_array().unwrap();
    hops.iter().any(|hop| hop["hook"] == "ingress" && hop["interface"] == device.as_str())
}

#[test]
fn pods_that_live_for_two_seconds_are_followed_and_forgotten() {
    const PODS: u16 = 100;
    const PACE: Duration = Duration::from_millis(50);
    const LIFE: Duration = Duration::from_secs(2);
    if !is_root_or_skips("pods_that_live_for_two_seconds_are_followed_and_forgotten") {
        return;
    }
    let node = Node::new();
    let _server = Responder::start(&node.node, SERVER.parse().unwrap()).unwrap();
    let mut trace = trace(&node);
    let reader = read(&mut trace);
    let before = links(trace.pid());
    thread::scope(|scope| {
        for number in 1..=PODS {
            let due = Instant::now() + PACE;
            let pod = Pod::new(&node, number);
            assert!(pod.ask('a'), "pod {number} has no answer");
            scope.spawn(move || {
                thread::sleep((LIFE * 3 / 4).saturating_sub(pod.born.elapsed()));
                assert!(pod.ask('b'), "pod {number} has no answer any more");
                thread::sleep(LIFE.saturating_sub(pod.born.elapsed()));
            });
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    });
    let pid = trace.pid();
    let deadline = Instant::now() + Duration::from_secs(10);
    while links(pid) > before && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    let after = links(pid);
    let (told, summary) = end(trace, reader);
    eprintln!("{summary}");
    assert_eq!(after, before, "links of pods that are gone are still held");
    let missed: Vec<_> = (1..=PODS)
        .flat_map(|number| ['a', 'b'].map(|letter| format!("p{number:05}{letter}.test.")))
        .filter(|name| told.get(name).is_none_or(|one| one["ended"] != "answered"))
        .collect();
    assert!(missed.is_empty(), "not told: {missed:?}\n{summary}");
    let uncovered: Vec<_> =
        (1..=PODS).filter(|&number| !came_by_its_device(&told[&format!("p{number:05}b.test.")], number)).collect();
    assert!(uncovered.is_empty(), "not covered within {:?}: {uncovered:?}\n{summary}", LIFE * 3 / 4);
    assert_eq!(too_late(&summary), 0, "{summary}");
}

#[test]
fn pods_at_full_speed_are_covered_or_counted() {
    const PODS: u16 = 60;
    if !is_root_or_skips("pods_at_full_speed_are_covered_or_counted") {
        return;
    }
    let node = Node::new();
    let _server = Responder::start(&node.node, SERVER.parse().unwrap()).unwrap();
    let mut trace = trace(&node);
    let reader = read(&mut trace);
    let before = links(trace.pid());
    // One is there throughout: its device is covered, and whoever asked for it is heard to the end.
    let stays = Pod::new(&node, 1);
    stays.ask('a');
    for number in 2..=PODS {
        assert!(Pod::new(&node, number).ask('a'), "pod {number} has no answer");
    }
    assert!(stays.ask('b'));
    let pid = trace.pid();
    let deadline = Instant::now() + Duration::from_secs(10);
    while links(pid) > before + 2 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    let after = links(pid);
    let (told, summary) = end(trace, reader);
    eprintln!("{summary}");
    assert_eq!(after, before + 2, "only the device that is still there has links");
    let missed: Vec<_> =
        (1..=PODS).map(|number| format!("p{number:05}a.test.")).filter(|name| !told.contains_key(name)).collect();
    assert!(missed.is_empty(), "not told: {missed:?}\n{summary}");
    assert!(came_by_its_device(&told["p00001b.test."], 1), "{}", told["p00001b.test."]);
    assert!(too_late(&summary) < usize::from(PODS), "{summary}");
}
