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
    ops::RangeInclusive,
    os::fd::{AsFd as _, AsRawFd as _},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use end_to_end::{hostdns_probe, is_root_or_skips, load::Responder, trace::Trace};
use hostdns_probe::netns::Netns;
use net::Node;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
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

/// The node of the tracer's tests with a server, and a trace in it.
struct Churn {
    trace: Trace,
    /// What the trace tells.
    reader: thread::JoinHandle<String>,
    /// Links that the trace holds of the node's own devices.
    before: usize,
    _server: Responder,
    node: Node,
}

impl Churn {
    fn start() -> Self {
        let node = Node::new();
        let server = Responder::start(&node.node, SERVER.parse().unwrap()).unwrap();
        let mut command = Command::new(hostdns_probe());
        command.args(["trace", "--output", "json"]);
        let mut trace = node.node.run(|| Trace::of(command)).unwrap();
        let mut stdout = trace.stdout();
        let reader = thread::spawn(move || std::io::read_to_string(&mut stdout).unwrap());
        let before = links(trace.pid());
        Self { trace, reader, before, _server: server, node }
    }

    /// A pod that has asked once.
    fn pod(&self, number: u16) -> Pod {
        let pod = Pod::new(&self.node, number);
        assert!(pod.ask('a'), "pod {number} has no answer");
        pod
    }

    /// Waits until the trace holds so many links, and says how many it holds.
    fn wait_for_links(&self, wanted: impl Fn(usize) -> bool) -> usize {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !wanted(links(self.trace.pid())) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
        }
        links(self.trace.pid())
    }

    /// These pods come, ask and are gone while the trace stands still: it is too late for every one of them.
    fn miss(&self, numbers: RangeInclusive<u16>) {
        let process = Pid::from_raw(i32::try_from(self.trace.pid()).unwrap());
        kill(process, Signal::SIGSTOP).unwrap();
        for number in numbers.clone() {
            self.pod(number);
        }
        wait_until_gone(&self.node, numbers);
        kill(process, Signal::SIGCONT).unwrap();
    }

    /// What the trace told, by name; and its summary.
    fn end(self) -> (BTreeMap<String, Value>, String) {
        // The last answers linger for their last hops.
        thread::sleep(Duration::from_millis(600));
        self.trace.interrupt();
        let text = self.reader.join().unwrap();
        let told: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let names = told.into_iter().map(|one| (one["qname"].as_str().unwrap_or_default().to_owned(), one));
        (names.collect(), self.trace.summary())
    }
}

/// Links that a process holds.
fn links(pid: u32) -> usize {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten();
    infos.filter(|info| fs::read_to_string(info.path()).is_ok_and(|text| text.contains("link_id:"))).count()
}

/// From "of 9 pods that asked, 3 were gone before their device was covered": both numbers. None: it says nothing of that.
fn too_late(summary: &str) -> Option<(usize, usize)> {
    let line = summary.lines().find(|line| line.contains("were gone before their device was covered"))?;
    let mut numbers = line.split(' ').filter_map(|word| word.parse().ok());
    Some((numbers.next().unwrap(), numbers.next().unwrap()))
}

/// Waits until the devices of these pods are gone: the kernel takes a namespace down after its last user has left.
fn wait_until_gone(node: &Node, numbers: RangeInclusive<u16>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let is_there = |number: u16| nix::net::if_::if_nametoindex(format!("lxc{number}n").as_str()).is_ok();
    while node.node.run(|| numbers.clone().any(is_there)).unwrap() {
        assert!(Instant::now() < deadline, "devices of pods that are gone stay");
        thread::sleep(Duration::from_millis(20));
    }
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
    let churn = Churn::start();
    thread::scope(|scope| {
        for number in 1..=PODS {
            let due = Instant::now() + PACE;
            let pod = churn.pod(number);
            scope.spawn(move || {
                thread::sleep((LIFE * 3 / 4).saturating_sub(pod.born.elapsed()));
                assert!(pod.ask('b'), "pod {number} has no answer any more");
                thread::sleep(LIFE.saturating_sub(pod.born.elapsed()));
            });
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    });
    let before = churn.before;
    let after = churn.wait_for_links(|links| links <= before);
    let (told, summary) = churn.end();
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
    assert!(!summary.contains("pods that asked"), "{summary}");
}

#[test]
fn pods_at_full_speed_are_covered_or_counted() {
    /// Come and go while the trace stands still.
    const MISSED: u16 = 20;
    const PODS: u16 = 60;
    if !is_root_or_skips("pods_at_full_speed_are_covered_or_counted") {
        return;
    }
    let churn = Churn::start();
    // One is there throughout: its device is covered, and whoever asked for it is heard to the end.
    let with_one = churn.before + 2;
    let stays = churn.pod(1);
    assert_eq!(churn.wait_for_links(|links| links == with_one), with_one);
    churn.miss(2..=1 + MISSED);
    // Each goes once its device is covered.
    for number in 2 + MISSED..=PODS / 2 {
        let held = churn.wait_for_links(|links| links == with_one);
        let _pod = churn.pod(number);
        assert_eq!(churn.wait_for_links(|links| links == held + 2), held + 2, "pod {number} is not covered");
    }
    // And some go when they please.
    for number in PODS / 2 + 1..=PODS {
        churn.pod(number);
    }
    assert!(stays.ask('b'));
    let after = churn.wait_for_links(|links| links <= with_one);
    let (told, summary) = churn.end();
    eprintln!("{summary}");
    assert_eq!(after, with_one, "only the device that is still there has links");
    let missed: Vec<_> =
        (1..=PODS).map(|number| format!("p{number:05}a.test.")).filter(|name| !told.contains_key(name)).collect();
    assert!(missed.is_empty(), "not told: {missed:?}\n{summary}");
    assert!(came_by_its_device(&told["p00001b.test."], 1), "{}", told["p00001b.test."]);
    let (asked, late) = too_late(&summary).expect("it says how many it missed");
    assert_eq!(asked, usize::from(PODS), "{summary}");
    assert!((usize::from(MISSED)..=usize::from(MISSED + PODS / 2)).contains(&late), "{summary}");
    assert!(!summary.contains("had not been covered yet") && !summary.contains("cannot be covered"), "{summary}");
}

#[test]
fn the_count_of_those_missed_is_exact() {
    const MISSED: u16 = 12;
    const COVERED: u16 = 8;
    if !is_root_or_skips("the_count_of_those_missed_is_exact") {
        return;
    }
    let churn = Churn::start();
    churn.miss(1..=MISSED);
    let pods: Vec<Pod> = (MISSED + 1..=MISSED + COVERED).map(|number| Pod::new(&churn.node, number)).collect();
    assert!(pods.iter().all(|pod| pod.ask('a')));
    let links = churn.before + 2 * usize::from(COVERED);
    assert_eq!(churn.wait_for_links(|held| held == links), links);
    let (_told, summary) = churn.end();
    let numbers = (usize::from(MISSED + COVERED), usize::from(MISSED));
    assert_eq!(too_late(&summary), Some(numbers), "{summary}");
}
