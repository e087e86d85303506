//! The world outside the node: the other end of its wires, the DNS upstream, and an eye for what leaks.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd as _,
    path::Path,
    time::Duration,
};

use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket};

use super::{
    Error, dns,
    links::Links,
    scenario::{NodeSpec, Upstream},
    topology::OUTSIDE_V4,
};
use crate::target::DNS_PORT;

/// Prepares the calling thread's network namespace; the node adds the wires.
///
/// # Errors
/// The kernel refuses.
pub fn prepare(spec: &NodeSpec) -> Result<(), Error> {
    let links = Links::open()?;
    links.up("lo")?;
    if spec.answered_outside {
        for dns in spec.host_dns.iter().filter(|dns| dns.address.is_ipv4()) {
            links.address("lo", dns.address, 32, 0)?;
        }
    }
    Ok(())
}

/// Where which server listens outside, and what it does.
#[must_use]
pub fn listens(spec: &NodeSpec) -> Vec<dns::Listen> {
    let at =
        |address: IpAddr| dns::Listen { address: SocketAddr::new(address, DNS_PORT), udp: true, tcp: true, ttl: None };
    let mut listens = Vec::new();
    if spec.upstream != Upstream::Down {
        listens.push(at(OUTSIDE_V4.into()));
    }
    if spec.answered_outside {
        listens.extend(spec.host_dns.iter().filter(|dns| dns.address.is_ipv4()).map(|dns| at(dns.address)));
    }
    listens
}

/// What the upstream does.
#[must_use]
pub fn role(spec: &NodeSpec) -> dns::Role {
    let delay = match spec.upstream {
        Upstream::Slow(milliseconds) => Duration::from_millis(milliseconds.into()),
        Upstream::Up | Upstream::Down => Duration::ZERO,
    };
    dns::Role::Authority { delay }
}

/// Writes a line `PROTOCOL SOURCE DESTINATION` to `log` for every packet that arrives here for one of the node's own DNS
/// addresses. It shares nothing with the probe: a packet socket in the outside's network namespace.
///
/// # Errors
/// No packet socket, no file or no thread.
pub fn watch_leaks(spec: &NodeSpec, log: &Path) -> Result<(), Error> {
    // ETH_P_ALL, network byte order; datagrams begin at the network header, whatever the device.
    let packets = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
        .map_err(Error::sys("cannot open a packet socket"))?;
    let mut log: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(Error::io(format!("cannot write {}", log.display())))?;
    let addresses: Vec<IpAddr> = spec.host_dns.iter().map(|dns| dns.address).collect();
    std::thread::Builder::new()
        .name("leaks".into())
        .spawn(move || {
            let mut packet = [0; 256];
            while let Ok((len, from)) = recvfrom::<LinkAddr>(packets.as_raw_fd(), &mut packet) {
                let arrived = from.is_some_and(|from| from.pkttype() == 0); // PACKET_HOST
                if arrived
                    && let Some((protocol, source, destination)) = addressed(packet.get(..len).unwrap_or_default())
                    && addresses.contains(&destination)
                {
                    let _ = writeln!(log, "{protocol} {source} {destination}");
                }
            }
        })
        .map_err(Error::io("cannot start a thread"))?;
    Ok(())
}

/// Protocol, source and destination of an IP packet.
fn addressed(packet: &[u8]) -> Option<(u8, IpAddr, IpAddr)> {
    let v4 = |at: usize| <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok().map(IpAddr::from);
    let v6 = |at: usize| <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok().map(IpAddr::from);
    match packet.first()? >> 4 {
        4 => Some((*packet.get(9)?, v4(12)?, v4(16)?)),
        6 => Some((*packet.get(6)?, v6(8)?, v6(24)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_packet() {
        let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend([192, 168, 77, 2, 169, 254, 116, 108]);
        let expected = (17, "192.168.77.2".parse().unwrap(), "169.254.116.108".parse().unwrap());
        assert_eq!(addressed(&packet), Some(expected));
        assert_eq!(addressed(&packet[..19]), None);
        assert_eq!(addressed(&[]), None);
    }
}
