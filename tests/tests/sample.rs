//! `trace --sample N`: which queries are followed is told beforehand from their ports and ids, and the output says that
//! it is a sample.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use end_to_end::{is_root_or_skips, lab::Lab, load::Responder, trace::Trace};
use hostdns_probe_ebpf::{UDP, sample_hash};

const ONE_IN: u32 = 4;
const SOCKETS: u16 = 8;
const QUERIES: u16 = 50;

fn query(id: u16) -> Vec<u8> {
    let mut query = [id, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    query.extend(b"\x06sample\x04test\x00\x00\x01\x00\x01");
    query
}

#[test]
fn exactly_the_sample_is_followed() {
    if !is_root_or_skips("exactly_the_sample_is_followed") {
        return;
    }
    let lab = Lab::up("nobody-listens", "trace-sample");
    let (node, pod) = (lab.netns(None), lab.netns(Some("app")));
    let server: SocketAddr = "169.254.116.108:53".parse().expect("an address");
    let _responder = Responder::start(&node, server).expect("the port is free");
    let trace = Trace::start(&lab, &["--output", "json", "--sample", "4", "--duration", "6s"]);
    let (mut asked, mut sampled) = (0_u32, BTreeSet::new());
    for _ in 0..SOCKETS {
        let socket = pod.run(|| UdpSocket::bind("0.0.0.0:0")).expect("the pod is there").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("it can be set");
        let port = socket.local_addr().expect("it is bound").port();
        for n in 0..QUERIES {
            let message = query(n * 1_301);
            socket.send_to(&message, server).expect("it can be sent");
            socket.recv(&mut [0; 512]).expect("an answer");
            asked += 1;
            let head = [message[0], message[1], message[2], message[3]];
            if sample_hash(UDP, port, head).is_multiple_of(ONE_IN) {
                sampled.insert((port, n * 1_301));
            }
        }
    }
    let told = trace.transactions();
    let followed: BTreeSet<(u16, u16)> = told
        .iter()
        .map(|one| {
            let source: SocketAddr =
                one["flow"]["src"].as_str().and_then(|text| text.parse().ok()).expect("an address");
            (source.port(), u16::try_from(one["dns_id"].as_u64().expect("an id")).expect("16 bits"))
        })
        .collect();
    assert_eq!(followed, sampled, "of {asked} queries");
    assert_eq!(told.len(), sampled.len(), "one is told twice");
    for one in &told {
        assert_eq!((&one["ended"], &one["sampled"]), (&"answered".into(), &ONE_IN.into()), "{one}");
    }
    // A quarter, within what chance allows.
    assert!((50..150).contains(&sampled.len()), "{} of {asked}", sampled.len());
}

#[test]
fn the_text_says_that_it_is_a_sample() {
    if !is_root_or_skips("the_text_says_that_it_is_a_sample") {
        return;
    }
    let lab = Lab::up("healthy-known-address", "trace-sample-text");
    let trace = Trace::start(&lab, &["--sample", "4", "--duration", "1s"]);
    let text = String::from_utf8(trace.output()).expect("text");
    assert!(text.contains("one query in 4"), "{text}");
}
