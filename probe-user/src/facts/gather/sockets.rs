//! Who listens on the port under test in the node's namespace: sock_diag (include/uapi/linux/inet_diag.h).

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use super::netlink::{Error, Netlink};
use super::processes::{NetnsKey, Process};
use super::rtnetlink::{self, DiagSocket};
use crate::{
    facts::{Fact, Listener, Transport},
    target::DNS_PORT,
};

const SOURCE: &str = "sock_diag";
const LIMIT: Duration = Duration::from_millis(500);
/// How long the owners are looked for; a socket without one is still a listener.
const OWNER_LIMIT: Duration = Duration::from_millis(200);

/// Listeners on `port`, and on 53, of the calling thread's namespace. A socket on `[::]` that takes IPv4 too is listed
/// once for each family.
pub(super) fn read(port: u16, own: Option<NetnsKey>, processes: &[Process]) -> Fact<Vec<Listener>> {
    match listening(port) {
        Ok(sockets) => {
            let owners = owners(&sockets, own, processes);
            let listeners = sockets.iter().flat_map(|(transport, socket)| listeners(*transport, socket, &owners));
            Fact::known(listeners.collect(), SOURCE)
        }
        Err(e) => Fact::unavailable(e, SOURCE),
    }
}

fn listening(port: u16) -> Result<Vec<(Transport, DiagSocket)>, Error> {
    const NETLINK_SOCK_DIAG: isize = 4;
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const TCP_LISTEN: u8 = 10;
    const TCP_CLOSE: u8 = 7; // the state of a UDP socket that is not connected
    let netlink = Netlink::open(NETLINK_SOCK_DIAG, LIMIT)?;
    let mut found = Vec::new();
    for (transport, protocol, state) in
        [(Transport::Udp, libc::IPPROTO_UDP, TCP_CLOSE), (Transport::Tcp, libc::IPPROTO_TCP, TCP_LISTEN)]
    {
        for family in [libc::AF_INET, libc::AF_INET6] {
            let messages = netlink.dump(SOCK_DIAG_BY_FAMILY, &request(family, protocol, 1 << state))?;
            let sockets = messages.iter().filter_map(|message| rtnetlink::socket(&message.payload));
            let wanted = |socket: &DiagSocket| {
                let local = socket.local.port();
                socket.state == state && socket.remote_port == 0 && (local == port || local == DNS_PORT)
            };
            found.extend(sockets.filter(wanted).map(|socket| (transport, socket)));
        }
    }
    Ok(found)
}

/// `struct inet_diag_req_v2`: family 0:1, protocol 1:1, extensions 2:1, states 4:4, then `inet_diag_sockid` (48 bytes).
fn request(family: i32, protocol: i32, states: u32) -> Vec<u8> {
    let mut body = vec![0; 8 + 48];
    body[0] = u8::try_from(family).unwrap_or_default();
    body[1] = u8::try_from(protocol).unwrap_or_default();
    body[4..8].copy_from_slice(&states.to_ne_bytes());
    body
}

fn listeners(
    transport: Transport,
    socket: &DiagSocket,
    owners: &HashMap<u32, (u32, String)>,
) -> impl Iterator<Item = Listener> {
    let both = match socket.local.ip() {
        IpAddr::V6(ip) if ip.is_unspecified() && !socket.v6_only => Some(Ipv4Addr::UNSPECIFIED.into()),
        _ => None,
    };
    let owner = owners.get(&socket.inode);
    let listener = move |local: IpAddr| Listener {
        local: SocketAddr::new(local, socket.local.port()),
        transport,
        cookie: socket.cookie,
        process: owner.map(|(_, name)| name.clone()),
        pid: owner.map(|(pid, _)| *pid),
    };
    [Some(socket.local.ip()), both].into_iter().flatten().map(listener)
}

/// Processes by the inode of a socket they hold open. Those of the node's namespace are looked at first.
fn owners(
    sockets: &[(Transport, DiagSocket)],
    own: Option<NetnsKey>,
    processes: &[Process],
) -> HashMap<u32, (u32, String)> {
    let started = Instant::now();
    let wanted: HashMap<String, u32> =
        sockets.iter().map(|(_, socket)| (format!("socket:[{}]", socket.inode), socket.inode)).collect();
    let mut owners = HashMap::new();
    let (here, elsewhere): (Vec<_>, Vec<_>) = processes.iter().partition(|process| process.netns == own);
    for process in here.into_iter().chain(elsewhere) {
        if owners.len() == wanted.len() || started.elapsed() > OWNER_LIMIT {
            break;
        }
        for link in open_files(&process.path) {
            if let Some(inode) = wanted.get(&link) {
                owners.entry(*inode).or_insert_with(|| (process.pid, process.name.clone()));
            }
        }
    }
    owners
}

fn open_files(process: &Path) -> impl Iterator<Item = String> {
    const MAX: usize = 65_536;
    let entries = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().take(MAX);
    entries.filter_map(|entry| fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::facts::gather::processes::Processes;

    #[test]
    fn own_sockets_are_found_with_their_owner() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        let tcp = TcpListener::bind(("::", port));
        let processes = Processes::read(Path::new("/proc")).unwrap().all;
        let own = processes.iter().find(|p| p.pid == std::process::id()).and_then(|p| p.netns);
        let found = read(port, own, &processes);
        let listeners = found.get().expect("sock_diag needs no privilege");
        let udp = listeners.iter().find(|l| l.local == udp.local_addr().unwrap()).expect("UDP");
        assert_eq!((udp.transport, udp.pid), (Transport::Udp, Some(std::process::id())));
        assert_ne!(udp.cookie, 0);
        if tcp.is_ok() {
            let families = listeners.iter().filter(|l| l.transport == Transport::Tcp && l.local.port() == port);
            assert_eq!(families.count(), 2, "[::] takes IPv4 too");
        }
    }

    #[test]
    fn a_socket_without_an_owner_is_still_a_listener() {
        let local = "169.254.116.108:53".parse().unwrap();
        let socket = DiagSocket { local, remote_port: 0, state: 10, cookie: 7, inode: 1, v6_only: false };
        let found: Vec<_> = listeners(Transport::Tcp, &socket, &HashMap::new()).collect();
        assert_eq!(found, [Listener { local, transport: Transport::Tcp, cookie: 7, process: None, pid: None }]);
    }
}
