//! Asking the kernel over netlink: one request, all its answers, in the calling thread's network namespace.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

use netlink_sys::{Socket, SocketAddr};
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::TimeVal,
};

use super::bytes::{array, u16_at, u32_at};

/// More than this is not read: a router with a full routing table must not stall the probe.
const MAX_BYTES: usize = 32 << 20;
const NLMSG_HEADER: usize = 16; // struct nlmsghdr, include/uapi/linux/netlink.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// Why an answer could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("netlink family {family}: {source}")]
    Socket { family: isize, source: io::Error },
    #[error("the kernel refused the request: {0}")]
    Refused(io::Error),
    #[error("the answer was longer than {} MiB", MAX_BYTES >> 20)]
    TooLong,
    #[error("the kernel's answer broke off: {0}")]
    Broken(io::Error),
    #[error("no complete answer within {0:?}")]
    Timeout(Duration),
}

/// One message: its type and what follows the netlink header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) payload: Vec<u8>,
}

/// A netlink socket. It stays in the namespace it was opened in.
pub(super) struct Netlink {
    socket: Socket,
    limit: Duration,
}

impl Netlink {
    /// Opens a socket of a family (NETLINK_ROUTE 0, SOCK_DIAG 4, NETFILTER 12); an answer has `limit` to be complete.
    pub(super) fn open(family: isize, limit: Duration) -> Result<Self, Error> {
        let failed = |source| Error::Socket { family, source };
        let mut socket = Socket::new(family).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        // SAFETY: `socket` owns the descriptor and outlives this borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        let micros = i64::try_from(limit.as_micros()).unwrap_or(1_000_000);
        let timeout = TimeVal::new(micros / 1_000_000, micros % 1_000_000);
        setsockopt(&fd.as_fd(), ReceiveTimeout, &timeout).map_err(|e| failed(e.into()))?;
        Ok(Self { socket, limit })
    }

    /// Everything of a kind.
    pub(super) fn dump(&self, kind: u16, body: &[u8]) -> Result<Vec<Message>, Error> {
        let mut last = Vec::new();
        for _ in 0..3 {
            let (messages, interrupted) = self.ask(kind, NLM_F_REQUEST | NLM_F_DUMP, body)?;
            last = messages;
            if !interrupted {
                break;
            }
        }
        Ok(last)
    }

    /// One thing.
    pub(super) fn get(&self, kind: u16, body: &[u8]) -> Result<Option<Message>, Error> {
        Ok(self.ask(kind, NLM_F_REQUEST, body)?.0.into_iter().next())
    }

    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> Result<(Vec<Message>, bool), Error> {
        const SEQUENCE: u32 = 1;
        let mut request = Vec::with_capacity(NLMSG_HEADER + body.len());
        let len = u32::try_from(NLMSG_HEADER + body.len()).map_err(|_| Error::TooLong)?;
        request.extend(len.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend(flags.to_ne_bytes());
        request.extend(SEQUENCE.to_ne_bytes());
        request.extend(0_u32.to_ne_bytes());
        request.extend(body);
        self.socket.send_to(&request, &SocketAddr::new(0, 0), 0).map_err(Error::Broken)?;

        let started = Instant::now();
        let mut answer = Answer { single: flags & NLM_F_DUMP == 0, ..Answer::default() };
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
                return Ok((answer.messages, answer.interrupted));
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

#[derive(Default)]
struct Answer {
    messages: Vec<Message>,
    single: bool,
    /// What was dumped changed meanwhile (`NLM_F_DUMP_INTR`).
    interrupted: bool,
}

impl Answer {
    /// Takes one datagram in; true when the answer is complete.
    fn read(&mut self, mut datagram: &[u8]) -> Result<bool, Error> {
        while let (Some(len), Some(kind), Some(flags)) = (u32_at(datagram, 0), u16_at(datagram, 4), u16_at(datagram, 6))
        {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            let Some(payload) = datagram.get(NLMSG_HEADER..len) else { break };
            self.interrupted |= flags & NLM_F_DUMP_INTR != 0;
            match kind {
                NLMSG_DONE | NLMSG_ERROR => {
                    let code = array::<4>(payload, 0).map_or(0, i32::from_ne_bytes);
                    if code < 0 {
                        return Err(Error::Refused(io::Error::from_raw_os_error(code.saturating_neg())));
                    }
                    return Ok(true);
                }
                kind => self.messages.push(Message { kind, payload: payload.to_vec() }),
            }
            if self.single {
                return Ok(true);
            }
            datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }
}

/// An attribute for a request.
pub(super) fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + payload.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(usize::from(len).next_multiple_of(4));
    bytes.extend(len.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![];
        bytes.extend(u32::try_from(16 + payload.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes
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

    proptest::proptest! {
        #[test]
        fn any_datagram_is_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _complete = Answer::default().read(&bytes);
        }
    }
}
