//! The lab's DNS servers: host DNS on the node, CoreDNS in its pod, and the upstream outside that knows every name.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, MessageType, Metadata, ResponseCode},
    rr::{DNSClass, RData, Record, RecordType},
};
use hickory_server::{
    Server,
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
};

/// A connection that sends nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// A forwarder waits so long for its upstream before it answers SERVFAIL.
const UPSTREAM_PATIENCE: Duration = Duration::from_secs(4);
/// An upstream that refused is not asked again for so long. Talos asks no upstream that fails its health check, and
/// answers SERVFAIL at once where none is left.
const UNHEALTHY: Duration = Duration::from_secs(2);
/// What the upstream says of any name: documentation addresses (RFC 5737, RFC 3849).
const ANSWER_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const ANSWER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);

/// What a server does with a question.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Answers every name itself, after a while.
    Authority { delay: Duration },
    /// Asks another server.
    Forwarder { upstream: SocketAddr },
}

/// Where a server listens.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    pub address: SocketAddr,
    pub udp: bool,
    pub tcp: bool,
    /// IP TTL or IPv6 hop limit of the answers; none: the system's.
    pub ttl: Option<u8>,
}

/// Opens the sockets and serves them on the current runtime until the returned server is dropped.
///
/// # Errors
/// A socket cannot be opened or bound.
pub fn serve(role: Role, listens: &[Listen]) -> io::Result<Server<impl RequestHandler>> {
    let mut server = Server::new(Responder { role, refused: watch::Sender::default() });
    for listen_on in listens {
        if listen_on.udp {
            let bound = open(listen_on, SockType::Datagram)?;
            server.register_socket(UdpSocket::from_std(bound.into())?);
        }
        if listen_on.tcp {
            let bound = open(listen_on, SockType::Stream)?;
            listen(&bound, Backlog::new(128)?)?;
            server.register_listener(TcpListener::from_std(bound.into())?, IDLE, 64);
        }
    }
    Ok(server)
}

/// A bound socket. It may name an address that is not there yet: the outside is served before its devices exist.
fn open(listen_on: &Listen, kind: SockType) -> io::Result<OwnedFd> {
    let family = if listen_on.address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, kind, flags, None::<SockProtocol>)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    match listen_on.address.ip() {
        IpAddr::V4(_) => {
            setsockopt(&fd, sockopt::IpFreebind, &true)?;
            if let Some(ttl) = listen_on.ttl {
                setsockopt(&fd, sockopt::Ipv4Ttl, &i32::from(ttl))?;
            }
        }
        IpAddr::V6(_) => {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
            if let Some(ttl) = listen_on.ttl {
                setsockopt(&fd, sockopt::Ipv6Ttl, &i32::from(ttl))?;
            }
        }
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(listen_on.address))?;
    Ok(fd)
}

struct Responder {
    role: Role,
    /// When the upstream last refused a question, where it has answered none since.
    refused: watch::Sender<Option<Instant>>,
}

#[async_trait::async_trait]
impl RequestHandler for Responder {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut respond: R) -> ResponseInfo {
        let (code, answers) = match self.role {
            Role::Authority { delay } => {
                tokio::time::sleep(delay).await;
                (ResponseCode::NoError, own_answers(request))
            }
            Role::Forwarder { upstream } => match self.forward(request.as_slice(), upstream).await {
                Ok(reply) => (reply.metadata.response_code, reply.answers),
                Err(error) => {
                    tracing::debug!(%upstream, %error, "the upstream does not answer");
                    (ResponseCode::ServFail, Vec::new())
                }
            },
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = code;
        metadata.recursion_available = true;
        let response = MessageResponseBuilder::from_message_request(request).build(metadata, &answers, [], [], []);
        match respond.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "an answer could not be sent");
                ResponseInfo::from(hickory_proto::op::Header {
                    metadata: Metadata::new(request.metadata.id, MessageType::Response, request.metadata.op_code),
                    counts: Default::default(),
                })
            }
        }
    }
}

fn own_answers(request: &Request) -> Vec<Record> {
    let Ok(info) = request.request_info() else {
        return Vec::new();
    };
    let data = match info.query.query_type() {
        RecordType::A => RData::A(ANSWER_V4.into()),
        RecordType::AAAA => RData::AAAA(ANSWER_V6.into()),
        _ => return Vec::new(),
    };
    let mut record = Record::from_rdata(info.query.name().into(), 30, data);
    record.dns_class = DNSClass::IN;
    vec![record]
}

impl Responder {
    /// Asks the upstream. Its refusal of one question ends all that wait: the kernel limits the rate of the ICMP errors
    /// that say so (`icmp_ratelimit`, six at once and then one a second to each peer), so most would wait in vain.
    async fn forward(&self, question: &[u8], upstream: SocketAddr) -> io::Result<Message> {
        let unhealthy = |refused: &Option<Instant>| refused.is_some_and(|at| at.elapsed() < UNHEALTHY);
        let mut refused = self.refused.subscribe();
        let answer = tokio::select! {
            biased;
            Ok(_) = refused.wait_for(unhealthy) => return Err(io::ErrorKind::ConnectionRefused.into()),
            answer = ask(question, upstream) => answer,
        };
        match &answer {
            Ok(_) => {
                self.refused.send_if_modified(|refused| refused.take().is_some());
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.refused.send_replace(Some(Instant::now()));
            }
            Err(_) => {}
        }
        answer
    }
}

/// One question over UDP. The raw bytes go on as they came: the source port is new, so the id need not be.
async fn ask(question: &[u8], upstream: SocketAddr) -> io::Result<Message> {
    let any: IpAddr = if upstream.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(upstream).await?;
    socket.send(question).await?;
    let mut reply = vec![0; 4096];
    let len = tokio::time::timeout(UPSTREAM_PATIENCE, socket.recv(&mut reply)).await??;
    Message::from_vec(reply.get(..len).unwrap_or_default()).map_err(io::Error::other)
}

/// The first server that a Corefile forwards `.` to; a file's name is resolved to its first nameserver with `read`.
pub fn forward_target(corefile: &str, read: impl Fn(&str) -> Option<String>) -> Option<SocketAddr> {
    let target = corefile.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("forward") && words.next() == Some(".")).then(|| words.next()).flatten()
    })?;
    let host = if target.starts_with('/') {
        read(target)?.lines().find_map(|line| line.trim().strip_prefix("nameserver ").map(str::to_owned))?
    } else {
        target.into()
    };
    let host = host.trim();
    host.parse().ok().or_else(|| Some(SocketAddr::new(host.parse().ok()?, 53)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_refusal_ends_every_question() {
        let responder = |upstream| Responder { role: Role::Forwarder { upstream }, refused: watch::Sender::default() };
        let any = (Ipv4Addr::LOCALHOST, 0);
        let closed = UdpSocket::bind(any).await.unwrap().local_addr().unwrap();
        let silent = UdpSocket::bind(any).await.unwrap();
        let server = responder(closed);
        let refused = |answer: io::Result<Message>| answer.map_err(|error| error.kind()).unwrap_err();
        let began = Instant::now();
        let waits = server.forward(b"x", silent.local_addr().unwrap());
        let (waited, asked) = tokio::join!(waits, server.forward(b"x", closed));
        assert_eq!([waited, asked].map(refused), [io::ErrorKind::ConnectionRefused; 2]);
        assert!(began.elapsed() < UPSTREAM_PATIENCE / 2, "{:?}", began.elapsed());
        assert_eq!(
            refused(server.forward(b"x", silent.local_addr().unwrap()).await),
            io::ErrorKind::ConnectionRefused,
            "it is not asked again so soon"
        );
    }

    #[test]
    fn a_corefile_names_a_server_or_a_file_that_does() {
        let read =
            |path: &str| (path == "/etc/resolv.conf").then(|| "search x\nnameserver 169.254.116.108\n".to_owned());
        let by_file = ".:53 {\n    errors\n    forward . /etc/resolv.conf {\n        max_concurrent 1000\n    }\n}\n";
        assert_eq!(forward_target(by_file, read), "169.254.116.108:53".parse().ok());
        assert_eq!(forward_target("forward . 192.168.77.1", read), "192.168.77.1:53".parse().ok());
        assert_eq!(forward_target("forward . 192.168.77.1:5353", read), "192.168.77.1:5353".parse().ok());
        assert_eq!(forward_target("forward . /nowhere", read), None);
        assert_eq!(forward_target("errors\n", read), None);
    }
}
