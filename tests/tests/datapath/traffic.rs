//! Who asks and who answers. A server says its name and whom it saw asking.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsRawFd as _,
    time::Duration,
};

use hostdns_probe::netns::Netns;

use crate::node::{HOST_DNS, HOST_DNS_V6, NODE, OUTSIDE};

pub(crate) const PORT: u16 = 53;
/// How long an answer may take before it counts as none; here it takes well under a millisecond.
pub(crate) const PATIENCE: Duration = Duration::from_millis(400);

pub(crate) fn bound(server: SocketAddr) -> UdpSocket {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { "::".parse().unwrap() };
    UdpSocket::bind((any, 0)).unwrap()
}

/// Sends and waits for the answer; the error is the socket's (refused, timed out).
pub(crate) fn ask(socket: &UdpSocket, server: SocketAddr) -> std::io::Result<String> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(server).unwrap();
    socket.send(b"who?").unwrap();
    let mut answer = [0; 128];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// UDP and TCP on port 53 of every address; an answer says who answers and whom it sees. The threads end with the
/// test's process.
pub(crate) fn serve(netns: &Netns, name: &'static str, ttl: Option<u32>) {
    netns
        .run(|| {
            // One socket per address, or the answer's source would be the kernel's choice.
            let addresses = [HOST_DNS, NODE, OUTSIDE, HOST_DNS_V6];
            for address in addresses {
                let address = SocketAddr::new(address.parse().unwrap(), PORT);
                let udp = free_bound(address);
                if let Some(ttl) = ttl {
                    udp.set_ttl(ttl).unwrap();
                    set_hops(&udp, ttl);
                }
                std::thread::spawn(move || {
                    let mut query = [0; 512];
                    while let Ok((_, from)) = udp.recv_from(&mut query) {
                        let _unreachable = udp.send_to(format!("{name} saw {}", from.ip()).as_bytes(), from);
                    }
                });
            }
            let tcp = TcpListener::bind("[::]:53").unwrap();
            std::thread::spawn(move || {
                for stream in tcp.incoming() {
                    let Ok(mut stream) = stream else { continue };
                    let Ok(from) = stream.peer_addr() else { continue };
                    let _reset = write!(stream, "{name} saw {}", from.ip().to_canonical());
                }
            });
        })
        .unwrap();
}

/// Binds to an address that the namespace may not have (IP_FREEBIND, IPV6_FREEBIND).
fn free_bound(address: SocketAddr) -> UdpSocket {
    let name = if address.is_ipv4() { "ipv4/ip_nonlocal_bind" } else { "ipv6/ip_nonlocal_bind" };
    std::fs::write(format!("/proc/sys/net/{name}"), "1").unwrap();
    UdpSocket::bind(address).unwrap()
}

fn set_hops(socket: &UdpSocket, hops: u32) {
    if socket.local_addr().unwrap().is_ipv6() {
        let hops = i32::try_from(hops).unwrap();
        // SAFETY: the value outlives the call, its size is given.
        let status = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_IPV6,
                libc::IPV6_UNICAST_HOPS,
                (&raw const hops).cast(),
                size_of::<i32>().try_into().unwrap(),
            )
        };
        assert_eq!(status, 0);
    }
}
