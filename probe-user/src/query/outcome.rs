//! From what was seen on the wire to how the query ended.

use std::{io, time::Duration};

use hickory_net::NetError;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Record, RecordType},
};

use super::{
    Query, Question, Vantage,
    ask::{RETRANSMIT_AFTER, Stop},
    socket,
    wire::Seen,
};
use crate::{ended::Ended, facts::Transport, trace::decode::dns};

/// Puts the query together. A response decides, whatever hickory made of it; without one, what stopped the asking.
pub(super) fn query(vantage: &Vantage, question: &Question, seen: Seen, stop: Stop) -> Query {
    let (ended, note) = match (&seen.response, stop) {
        (_, Stop::Evidence(evidence)) => (evidence.ended, Some(evidence.note)),
        (Some(_), _) => (Ended::Answered, None),
        (None, stop) => {
            let (ended, note) = without_response(question, &seen, stop);
            (ended, Some(note))
        }
    };
    let response = seen.response.as_ref();
    Query {
        vantage: vantage.name.clone(),
        vantage_kind: vantage.kind,
        address: question.address,
        transport: question.transport,
        qname: question.qname.clone(),
        qtype: question.qtype.to_string(),
        source: seen.source,
        id: seen.id.unwrap_or(0),
        ended,
        rcode: response.map(|(message, _)| rcode(message.metadata.response_code)),
        truncated: response.is_some_and(|(message, _)| message.metadata.truncation),
        answers: response.map(|(message, _)| answers(message, question.qtype)).unwrap_or_default(),
        rtt_us: response.map(|(_, rtt)| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        note,
        traces: Vec::new(),
    }
}

fn without_response(question: &Question, seen: &Seen, stop: Stop) -> (Ended, String) {
    match stop {
        Stop::Name(why) => (Ended::Unknown, why),
        Stop::Socket(socket::Error::Socket { doing, source }) => {
            let (ended, why) = failure(&source);
            (ended, format!("cannot {doing}: {why}"))
        }
        Stop::Socket(error) => (Ended::Unknown, error.to_string()),
        Stop::Hickory(Err(error)) => from_hickory(question, seen, &error),
        Stop::Evidence(evidence) => (evidence.ended, evidence.note),
        Stop::Timeout | Stop::Heard | Stop::Hickory(Ok(())) => silence(question, seen),
    }
}

fn from_hickory(question: &Question, seen: &Seen, error: &NetError) -> (Ended, String) {
    // The socket's own error first: the pool does not always hand it on.
    match (&seen.error, error) {
        (Some(error), _) | (None, NetError::Io(error)) => from_socket(seen, error),
        (None, NetError::Timeout | NetError::NoConnections) => silence(question, seen),
        (None, NetError::Proto(error)) => {
            (Ended::Malformed, seen.unusable.clone().unwrap_or_else(|| format!("not a DNS response: {error}")))
        }
        (None, other) => (Ended::Unknown, format!("the query failed: {other}")),
    }
}

fn from_socket(seen: &Seen, error: &io::Error) -> (Ended, String) {
    if let (io::ErrorKind::InvalidData, Some(why)) = (error.kind(), &seen.unusable) {
        return (Ended::Malformed, why.clone());
    }
    // A handshake got through, so somebody listens: it is the answer that was refused.
    if seen.connected && is_closed(error.kind()) {
        return (Ended::Unanswered, "the server closed the connection without an answer".into());
    }
    failure(error)
}

fn is_closed(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

/// What the kernel's error says of the packet. Where it came from (the node, or somebody outside) is for the trace.
fn failure(error: &io::Error) -> (Ended, String) {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET) => {
            (Ended::PortUnreachable, "connection refused: nobody listens on that port".into())
        }
        // NF_DROP in an output chain, or a BPF program of the cgroup, on the sending socket itself.
        Some(libc::EPERM) => {
            (Ended::Dropped, "the kernel refused to send it (EPERM): a packet filter or BPF program forbids it".into())
        }
        Some(libc::ENETUNREACH) => (Ended::Unknown, "network unreachable: no route to the address from there".into()),
        Some(libc::EHOSTUNREACH) => (Ended::Unknown, "host unreachable: the next hop does not answer".into()),
        Some(libc::ETIMEDOUT) => (Ended::Unknown, "the connection timed out".into()),
        _ => (Ended::Unknown, error.to_string()),
    }
}

/// Nothing came, or nothing usable. Where it was lost is not known here: the traces tell.
fn silence(question: &Question, seen: &Seen) -> (Ended, String) {
    let within = seconds(question.timeout);
    if let Some(why) = &seen.unusable {
        return (Ended::Malformed, format!("no answer within {within}, but {why}"));
    }
    let note = match (question.transport, seen.connected) {
        (Transport::Tcp, false) => format!("no TCP connection within {within}"),
        (Transport::Tcp, true) => format!("connected, but no answer within {within}"),
        (Transport::Udp, _) if seen.sends > 1 => {
            format!("no answer within {within}; sent again after {}", seconds(RETRANSMIT_AFTER))
        }
        (Transport::Udp, _) => format!("no answer within {within}"),
    };
    (Ended::Unknown, note)
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

/// The records of the answer section: the data alone for the type that was asked, with the type before it for others.
fn answers(message: &Message, qtype: RecordType) -> Vec<String> {
    let text = |record: &Record| {
        let kind = record.record_type();
        if kind == qtype { record.data.to_string() } else { format!("{kind} {}", record.data) }
    };
    message.answers.iter().map(text).collect()
}

fn rcode(code: ResponseCode) -> String {
    dns::rcode(u16::from(code))
}

#[cfg(test)]
mod tests;
