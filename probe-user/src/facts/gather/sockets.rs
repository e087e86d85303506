//! Who listens on the port under test in the node's namespace, from sock_diag.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use netlink_packet_core::{DecodeError, Parseable as _};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, SockDiagMessage, TCP_CLOSE, TCP_LISTEN,
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::{
    processes::{NetnsKey, Process},
    rtnetlink,
};
use crate::{
    facts::{Fact, Listener, Transport},
    netlink::{Entries, Error, Netlink},
    target::{DNS_PORT, Targets},
};

const SOURCE: &str = "sock_diag";
const LIMIT: Duration = Duration::from_millis(500);
/// How long the owners are looked for; a socket without one is still a listener.
const OWNER_LIMIT: Duration = Duration::from_millis(200);

/// Listeners on `port`, and on 53, of the calling thread's namespace. A socket on `[::]` that takes IPv4 too is listed
/// once for each family.
pub(super) fn read(port: u16, own: Option<NetnsKey>, processes: &[Process]) -> Fact<Vec<Listener>> {
    match listening(port) {
        Ok(Entries { found: sockets, unread }) => {
            let owners = owners(&sockets, own, processes);
            let devices = devices(&sockets);
            let listeners =
                sockets.iter().flat_map(|(transport, socket)| listeners(*transport, socket, &owners, &devices));
            Fact::known(listeners.collect(), SOURCE).noting(unread)
        }
        Err(e) => Fact::unavailable(e, SOURCE),
    }
}

fn listening(port: u16) -> Result<Entries<(Transport, DiagSocket)>, Error> {
    let netlink = Netlink::open(NETLINK_SOCK_DIAG, LIMIT)?;
    let mut all = Entries { found: Vec::new(), unread: None };
    // A UDP socket that is not connected is in state CLOSE.
    for (transport, protocol, state) in
        [(Transport::Udp, IPPROTO_UDP, TCP_CLOSE), (Transport::Tcp, IPPROTO_TCP, TCP_LISTEN)]
    {
        for family in [AF_INET, AF_INET6] {
            let messages = netlink.dump(SockDiagMessage::InetRequest(request(family, protocol, state)))?;
            let sockets = Entries::decode(&messages, |message| socket(message).map(Some));
            let wanted = |socket: &DiagSocket| {
                let local = socket.local.port();
                socket.state == state && socket.remote_port == 0 && (local == port || local == DNS_PORT)
            };
            all.found.extend(sockets.found.into_iter().filter(wanted).map(|socket| (transport, socket)));
            all.unread = all.unread.or(sockets.unread);
        }
    }
    Ok(all)
}

fn request(family: u8, protocol: u8, state: u8) -> InetRequest {
    InetRequest {
        family,
        protocol,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::from_bits_retain(1 << state),
        // Not looked at in a dump.
        socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
    }
}

/// What is asked of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DiagSocket {
    local: SocketAddr,
    remote_port: u16,
    state: u8,
    /// `SO_COOKIE`; what eBPF programs see.
    cookie: u64,
    inode: u32,
    /// Takes IPv6 only.
    v6_only: bool,
    /// Index of the one device that it takes packets from (`sk_bound_dev_if`, `idiag_if` of include/uapi/linux/
    /// inet_diag.h); 0: any.
    device: u32,
}

fn socket(payload: &[u8]) -> Result<DiagSocket, DecodeError> {
    let InetResponse { header, nlas } = InetResponse::parse(payload)?;
    // Two words in host order, the low one first (`sock_diag_save_cookie`, net/core/sock_diag.c).
    let [a, b, c, d, e, f, g, h] = header.socket_id.cookie;
    let [low, high] = [[a, b, c, d], [e, f, g, h]].map(|word| u64::from(u32::from_ne_bytes(word)));
    Ok(DiagSocket {
        // An IPv6 socket that is bound to an IPv4 address has it mapped (`::ffff:169.254.116.108`).
        local: (header.socket_id.source_address.to_canonical(), header.socket_id.source_port).into(),
        remote_port: header.socket_id.destination_port,
        state: header.state,
        cookie: high << 32 | low,
        inode: header.inode,
        device: header.socket_id.interface_id,
        v6_only: nlas.contains(&Nla::SkV6Only(true)),
    })
}

fn listeners(
    transport: Transport,
    socket: &DiagSocket,
    owners: &HashMap<u32, (u32, String)>,
    devices: &HashMap<u32, String>,
) -> impl Iterator<Item = Listener> {
    let both = match socket.local.ip() {
        IpAddr::V6(ip) if ip.is_unspecified() && !socket.v6_only => Some(Ipv4Addr::UNSPECIFIED.into()),
        _ => None,
    };
    let owner = owners.get(&socket.inode);
    let name = |index| devices.get(&index).cloned().unwrap_or_else(|| format!("if{index}"));
    let interface = Some(socket.device).filter(|&index| index != 0).map(name);
    let listener = move |local: IpAddr| Listener {
        local: SocketAddr::new(local, socket.local.port()),
        transport,
        cookie: socket.cookie,
        process: owner.map(|(_, name)| name.clone()),
        pid: owner.map(|(pid, _)| *pid),
        interface: interface.clone(),
    };
    [Some(socket.local.ip()), both].into_iter().flatten().map(listener)
}

/// Names of the devices by index, where a socket is bound to one.
fn devices(sockets: &[(Transport, DiagSocket)]) -> HashMap<u32, String> {
    if sockets.iter().all(|(_, socket)| socket.device == 0) {
        return HashMap::new();
    }
    let links = Netlink::open(rtnetlink::FAMILY, LIMIT).and_then(|netlink| rtnetlink::links(&netlink));
    links.map(|links| links.found.into_iter().map(|link| (link.index, link.name)).collect()).unwrap_or_default()
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

/// The processes that packets to the targets come to: who listens on the address itself, else on the wildcard.
pub(super) fn servers(listeners: &[Listener], targets: &Targets) -> Vec<u32> {
    let mut servers = Vec::new();
    for (target, transport) in targets.sockets().flat_map(|target| [(target, Transport::Udp), (target, Transport::Tcp)])
    {
        let at = |address: IpAddr| {
            let local = SocketAddr::new(address, target.port());
            listeners.iter().filter(move |one| one.transport == transport && one.local == local)
        };
        let wildcard =
            if target.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        let serving = if at(target.ip()).next().is_some() { target.ip() } else { wildcard };
        servers.extend(at(serving).filter_map(|one| one.pid));
    }
    servers
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use netlink_packet_sock_diag::INET_DIAG_SKV6ONLY;
    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;
    use crate::{facts::gather::processes::Processes, netlink::attribute};

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
        let socket = DiagSocket { local, remote_port: 0, state: 10, cookie: 7, inode: 1, v6_only: false, device: 0 };
        let found: Vec<_> = listeners(Transport::Tcp, &socket, &HashMap::new(), &HashMap::new()).collect();
        assert_eq!(
            found,
            [Listener { local, transport: Transport::Tcp, cookie: 7, process: None, pid: None, interface: None }]
        );
    }

    #[test]
    fn the_server_is_who_listens_on_the_address_itself() {
        let at = |local: &str, pid| Listener {
            local: local.parse().unwrap(),
            transport: Transport::Udp,
            cookie: 0,
            process: None,
            pid: Some(pid),
            interface: None,
        };
        let targets = Targets::default();
        let host_dns = at("169.254.116.108:53", 7);
        assert_eq!(servers(&[at("0.0.0.0:53", 8), host_dns.clone()], &targets), [7], "a CoreDNS beside it asks it");
        assert_eq!(servers(&[at("0.0.0.0:53", 8), at("127.0.0.53:53", 7)], &targets), [8]);
        assert_eq!(servers(&[at("169.254.116.108:5353", 8)], &targets), [0_u32; 0]);
    }

    #[test]
    fn a_socket_has_its_address_cookie_and_inode() {
        let mut bytes = vec![0; 72];
        bytes[0] = 2;
        bytes[1] = 7;
        bytes[4..6].copy_from_slice(&53_u16.to_be_bytes());
        bytes[8..12].copy_from_slice(&[169, 254, 116, 108]);
        bytes[44..48].copy_from_slice(&0x11_u32.to_ne_bytes());
        bytes[48..52].copy_from_slice(&0x1_u32.to_ne_bytes());
        bytes[68..72].copy_from_slice(&4711_u32.to_ne_bytes());
        let found = socket(&bytes).unwrap();
        assert_eq!(found.local.to_string(), "169.254.116.108:53");
        assert_eq!((found.cookie, found.inode, found.state), (0x1_0000_0011, 4711, 7));
    }

    #[test]
    fn an_ipv6_socket_says_whether_it_takes_ipv4() {
        let mut bytes = vec![0; 72];
        bytes[0] = AF_INET6;
        bytes[1] = TCP_LISTEN;
        let both = socket(&bytes).unwrap();
        bytes.extend(attribute(INET_DIAG_SKV6ONLY, &[1]));
        assert_eq!((both.v6_only, socket(&bytes).unwrap().v6_only), (false, true));
    }

    #[test]
    fn an_ipv4_address_of_an_ipv6_socket_is_an_ipv4_address() {
        let mut bytes = vec![0; 72];
        bytes[0] = AF_INET6;
        bytes[4..6].copy_from_slice(&53_u16.to_be_bytes());
        bytes[18..24].copy_from_slice(&[0xff, 0xff, 169, 254, 116, 108]);
        assert_eq!(socket(&bytes).unwrap().local.to_string(), "169.254.116.108:53");
    }

    #[test]
    fn a_socket_of_one_device_names_it() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        setsockopt(&udp, sockopt::BindToDevice, &"lo".into()).unwrap();
        let found = read(udp.local_addr().unwrap().port(), None, &[]);
        let listener = found.get().unwrap().iter().find(|l| l.local == udp.local_addr().unwrap()).expect("UDP");
        assert_eq!(listener.interface.as_deref(), Some("lo"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..160), v6: bool) {
            let _socket = socket(&bytes);
            let mut bytes = bytes;
            if let Some(family) = bytes.first_mut() {
                *family = if v6 { AF_INET6 } else { AF_INET };
            }
            let _socket = socket(&bytes);
        }
    }
}
