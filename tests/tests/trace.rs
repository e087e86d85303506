//! `hostdns-probe trace` beside real queries in the lab: every transaction told, hop by hop, in every form.

use std::{io::Write as _, process::Command};

use end_to_end::{
    is_installed_or_skips, is_root_or_skips,
    lab::Lab,
    stderr, stdout,
    trace::{Trace, ask},
};
use serde_json::Value;

fn hooks(transaction: &Value) -> Vec<String> {
    let hops = transaction["hops"].as_array().expect("hops");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    hops.iter().map(|hop| format!("{} {}", text(&hop["direction"]), text(&hop["hook"]))).collect()
}

#[test]
fn a_healthy_query_is_seen_seven_times_and_answered() {
    if !is_root_or_skips("a_healthy_query_is_seen_seven_times_and_answered") {
        return;
    }
    let lab = Lab::up("healthy-known-address", "trace-healthy");
    let trace = Trace::start(&lab, &["--output", "json", "--count", "3", "--duration", "30s"]);
    ask("trace-healthy", "coredns", "udp");
    // The first one showed the pod; its device is hooked within milliseconds.
    std::thread::sleep(std::time::Duration::from_millis(500));
    ask("trace-healthy", "coredns", "udp");
    ask("trace-healthy", "coredns", "tcp");
    let told = trace.transactions();
    assert_eq!(told.len(), 3);
    for transaction in &told {
        assert_eq!(transaction["schema"], "hostdns-probe/transaction/v1");
        assert_eq!(transaction["ended"], "answered", "{transaction}");
        assert_eq!((&transaction["qname"], &transaction["qtype"]), (&"example.com.".into(), &"A".into()));
        assert_eq!(transaction["rcode"], "NOERROR");
        assert_eq!(transaction["events_lost"], 0);
        assert!(transaction["pod"]["name"].as_str().is_some_and(|pod| pod.starts_with("coredns")), "{transaction}");
        assert!(transaction["latency"]["total_us"].as_u64().is_some_and(|total| total > 0), "{transaction}");
    }
    let seven = [
        "request socket_out",
        "request ingress",
        "request socket_in",
        "reply socket_out",
        "reply egress",
        "reply egress",
        "reply socket_in",
    ];
    assert_eq!(hooks(&told[1]), seven);
    let latency = &told[1]["latency"];
    let parts: u64 =
        ["to_server_us", "server_us", "back_us"].iter().map(|part| latency[part].as_u64().expect("a time")).sum();
    assert!(parts.abs_diff(latency["total_us"].as_u64().expect("a time")) <= 3, "{latency}");
    assert_eq!(told[2]["flow"]["transport"], "tcp");
}

#[test]
fn every_query_that_leaks_is_told_as_leaked() {
    if !is_root_or_skips("every_query_that_leaks_is_told_as_leaked") {
        return;
    }
    let lab = Lab::up("issue-36761-leak", "trace-leak");
    let trace = Trace::start(&lab, &["--output", "json", "--count", "3", "--duration", "30s", "--from", "app-*"]);
    ask("trace-leak", "coredns", "udp"); // not asked for
    for transport in ["udp", "udp", "tcp"] {
        ask("trace-leak", "app", transport);
    }
    let told = trace.transactions();
    assert_eq!(told.len(), 3);
    for transaction in &told {
        assert_eq!(transaction["ended"], "leaked", "{transaction}");
        assert_eq!(transaction["leak"]["interface"], "eth0");
        let source = transaction["leak"]["as"].as_str().expect("as whom");
        assert!(source.starts_with("192.168.77.2:"), "{source}");
    }
}

#[test]
fn a_drop_has_the_kernels_reason_and_ciliums() {
    if !is_root_or_skips("a_drop_has_the_kernels_reason_and_ciliums") {
        return;
    }
    let lab = Lab::up("issue-36761-drop", "trace-drop");
    let trace = Trace::start(&lab, &["--output", "json", "--count", "1", "--duration", "30s"]);
    ask("trace-drop", "app", "udp");
    let told = trace.transactions();
    assert_eq!(told[0]["ended"], "dropped", "{}", told[0]);
    assert_eq!(told[0]["drop"]["reason"], "TC_INGRESS");
    assert_eq!(told[0]["drop"]["cilium_reason"]["text"], "FIB lookup failed", "{}", told[0]);
}

#[test]
fn the_text_is_one_line_each_and_a_summary() {
    if !is_root_or_skips("the_text_is_one_line_each_and_a_summary") {
        return;
    }
    let lab = Lab::up("healthy-known-address", "trace-text");
    let trace = Trace::start(&lab, &["--count", "2", "--duration", "30s", "--qname", ".example.com"]);
    ask("trace-text", "app", "udp");
    ask("trace-text", "coredns", "udp");
    let text = String::from_utf8(trace.output()).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("answered") && lines[0].contains("example.com. A"), "{text}");
    assert!(text.contains("2 transactions in ") && text.contains("2 answered"), "{text}");
    assert!(text.contains(" 0 lost"), "{text}");
    assert!(!text.contains("not covered"), "{text}");
}

/// Type and body of each block; lengths must agree at both ends.
fn blocks(mut bytes: &[u8]) -> Vec<(u32, &[u8])> {
    let word = |at: &[u8]| u32::from_ne_bytes(at[..4].try_into().expect("four bytes"));
    let mut blocks = Vec::new();
    while !bytes.is_empty() {
        let length = word(&bytes[4..]) as usize;
        assert_eq!(word(&bytes[length - 4..]) as usize, length);
        blocks.push((word(bytes), &bytes[8..length - 4]));
        bytes = &bytes[length..];
    }
    blocks
}

#[test]
fn the_packet_file_has_every_hop_with_its_interface_and_a_comment() {
    if !is_root_or_skips("the_packet_file_has_every_hop_with_its_interface_and_a_comment") {
        return;
    }
    let lab = Lab::up("issue-36761-leak", "trace-pcapng");
    let trace = Trace::start(&lab, &["--output", "pcapng", "--count", "1", "--duration", "30s"]);
    ask("trace-pcapng", "app", "udp");
    let file = trace.output();
    let blocks = blocks(&file);
    assert_eq!(blocks[0].0, 0x0a0d_0d0a);
    let of = |kind: u32| blocks.iter().filter(move |(found, _)| *found == kind).map(|(_, body)| *body);
    let contains = |body: &[u8], text: &str| body.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(of(1).any(|body| contains(body, "eth0")), "no interface is named eth0");
    let packets: Vec<&[u8]> = of(6).collect();
    assert!(packets.len() >= 3, "{} packets", packets.len());
    for packet in &packets {
        assert!(contains(packet, "leaked"), "no comment");
        assert!(contains(packet, "\u{7}example\u{3}com"), "no question");
    }
    assert!(packets.iter().any(|packet| contains(packet, "eth0 transmit") && contains(packet, "masqueraded")));
}

/// What tshark (Debian's) makes of a packet file: a row for each packet, of these fields. It must have nothing to say of
/// the file, nor of a packet, but that it is the same as another: each hop is.
fn dissected(file: &[u8], fields: &[&str]) -> Vec<Vec<String>> {
    const SEVERITY: [&str; 2] = ["_ws.expert.severity", "_ws.expert.message"];
    const WARNING: u32 = 0x0060_0000; // PI_WARN of Wireshark's epan/proto.h; an error is more
    const SEEN_AGAIN: [&str; 2] = ["DNS query retransmission", "DNS response retransmission"];
    let mut on_disk = tempfile::NamedTempFile::new().expect("a file");
    on_disk.write_all(file).expect("it can be written");
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(on_disk.path()).args(["-T", "fields", "-E", "aggregator=~"]);
    for protocol in ["ip", "udp", "tcp"] {
        tshark.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    // A segment has a row at each hop, until the kernel frees it: to tshark one that is late, or sent again.
    tshark.args(["-o", "tcp.analyze_sequence_numbers:FALSE"]);
    for field in SEVERITY.iter().chain(fields) {
        tshark.args(["-e", field]);
    }
    let output = tshark.output().expect("it starts");
    let (text, said) = (stdout(&output), stderr(&output));
    assert!(output.status.success(), "{said}");
    let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("Running as user")).collect();
    assert!(said.is_empty(), "{said:?}");
    let row = |line: &str| {
        let mut columns = line.split('\t').map(str::to_owned);
        let mut expert = || columns.next().expect("a column");
        let (severities, messages) = (expert(), expert());
        for (severity, message) in severities.split('~').zip(messages.split('~')).filter(|(s, _)| !s.is_empty()) {
            let severity: u32 = severity.parse().expect("a number");
            let again = SEEN_AGAIN.iter().any(|prefix| message.starts_with(prefix));
            assert!(severity < WARNING || again, "{message}: {line}");
        }
        columns.collect::<Vec<_>>()
    };
    text.lines().map(row).collect()
}

#[test]
fn tshark_reads_the_packet_file_without_a_warning() {
    const NAME: &str = "tshark_reads_the_packet_file_without_a_warning";
    if !is_root_or_skips(NAME) || !is_installed_or_skips("tshark", NAME) {
        return;
    }
    let lab = Lab::up("healthy-known-address", "trace-tshark");
    let trace = Trace::start(&lab, &["--output", "pcapng", "--count", "2", "--duration", "30s"]);
    ask("trace-tshark", "app", "udp");
    ask("trace-tshark", "app", "tcp");
    let fields = ["frame.interface_name", "frame.comment", "dns.qry.name", "tcp.seq_raw", "ip.checksum.status"];
    let rows = dissected(&trace.output(), &fields);
    assert!(rows.len() > 12, "{rows:?}");
    for row in &rows {
        assert!(!row[0].is_empty() && row[1].contains("transaction"), "{row:?}");
        assert_eq!(row[4], "1", "a good checksum: {row:?}");
    }
    assert!(rows.iter().filter(|row| row[2] == "example.com").count() >= 6, "{rows:?}");
    // Of the connection: numbers of its own, not made up. What is dropped in a socket's queue has lost its header.
    let segments = rows.iter().filter(|row| !row[3].is_empty() && !row[1].contains(" drop;"));
    let numbers: std::collections::BTreeSet<&str> = segments.map(|row| row[3].as_str()).collect();
    assert!(numbers.len() >= 4 && !numbers.contains("0"), "{numbers:?}");
}

#[test]
fn tshark_shows_where_a_query_leaked_and_as_whom() {
    const NAME: &str = "tshark_shows_where_a_query_leaked_and_as_whom";
    if !is_root_or_skips(NAME) || !is_installed_or_skips("tshark", NAME) {
        return;
    }
    let lab = Lab::up("issue-36761-leak", "trace-tshark-leak");
    let trace = Trace::start(&lab, &["--output", "pcapng", "--count", "2", "--duration", "30s"]);
    ask("trace-tshark-leak", "app", "udp");
    ask("trace-tshark-leak", "coredns", "udp");
    let rows = dissected(&trace.output(), &["frame.interface_name", "frame.comment", "ip.src", "dns.qry.name"]);
    assert!(rows.iter().all(|row| row[1].contains(", leaked") && row[3] == "example.com"), "{rows:?}");
    let out: Vec<_> = rows.iter().filter(|row| row[1].contains("masqueraded; left the node")).collect();
    assert_eq!(out.len(), 2, "{rows:?}");
    assert!(out.iter().all(|row| (row[0].as_str(), row[2].as_str()) == ("eth0", "192.168.77.2")), "{out:?}");
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    if !is_root_or_skips("a_reader_that_goes_away_ends_it_quietly") {
        return;
    }
    let lab = Lab::up("healthy-known-address", "trace-pipe");
    let mut trace = Trace::start(&lab, &["--output", "json", "--duration", "60s"]);
    trace.close_stdout();
    ask("trace-pipe", "app", "udp");
    let _summary = trace.summary();
}
