//! The addresses under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Talos' host DNS, IPv4 (Talos 1.8 and later; `constants.HostDNSAddress`).
pub const HOST_DNS_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 116, 108));

/// Talos' host DNS, IPv6 (Talos 1.14 and later, with an IPv6 pod CIDR).
pub const HOST_DNS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd54, 0x616c, 0x6f73, 0, 0x204f, 0x5320, 0x444e, 0x531));

/// Where Talos' host DNS listens for the node itself.
pub const NODE_RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

pub const DNS_PORT: u16 = 53;

/// What is under test: one or more addresses, one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    pub addresses: Vec<IpAddr>,
    pub port: u16,
}

impl Default for Targets {
    fn default() -> Self {
        Self { addresses: vec![HOST_DNS_V4], port: DNS_PORT }
    }
}

impl Targets {
    pub fn sockets(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.addresses.iter().map(|&address| SocketAddr::new(address, self.port))
    }

    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }
}
