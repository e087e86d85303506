//! The asking socket, made inside the vantage's network namespace. A socket stays in the namespace it was made in, so
//! only its making happens on a thread that went there.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockname, setsockopt, socket, sockopt,
};
use tokio::{
    io::Interest,
    net::{TcpSocket, UdpSocket},
};

use crate::{
    facts::Transport,
    netns::{self, Netns},
};

/// Why there is no socket to ask with.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Netns(#[from] netns::Error),
    #[error("cannot {doing}: {source}")]
    Socket { doing: &'static str, source: io::Error },
    #[error("the thread that makes the socket ended early")]
    Ended,
}

/// A socket that has its port, and has sent nothing yet.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) socket: Socket,
    /// UDP: full, as it is connected. TCP: the port; the address is unspecified until it connects.
    pub(super) local: SocketAddr,
    /// `SO_COOKIE`, what `bpf_get_socket_cookie` says; 0 where the kernel does not tell.
    pub(super) cookie: u64,
}

#[derive(Debug)]
pub(super) enum Socket {
    Udp(Arc<UdpSocket>),
    Tcp(TcpSocket),
}

/// Makes the socket in the namespace behind `netns`; none: the one we are in.
pub(super) async fn open(netns: Option<PathBuf>, server: SocketAddr, transport: Transport) -> Result<Asking, Error> {
    let (fd, local) = tokio::task::spawn_blocking(move || match netns {
        Some(path) => Netns::open(path)?.run(|| make(server, transport))?,
        None => make(server, transport),
    })
    .await
    .map_err(|_join| Error::Ended)??;
    let cookie = cookie(&fd);
    let socket = match transport {
        Transport::Udp => UdpSocket::from_std(fd.into())
            .map(|socket| Socket::Udp(Arc::new(socket)))
            .map_err(|source| Error::Socket { doing: "wait on the UDP socket", source })?,
        Transport::Tcp => Socket::Tcp(TcpSocket::from_std_stream(fd.into())),
    };
    Ok(Asking { socket, local, cookie })
}

/// The ICMP error that a UDP query brought back. Nobody else sees it: it comes as EPOLLERR without EPOLLIN, which wakes
/// no reader of tokio's.
pub(super) async fn icmp_error(socket: &UdpSocket) -> io::Error {
    let error = socket.async_io(Interest::ERROR, || socket.take_error()?.ok_or(io::ErrorKind::WouldBlock.into()));
    error.await.unwrap_or_else(|error| error)
}

fn make(server: SocketAddr, transport: Transport) -> Result<(OwnedFd, SocketAddr), Error> {
    let fails = |doing| move |errno: nix::Error| Error::Socket { doing, source: errno.into() };
    let (family, any) = match server {
        SocketAddr::V4(_) => (AddressFamily::Inet, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
        SocketAddr::V6(_) => (AddressFamily::Inet6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
    };
    let (kind, protocol) = match transport {
        Transport::Udp => (SockType::Datagram, None),
        Transport::Tcp => (SockType::Stream, None),
    };
    let fd = socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, protocol)
        .map_err(fails("make a socket"))?;
    match transport {
        Transport::Udp => {
            // Without it only a port unreachable is reported to a connected socket, no other ICMP error
            // (net/ipv4/udp.c, __udp4_lib_err).
            match server {
                SocketAddr::V4(_) => setsockopt(&fd, sockopt::Ipv4RecvErr, &true),
                SocketAddr::V6(_) => setsockopt(&fd, sockopt::Ipv6RecvErr, &true),
            }
            .map_err(fails("ask for ICMP errors"))?;
            connect(fd.as_raw_fd(), &SockaddrStorage::from(server)).map_err(fails("route to the address"))?;
        }
        Transport::Tcp => {
            // Now, not in connect: its port is what the trace follows, and has to be known before the SYN.
            bind(fd.as_raw_fd(), &SockaddrStorage::from(any)).map_err(fails("bind a TCP port"))?;
            setsockopt(&fd, sockopt::TcpNoDelay, &true).map_err(fails("set TCP_NODELAY"))?;
        }
    }
    let local = getsockname::<SockaddrStorage>(fd.as_raw_fd()).map_err(fails("read the socket's address"))?;
    Ok((fd, to_std(&local).unwrap_or(any)))
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port()))))
}

fn cookie(fd: impl AsFd) -> u64 {
    let mut cookie = 0_u64;
    let mut len = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(8);
    // SAFETY: `cookie` and `len` outlive the call and have the sizes it is told.
    let status = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if status == 0 { cookie } else { 0 }
}
