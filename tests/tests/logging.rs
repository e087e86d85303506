//! A line that an eBPF program logs comes out where all others do: on stderr, through the logging that the command sets
//! up. Alone in its file: it takes this process' stderr away.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

#[path = "tracer/net.rs"]
#[expect(dead_code, reason = "shared with the tracer's tests")]
mod net;
#[path = "cost/run.rs"]
#[expect(dead_code, reason = "shared with the measurement")]
mod run;

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use end_to_end::is_root_or_skips;
use hostdns_probe::{
    cli::{Color, Global},
    facts::Transport,
    logging,
    trace::tracer::{TraceConfig, Tracer},
};
use net::Node;
use run::{Program, packet};

/// Far more than the ring of the check's own events holds; the reader cannot keep up with a loop in the kernel.
const RUNS: u32 = 20_000;

#[test]
fn a_full_buffer_is_counted_and_logged() {
    if !is_root_or_skips("a_full_buffer_is_counted_and_logged") {
        return;
    }
    let node = Node::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    let stderr = Stderr::to(&file);
    logging::init(&Global { verbose: 0, quiet: false, color: Color::Auto });

    let config = TraceConfig { own_netns: node.node.id().unwrap().cookie, ..TraceConfig::default() };
    let config = TraceConfig { cgroup_root: Some(net::cgroup_root()), ..config };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    let tracer = node.node.run(move || handle.block_on(Tracer::start(config))).unwrap().unwrap();
    tracer.own_port(Transport::Udp, packet::SOURCE_PORT).unwrap();
    let query = packet::udp_v4([10, 0, 0, 2], [169, 254, 116, 108], 53);
    let program = Program::of_this_process("hostdns_sockout");
    node.node.run(|| program.run(&query, RUNS)).unwrap();

    let deadline = Instant::now() + Duration::from_secs(5);
    let logged = loop {
        let text = fs::read_to_string(file.path()).unwrap();
        if text.contains("ring buffer is full") || Instant::now() > deadline {
            break text;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let counts = tracer.counts();
    runtime.block_on(tracer.detach());
    drop(stderr);
    assert!(logged.contains("WARN") && logged.contains("ring buffer is full"), "logged: {logged:?}");
    assert!(counts.lost > 0, "{counts:?}");
    assert!(counts.seen + counts.lost >= u64::from(RUNS), "every one is counted: {counts:?}");
}

/// This process' stderr goes into a file, until this is dropped.
struct Stderr(OwnedFd);

impl Stderr {
    fn to(file: &tempfile::NamedTempFile) -> Self {
        let before = std::io::stderr().as_fd().try_clone_to_owned().unwrap();
        replace(file.as_file().as_raw_fd());
        Self(before)
    }
}

impl Drop for Stderr {
    fn drop(&mut self) {
        replace(self.0.as_raw_fd());
    }
}

fn replace(with: i32) {
    // SAFETY: both are open; 2 stays open, now as the other.
    let status = unsafe { libc::dup2(with, 2) };
    assert_eq!(status, 2);
}
