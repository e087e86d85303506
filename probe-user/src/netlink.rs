//! Asking the kernel over netlink without a runtime: one request, all its answers, blocking, in the calling thread's
//! network namespace. What is built or changed goes through the rtnetlink crate; this is for reading.

use std::{
    convert::Infallible,
    io,
    time::{Duration, Instant},
};

use netlink_packet_core::{
    DecodeError, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::TimeVal,
};

/// More than this is not read: a router with a full routing table must not stall the probe.
const MAX_BYTES: usize = 32 << 20;

/// Why an answer could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("netlink family {family}: {source}")]
    Socket { family: isize, source: io::Error },
    #[error("the kernel refused the request: {0}")]
    Refused(io::Error),
    #[error("the answer was longer than {} MiB", MAX_BYTES >> 20)]
    TooLong,
    #[error("the kernel's answer broke off: {0}")]
    Broken(io::Error),
    #[error("the kernel's answer cannot be read: {0}")]
    Decode(DecodeError),
    #[error("no complete answer within {0:?}")]
    Timeout(Duration),
}

/// One message, its content not decoded yet, so that one that cannot be does not spoil the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    /// What follows the netlink header.
    pub(crate) payload: Vec<u8>,
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self { kind: header.message_type, payload: payload.to_vec() })
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.payload.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.payload);
    }
}

/// What was read of a dump.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entries<T> {
    pub(crate) found: Vec<T>,
    /// How many messages could not be decoded, and why the first could not; none, if all could.
    pub(crate) unread: Option<String>,
}

impl<T> Entries<T> {
    /// Decodes message by message; one may hold no entry, or many.
    pub(crate) fn decode<I: IntoIterator<Item = T>>(
        messages: &[Message],
        decode: impl Fn(&[u8]) -> Result<I, DecodeError>,
    ) -> Self {
        let mut found = Vec::new();
        let mut errors = Vec::new();
        for message in messages {
            match decode(&message.payload) {
                Ok(entries) => found.extend(entries),
                Err(e) => errors.push(e),
            }
        }
        let unread = errors
            .first()
            .map(|first| format!("{} of {} entries could not be read: {first}", errors.len(), messages.len()));
        Self { found, unread }
    }
}

/// The messages in a datagram. One whose content cannot be decoded is an error among the others; one whose length
/// cannot be right is the last.
pub(crate) fn messages<I: NetlinkDeserializable>(
    mut datagram: &[u8],
) -> impl Iterator<Item = Result<NetlinkMessage<I>, DecodeError>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let here = std::mem::take(&mut datagram);
        let len = match NetlinkBuffer::new_checked(here) {
            Ok(buffer) => usize::try_from(buffer.length()).unwrap_or(usize::MAX),
            Err(e) => return Some(Err(e)),
        };
        datagram = here.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(NetlinkMessage::deserialize(here.get(..len).unwrap_or_default()))
    })
}

/// A netlink socket. It stays in the namespace it was opened in.
pub(crate) struct Netlink {
    socket: Socket,
    limit: Duration,
}

impl Netlink {
    /// Opens a socket of a family (`netlink_sys::protocols`); an answer has `limit` to be complete.
    pub(crate) fn open(family: isize, limit: Duration) -> Result<Self, Error> {
        let failed = |source| Error::Socket { family, source };
        let mut socket = Socket::new(family).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        let micros = i64::try_from(limit.as_micros()).unwrap_or(1_000_000);
        let timeout = TimeVal::new(micros / 1_000_000, micros % 1_000_000);
        setsockopt(&socket, ReceiveTimeout, &timeout).map_err(|e| failed(e.into()))?;
        Ok(Self { socket, limit })
    }

    /// Everything of a kind.
    pub(crate) fn dump(&self, request: impl NetlinkSerializable) -> Result<Vec<Message>, Error> {
        let request = serialize(request, NLM_F_REQUEST | NLM_F_DUMP);
        let mut last = Vec::new();
        for _ in 0..3 {
            let answer = self.ask(&request, Answer::default())?;
            last = answer.messages;
            if !answer.interrupted {
                break;
            }
        }
        Ok(last)
    }

    /// One thing.
    pub(crate) fn get(&self, request: impl NetlinkSerializable) -> Result<Option<Message>, Error> {
        let answer = self.ask(&serialize(request, NLM_F_REQUEST), Answer { single: true, ..Answer::default() })?;
        Ok(answer.messages.into_iter().next())
    }

    fn ask(&self, request: &[u8], mut answer: Answer) -> Result<Answer, Error> {
        self.socket.send_to(request, &SocketAddr::new(0, 0), 0).map_err(Error::Broken)?;
        let started = Instant::now();
        let mut received = 0;
        loop {
            let mut datagram = Vec::with_capacity(64 << 10);
            match self.socket.recv(&mut datagram, 0) {
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(Error::Timeout(self.limit));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::Broken(e)),
            }
            received += datagram.len();
            if answer.read(&datagram)? {
                return Ok(answer);
            }
            if received > MAX_BYTES {
                return Err(Error::TooLong);
            }
            if started.elapsed() > self.limit {
                return Err(Error::Timeout(self.limit));
            }
        }
    }
}

fn serialize(request: impl NetlinkSerializable, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = 1;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[derive(Default)]
struct Answer {
    messages: Vec<Message>,
    single: bool,
    /// What was dumped changed meanwhile (`NLM_F_DUMP_INTR`).
    interrupted: bool,
}

impl Answer {
    /// Takes one datagram in; true when the answer is complete.
    fn read(&mut self, datagram: &[u8]) -> Result<bool, Error> {
        let refused = |code: i32| match code {
            ..0 => Err(Error::Refused(io::Error::from_raw_os_error(code.saturating_neg()))),
            _ => Ok(true),
        };
        for message in messages::<Message>(datagram) {
            let message = message.map_err(Error::Decode)?;
            self.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::Done(done) => return refused(done.code),
                NetlinkPayload::Error(error) => return refused(error.raw_code()),
                NetlinkPayload::InnerMessage(message) => self.messages.push(message),
                _ => continue,
            }
            if self.single {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// For tests that write what a kernel would send.
#[cfg(test)]
pub(crate) fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    use netlink_packet_core::{DefaultNla, Emitable as _};
    let attribute = DefaultNla::new(kind, payload.to_vec());
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        serialize(Message { kind, payload: payload.to_vec() }, 0)
    }

    #[test]
    fn messages_are_taken_until_done() {
        let mut datagram = message(20, b"abcd");
        datagram.extend(message(NLMSG_DONE, &0_i32.to_ne_bytes()));
        let mut answer = Answer::default();
        assert!(answer.read(&datagram).unwrap());
        assert_eq!(answer.messages, [Message { kind: 20, payload: b"abcd".to_vec() }]);
    }

    #[test]
    fn an_error_is_told_by_its_number() {
        let datagram = message(NLMSG_ERROR, &(-libc::EPERM).to_ne_bytes());
        let error = Answer::default().read(&datagram).unwrap_err();
        assert!(error.to_string().contains("not permitted"), "{error}");
    }

    #[test]
    fn a_message_cut_short_is_told() {
        let mut datagram = message(20, b"abcd");
        datagram.extend(&message(21, b"efgh")[..18]);
        let error = Answer::default().read(&datagram).unwrap_err();
        assert!(matches!(error, Error::Decode(_)), "{error}");
    }

    #[test]
    fn one_entry_that_cannot_be_read_does_not_hide_the_others() {
        let messages = [1_u8, 2, 3].map(|byte| Message { kind: 16, payload: vec![byte] });
        let odd = |payload: &[u8]| match payload {
            [2] => Err(DecodeError::from("it is even")),
            _ => Ok(payload.first().copied()),
        };
        let read = Entries::decode(&messages, odd);
        assert_eq!(read.found, [1, 3]);
        assert_eq!(read.unread.as_deref(), Some("1 of 3 entries could not be read: it is even"));
    }

    proptest::proptest! {
        #[test]
        fn any_datagram_is_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _complete = Answer::default().read(&bytes);
        }
    }
}
