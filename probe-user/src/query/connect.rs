//! What hickory is given to ask with: sockets that were made in the vantage's namespace, and that keep what passes.

use std::{
    future::{self, Future},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use hickory_net::{
    NetError,
    runtime::{DnsUdpSocket, RuntimeProvider, TokioHandle, TokioTime, iocompat::AsyncIoTokioAsStd},
    tcp::TcpClientStream,
    udp::UdpClientStream,
    xfer::DnsExchange,
};
use hickory_resolver::{
    ConnectionProvider, PoolContext,
    config::{ConnectionConfig, ProtocolConfig},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream, UdpSocket},
};

use super::{ask::RETRANSMIT_AFTER, socket::Socket, wire::Wire};

/// Queries over UDP: the first and one retransmission.
const UDP_SENDS: u8 = 2;

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// hickory's way to the one server of one question.
#[derive(Clone)]
pub(super) struct Connections(Sockets);

impl Connections {
    pub(super) fn new(socket: Socket, wire: Arc<Wire>) -> Self {
        let (udp, tcp) = match socket {
            Socket::Udp(socket) => (Some(socket), None),
            Socket::Tcp(socket) => (None, Some(socket)),
        };
        Self(Sockets { udp, tcp: Arc::new(Mutex::new(tcp)), wire, handle: TokioHandle::default() })
    }
}

/// Not left to `RuntimeProvider`'s own implementation, which retransmits by its idea of the round trip and up to three
/// times: here it is once, after [`RETRANSMIT_AFTER`], so that a trace can tell what it sees.
impl ConnectionProvider for Connections {
    type Conn = DnsExchange<Sockets>;
    type FutureConn = Pending<Result<Self::Conn, NetError>>;
    type RuntimeProvider = Sockets;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        context: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let (server, sockets, timeout) = (SocketAddr::new(ip, config.port), self.0.clone(), context.options.timeout);
        match config.protocol {
            ProtocolConfig::Udp => {
                let floor = u64::try_from(RETRANSMIT_AFTER.as_millis()).unwrap_or(u64::MAX);
                Ok(Box::pin(async move {
                    Ok(UdpClientStream::builder(server, sockets)
                        .with_timeout(Some(timeout))
                        .with_os_port_selection(true)
                        .with_max_retries(UDP_SENDS)
                        .with_retry_interval_floor(floor)
                        .exchange())
                }))
            }
            ProtocolConfig::Tcp => Ok(Box::pin(TcpClientStream::exchange(server, None, timeout, None, sockets))),
            #[expect(unreachable_patterns, reason = "hickory has more protocols when its features are on")]
            _ => Err(NetError::NoConnections),
        }
    }

    fn runtime_provider(&self) -> &Sockets {
        &self.0
    }
}

/// Hands out the one socket: again for a retransmission over UDP, so that flow and port stay the same.
#[derive(Clone)]
pub(super) struct Sockets {
    udp: Option<Arc<UdpSocket>>,
    tcp: Arc<Mutex<Option<TcpSocket>>>,
    wire: Arc<Wire>,
    handle: TokioHandle,
}

impl RuntimeProvider for Sockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpTap;
    type Tcp = AsyncIoTokioAsStd<TcpTap>;

    fn create_handle(&self) -> TokioHandle {
        self.handle.clone()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        _bind: Option<SocketAddr>,
        _timeout: Option<Duration>,
    ) -> Pending<io::Result<Self::Tcp>> {
        let socket = self.tcp.lock().unwrap_or_else(PoisonError::into_inner).take();
        let wire = Arc::clone(&self.wire);
        Box::pin(async move {
            let socket = socket.ok_or_else(|| io::Error::other("the TCP socket is used up"))?;
            wire.starts();
            let stream = socket.connect(server).await.map_err(|error| wire.fails(error))?;
            wire.connected();
            if let Ok(source) = stream.local_addr() {
                wire.has_source(source);
            }
            Ok(AsyncIoTokioAsStd(TcpTap { stream, wire, out: Vec::new(), written: 0, incoming: Vec::new() }))
        })
    }

    fn bind_udp(&self, _local: SocketAddr, server: SocketAddr) -> Pending<io::Result<UdpTap>> {
        let socket = self.udp.clone().ok_or_else(|| io::Error::other("there is no UDP socket"));
        let wire = Arc::clone(&self.wire);
        Box::pin(future::ready(socket.map(|socket| UdpTap { socket, server, wire })))
    }
}

/// The connected UDP socket. That it is connected brings ICMP errors back, and keeps other senders out.
pub(super) struct UdpTap {
    socket: Arc<UdpSocket>,
    server: SocketAddr,
    wire: Arc<Wire>,
}

impl DnsUdpSocket for UdpTap {
    type Time = TokioTime;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buf = ReadBuf::new(buf);
        ready!(self.socket.poll_recv(cx, &mut buf)).map_err(|error| self.wire.fails(error))?;
        self.wire.receives(buf.filled());
        Poll::Ready(Ok((buf.filled().len(), self.server)))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], _target: SocketAddr) -> Poll<io::Result<usize>> {
        // Before the system call: the answer may be there before it returns.
        self.wire.starts();
        let sent = ready!(self.socket.poll_send(cx, buf)).map_err(|error| self.wire.fails(error))?;
        self.wire.sends(buf);
        Poll::Ready(Ok(sent))
    }
}

/// The TCP connection. hickory writes a message's length and the message apart; here they leave together, as other
/// resolvers send them, so that the first segment shows the whole query.
pub(super) struct TcpTap {
    stream: TcpStream,
    wire: Arc<Wire>,
    out: Vec<u8>,
    written: usize,
    incoming: Vec<u8>,
}

impl AsyncRead for TcpTap {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let room = buf.remaining();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf)).map_err(|error| this.wire.fails(error))?;
        let fresh = buf.filled().get(before..).unwrap_or_default();
        if fresh.is_empty() && room > 0 {
            return Poll::Ready(Err(this.wire.fails(io::ErrorKind::UnexpectedEof.into())));
        }
        this.incoming.extend_from_slice(fresh);
        while let Some(message) = take_message(&mut this.incoming) {
            if !this.wire.receives(&message) {
                // Nobody else can write into this connection: waiting on would bring nothing better.
                return Poll::Ready(Err(this.wire.fails(io::ErrorKind::InvalidData.into())));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TcpTap {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().out.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while let Some(rest) = this.out.get(this.written..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut this.stream).poll_write(cx, rest));
            this.written += written.map_err(|error| this.wire.fails(error))?;
        }
        while let Some(message) = take_message(&mut this.out) {
            this.wire.sends(&message);
        }
        this.out.clear();
        this.written = 0;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Takes the first whole message off a TCP stream: two bytes of length, network order, before each (RFC 1035, 4.2.2).
fn take_message(stream: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(*stream.first_chunk::<2>()?));
    let message = stream.get(2..2 + length)?.to_vec();
    stream.drain(..2 + length);
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_off_a_stream_whole() {
        let mut stream = vec![0];
        assert_eq!(take_message(&mut stream), None);
        stream.extend([3, b'a', b'b']);
        assert_eq!(take_message(&mut stream), None);
        stream.extend([b'c', 0, 0, 0]);
        assert_eq!(take_message(&mut stream).as_deref(), Some(&b"abc"[..]));
        assert_eq!(take_message(&mut stream).as_deref(), Some(&b""[..]));
        assert_eq!(stream, [0]);
        assert_eq!(take_message(&mut stream), None);
    }
}
