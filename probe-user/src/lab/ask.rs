//! A plain DNS question over plain sockets: an eye on the lab that shares nothing with the probe.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use crate::facts::Transport;

/// `example.com. A IN`, id 0x4c42, recursion desired (RFC 1035).
const QUESTION: &[u8] = b"\x4c\x42\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01";

/// Asks once. The answer's code (0 NOERROR, 2 SERVFAIL, ...).
///
/// # Errors
/// No answer in time, refused, or not an answer to this question.
pub fn ask(server: SocketAddr, transport: Transport, patience: Duration) -> io::Result<u8> {
    let mut reply = [0; 512];
    match transport {
        Transport::Udp => {
            let any: IpAddr =
                if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_read_timeout(Some(patience))?;
            socket.connect(server)?;
            socket.send(QUESTION)?;
            socket.recv(&mut reply)?;
        }
        Transport::Tcp => {
            let mut stream = TcpStream::connect_timeout(&server, patience)?;
            stream.set_read_timeout(Some(patience))?;
            let len = u16::try_from(QUESTION.len()).unwrap_or_default();
            stream.write_all(&[&len.to_be_bytes(), QUESTION].concat())?;
            let mut prefix = [0; 2];
            stream.read_exact(&mut prefix)?;
            let len = usize::from(u16::from_be_bytes(prefix)).min(reply.len());
            stream.read_exact(&mut reply[..len])?;
        }
    }
    let answers_us = reply[..2] == QUESTION[..2] && reply[2] & 0x80 != 0;
    if answers_us { Ok(reply[3] & 0xf) } else { Err(io::Error::other("not an answer to the question")) }
}
