use std::sync::Arc;

use hickory_proto::{
    op::OpCode,
    rr::{Name, RData, rdata},
};

use super::*;
use crate::query::{Evidence, UNKNOWN_NETNS, VantageKind};

fn vantage() -> Vantage {
    Vantage {
        name: "coredns-1".into(),
        kind: VantageKind::Coredns,
        netns_path: None,
        netns: UNKNOWN_NETNS,
        interface: None,
    }
}

fn question(transport: Transport) -> Question {
    Question {
        qname: "example.com".into(),
        qtype: RecordType::A,
        address: "169.254.116.108:53".parse().unwrap(),
        transport,
        timeout: Duration::from_secs(5),
    }
}

fn ended(transport: Transport, seen: Seen, stop: Stop) -> (Ended, String) {
    let query = query(&vantage(), &question(transport), seen, stop);
    (query.ended, query.note.unwrap_or_default())
}

fn os(code: i32) -> Stop {
    Stop::Hickory(Err(NetError::Io(Arc::new(io::Error::from_raw_os_error(code)))))
}

fn answered(code: ResponseCode) -> Seen {
    let message = Message::error_msg(7, OpCode::Query, code);
    Seen { id: Some(7), response: Some((message, Duration::from_micros(420))), ..Seen::default() }
}

#[test]
fn every_rcode_is_an_answer_whatever_hickory_says() {
    let codes = [
        (ResponseCode::NoError, "NOERROR"),
        (ResponseCode::ServFail, "SERVFAIL"),
        (ResponseCode::NXDomain, "NXDOMAIN"),
        (ResponseCode::Refused, "REFUSED"),
        (ResponseCode::Unknown(3841), "RCODE3841"),
    ];
    for (code, name) in codes {
        let stop = Stop::Hickory(Err(NetError::NoConnections));
        let query = query(&vantage(), &question(Transport::Udp), answered(code), stop);
        assert_eq!((query.ended, query.rcode.as_deref()), (Ended::Answered, Some(name)));
        assert_eq!((query.id, query.rtt_us, query.note), (7, Some(420), None));
    }
}

#[test]
fn truncated_and_mixed_answers_are_kept() {
    let name = Name::from_ascii("example.com.").unwrap();
    let mut message = Message::error_msg(7, OpCode::Query, ResponseCode::NoError);
    message.metadata.truncation = true;
    let cname = rdata::CNAME(Name::from_ascii("other.example.").unwrap());
    message.add_answer(Record::from_rdata(name.clone(), 60, RData::CNAME(cname)));
    message.add_answer(Record::from_rdata(name, 60, RData::A(rdata::A::new(192, 0, 2, 1))));
    let seen = Seen { response: Some((message, Duration::ZERO)), ..Seen::default() };
    let query = query(&vantage(), &question(Transport::Udp), seen, Stop::Hickory(Err(NetError::Truncated)));
    assert_eq!(query.ended, Ended::Answered);
    assert!(query.truncated);
    assert_eq!(query.answers, ["CNAME other.example.", "192.0.2.1"]);
}

#[test]
fn evidence_ends_it_and_an_answer_stays_on_record() {
    let evidence = || Stop::Evidence(Evidence { ended: Ended::Leaked, note: "left through eth0".into() });
    assert_eq!(ended(Transport::Udp, Seen::default(), evidence()), (Ended::Leaked, "left through eth0".into()));
    let both = query(&vantage(), &question(Transport::Udp), answered(ResponseCode::NoError), evidence());
    assert_eq!((both.ended, both.rcode.as_deref()), (Ended::Leaked, Some("NOERROR")));
}

#[test]
fn errors_of_the_kernel_say_what_they_mean() {
    let cases = [
        (libc::ECONNREFUSED, Ended::PortUnreachable, "nobody listens"),
        (libc::EPERM, Ended::Dropped, "EPERM"),
        (libc::ENETUNREACH, Ended::Unknown, "no route"),
        (libc::EHOSTUNREACH, Ended::Unknown, "host unreachable"),
        (libc::ENOBUFS, Ended::Unknown, "buffer"),
    ];
    for (code, expected, word) in cases {
        let (was, note) = ended(Transport::Udp, Seen::default(), os(code));
        assert_eq!(was, expected, "{note}");
        assert!(note.contains(word), "{note}");
    }
    let unroutable = socket::Error::Socket {
        doing: "route to the address",
        source: io::Error::from_raw_os_error(libc::ENETUNREACH),
    };
    let (was, note) = ended(Transport::Udp, Seen::default(), Stop::Socket(unroutable));
    assert_eq!(was, Ended::Unknown);
    assert!(note.starts_with("cannot route to the address: network unreachable"), "{note}");
}

#[test]
fn the_sockets_error_outweighs_hickorys() {
    let refused = Arc::new(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    let seen = Seen { error: Some(refused), ..Seen::default() };
    assert_eq!(ended(Transport::Udp, seen, Stop::Hickory(Err(NetError::NoConnections))).0, Ended::PortUnreachable);
}

#[test]
fn a_reset_after_the_handshake_is_not_a_closed_port() {
    let connected = Seen { connected: true, ..Seen::default() };
    assert_eq!(ended(Transport::Tcp, connected, os(libc::ECONNRESET)).0, Ended::Unanswered);
    assert_eq!(ended(Transport::Tcp, Seen::default(), os(libc::ECONNRESET)).0, Ended::PortUnreachable);
}

#[test]
fn silence_is_unknown_and_says_what_was_tried() {
    let sent = |sends, connected| Seen { sends, connected, ..Seen::default() };
    let cases = [
        (Transport::Udp, sent(1, false), "no answer within 5 s"),
        (Transport::Udp, sent(2, false), "no answer within 5 s; sent again after 1 s"),
        (Transport::Tcp, sent(0, false), "no TCP connection within 5 s"),
        (Transport::Tcp, sent(1, true), "connected, but no answer within 5 s"),
    ];
    for (transport, seen, note) in cases {
        assert_eq!(ended(transport, seen, Stop::Timeout), (Ended::Unknown, note.into()));
    }
}

#[test]
fn garbage_is_malformed() {
    let garbage = || Seen { unusable: Some("7 bytes that are not DNS".into()), ..Seen::default() };
    let (was, note) = ended(Transport::Udp, garbage(), Stop::Timeout);
    assert_eq!((was, note.as_str()), (Ended::Malformed, "no answer within 5 s, but 7 bytes that are not DNS"));
    let invalid = NetError::Io(Arc::new(io::ErrorKind::InvalidData.into()));
    let (was, note) = ended(Transport::Tcp, garbage(), Stop::Hickory(Err(invalid)));
    assert_eq!((was, note.as_str()), (Ended::Malformed, "7 bytes that are not DNS"));
}
