//! What a packet costs in our hooks, measured by the kernel itself: `BPF_PROG_TEST_RUN` runs a loaded program on a
//! packet of ours many times and says how long one run took. No traffic, no other program, no noise of a load.
//!
//! The ceilings are generous: they catch a program that became several times slower, on any machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

#[path = "tracer/net.rs"]
#[expect(dead_code, reason = "shared with the tracer's tests")]
mod net;
#[path = "cost/run.rs"]
mod run;

use std::time::{Duration, Instant};

use end_to_end::is_root_or_skips;
use hostdns_probe::trace::tracer::{InterfaceToWatch, TraceConfig, Tracer};
use net::Node;
use run::{Program, packet};

/// Nanoseconds for one run: a packet that is none of ours, and one that is.
const OTHERS: u32 = 150;
const OURS: u32 = 1000;

#[test]
fn a_packet_costs_little() {
    if !is_root_or_skips("a_packet_costs_little") {
        return;
    }
    let node = Node::new();
    let config = TraceConfig {
        interfaces: vec![InterfaceToWatch {
            index: node.index("lxc1"),
            name: "lxc1".to_owned(),
            needed: true,
            ..InterfaceToWatch::default()
        }],
        own_netns: node.node.id().unwrap().cookie,
        cgroup_root: Some(net::cgroup_root()),
        ..TraceConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    let began = Instant::now();
    let tracer = node.node.run(move || handle.block_on(Tracer::start(config))).unwrap().unwrap();
    eprintln!("the tracer started in {:?}", began.elapsed());
    let others = [
        // Turned away by its protocol alone: this much is the measurement itself.
        ("ARP", packet::arp()),
        ("UDP to another address", packet::udp_v4([10, 0, 0, 2], [192, 0, 2, 53], 53)),
        ("UDP over IPv6", packet::udp_v6()),
        ("TCP to another address", packet::tcp_v4([10, 0, 0, 2], [192, 0, 2, 53], 443)),
    ];
    let ours = ("DNS to the address", packet::udp_v4([10, 0, 0, 2], [169, 254, 116, 108], 53));
    let mut slow = Vec::new();
    eprintln!("{:<18} {:<26} ns a packet", "program", "packet");
    for name in ["hostdns_ingress", "hostdns_egress", "hostdns_sockout", "hostdns_sockin"] {
        let program = Program::of_this_process(name);
        let mut measure = |what: &str, bytes: &[u8], repeat: u32, ceiling: u32| {
            // The least of many: whatever else the machine does only ever adds.
            let ns = (0..15)
                .map(|_| {
                    let ns = node.node.run(|| program.run(bytes, repeat)).unwrap();
                    if repeat < 10_000 {
                        // The buffers are emptied, and the window of the rate limit passes.
                        std::thread::sleep(Duration::from_millis(80));
                    }
                    ns
                })
                .min()
                .unwrap();
            eprintln!("{name:<18} {what:<26} {ns}");
            if ns > ceiling {
                slow.push(format!("{name}: {what}: {ns} ns, at most {ceiling}"));
            }
        };
        for (what, bytes) in &others {
            measure(what, bytes, 200_000, OTHERS);
        }
        measure(ours.0, &ours.1, 1000, OURS);
    }
    // What was measured is what was meant.
    assert!(tracer.other_counts().seen > 0, "the query of ours was not recognised");
    assert_eq!(tracer.counts().seen, 0);
    assert!(slow.is_empty(), "{slow:#?}");
    runtime.block_on(tracer.detach());
}
