//! What really went over the wire for one question, read off the sockets that hickory uses.
//!
//! hickory turns SERVFAIL, REFUSED and truncated answers into errors and hides DNS ids; here every one of them is an
//! answer, so the bytes themselves are kept.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hickory_proto::op::{Message, MessageType, Query as DnsQuestion};
use tokio::sync::Notify;

/// Filled by the sockets while hickory asks.
#[derive(Debug, Default)]
pub(super) struct Wire {
    seen: Mutex<Seen>,
    heard: Notify,
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// The asking socket's own address, as far as it is known.
    pub(super) source: Option<SocketAddr>,
    /// DNS id of the query that went out.
    pub(super) id: Option<u16>,
    /// Queries that went out: 2 after the retransmission.
    pub(super) sends: u32,
    /// TCP: the handshake is done.
    pub(super) connected: bool,
    /// The response, and how long after the first send it came.
    pub(super) response: Option<(Message, Duration)>,
    /// Why what came back is not the response to this query.
    pub(super) unusable: Option<String>,
    /// The first error of the socket. hickory's pool makes `NoConnections` of it.
    pub(super) error: Option<Arc<io::Error>>,
    pub(super) started: Option<Instant>,
    pub(super) question: Option<DnsQuestion>,
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        // A panic elsewhere leaves plain data behind: nothing in it can be half done.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn seen(&self) -> Seen {
        self.lock().clone()
    }

    pub(super) fn has_source(&self, source: SocketAddr) {
        self.lock().source = Some(source);
    }

    /// The first packet goes out now. TCP says so at its SYN; later calls change nothing.
    pub(super) fn starts(&self) {
        self.lock().started.get_or_insert_with(Instant::now);
    }

    pub(super) fn connected(&self) {
        self.lock().connected = true;
    }

    /// Keeps an error on its way to hickory.
    pub(super) fn fails(&self, error: io::Error) -> io::Error {
        let error = Arc::new(error);
        let passed_on = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
        self.lock().error.get_or_insert(error);
        passed_on
    }

    /// A DNS query was handed to the kernel.
    pub(super) fn sends(&self, message: &[u8]) {
        self.starts();
        let mut seen = self.lock();
        seen.sends += 1;
        if seen.id.is_none() {
            seen.id = message.first_chunk::<2>().map(|id| u16::from_be_bytes(*id));
            seen.question = Message::from_vec(message).ok().and_then(|message| message.queries.into_iter().next());
        }
    }

    /// A DNS message, or what poses as one, came back. True: it is the response.
    pub(super) fn receives(&self, message: &[u8]) -> bool {
        let now = Instant::now();
        let mut seen = self.lock();
        if seen.response.is_some() {
            return true;
        }
        match response(message, seen.id, seen.question.as_ref()) {
            Ok(response) => {
                let rtt = seen.started.map_or(Duration::ZERO, |started| now.saturating_duration_since(started));
                seen.response = Some((response, rtt));
                drop(seen);
                self.heard.notify_one();
                true
            }
            Err(why) => {
                seen.unusable = Some(why);
                false
            }
        }
    }

    /// Until the response is there.
    pub(super) async fn heard(&self) {
        while self.lock().response.is_none() {
            self.heard.notified().await;
        }
    }
}

/// Any response with our id proves the way there and back: whatever its rcode, and also without a question section
/// (FORMERR and REFUSED may come without). Only one to a question of someone else is not ours.
fn response(message: &[u8], id: Option<u16>, question: Option<&DnsQuestion>) -> Result<Message, String> {
    let parsed =
        Message::from_vec(message).map_err(|error| format!("{} bytes that are not DNS: {error}", message.len()))?;
    if parsed.metadata.message_type != MessageType::Response {
        return Err("a DNS query, not a response".into());
    }
    if Some(parsed.metadata.id) != id {
        return Err(format!("a DNS response with id {}, which is not the query's", parsed.metadata.id));
    }
    match (parsed.queries.first(), question) {
        (Some(theirs), Some(ours)) if theirs != ours => Err(format!("a response to another question: {theirs}")),
        _ => Ok(parsed),
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{OpCode, ResponseCode},
        rr::{Name, RecordType},
    };

    use super::*;

    fn query() -> Message {
        let mut message = Message::query();
        message.add_query(DnsQuestion::query(Name::from_ascii("example.com.").unwrap(), RecordType::A));
        message
    }

    fn wire(query: &Message) -> Wire {
        let wire = Wire::default();
        wire.sends(&query.to_vec().unwrap());
        wire
    }

    #[test]
    fn servfail_without_a_question_is_a_response() {
        let query = query();
        let wire = wire(&query);
        let reply = Message::error_msg(query.metadata.id, OpCode::Query, ResponseCode::ServFail);
        assert!(wire.receives(&reply.to_vec().unwrap()));
        let seen = wire.seen();
        assert_eq!(seen.response.unwrap().0.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(seen.id, Some(query.metadata.id));
        assert_eq!(seen.unusable, None);
    }

    #[test]
    fn what_is_not_the_response_is_named() {
        let query = query();
        let id = query.metadata.id;
        let mut other = Message::response(id, OpCode::Query);
        other.add_query(DnsQuestion::query(Name::from_ascii("example.net.").unwrap(), RecordType::A));
        let cases = [
            (b"not dns".to_vec(), "not DNS"),
            (Vec::new(), "not DNS"),
            (query.to_vec().unwrap(), "not a response"),
            (Message::response(id.wrapping_add(1), OpCode::Query).to_vec().unwrap(), "not the query's"),
            (other.to_vec().unwrap(), "another question"),
        ];
        for (bytes, expected) in cases {
            let wire = wire(&query);
            assert!(!wire.receives(&bytes));
            let seen = wire.seen();
            assert!(seen.response.is_none());
            let why = seen.unusable.unwrap();
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn a_retransmission_keeps_the_id() {
        let query = query();
        let wire = wire(&query);
        wire.sends(&query.to_vec().unwrap());
        assert_eq!((wire.seen().sends, wire.seen().id), (2, Some(query.metadata.id)));
    }
}
