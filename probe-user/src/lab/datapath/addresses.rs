//! The node's addresses: reading them, and which of them Cilium takes for the host's own.

use std::{collections::BTreeSet, io, net::IpAddr, os::fd::AsRawFd as _, time::Duration};

use netlink_packet_core::{DecodeError, Parseable as _};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeader, AddressMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::Error;
use crate::{
    lab::spec::{CiliumVersion, DatapathConfig},
    netlink::{Entries, Netlink},
};

/// How long the kernel has for its answer.
const LIMIT: Duration = Duration::from_secs(2);

/// Loopback's index, in every network namespace (net/core/dev.c `LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// `RT_SCOPE_LINK`.
const SCOPE_LINK: u8 = 253;

/// One address of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) index: u32,
    pub(super) ip: IpAddr,
    /// `RT_SCOPE_*`.
    pub(super) scope: u8,
}

/// The addresses that Cilium writes to its maps as the host's (cilium pkg/datapath/tables/node_address.go and
/// hostips-sync.go): those of its devices up to `local-max-addr-scope`, of `lo` too, and from 1.17 those of other devices.
pub(super) fn known_to_cilium(config: &DatapathConfig, addresses: &[Address]) -> BTreeSet<IpAddr> {
    addresses.iter().filter(|address| is_known(config, address)).map(|address| address.ip).collect()
}

fn is_known(config: &DatapathConfig, address: &Address) -> bool {
    let index = address.index;
    let own = index == config.cilium_host.index;
    let selected = config.external.iter().any(|device| device.index == index);
    let plumbing = index == config.cilium_net.index
        || config.overlay.as_ref().is_some_and(|device| device.index == index)
        || config.endpoints.iter().any(|endpoint| endpoint.device.index == index);
    let device_counts =
        own || selected || index == LOOPBACK || (!plumbing && config.cilium.version >= CiliumVersion::V1_18_1);
    let scope_counts = address.scope <= config.cilium.address_scope_max || (own && address.scope == SCOPE_LINK);
    let family_counts = address.ip.is_ipv4() || config.node_ipv6.is_some();
    device_counts && scope_counts && family_counts && !address.ip.is_loopback()
}

/// Every address of the calling thread's network namespace.
pub(super) fn dump() -> Result<Vec<Address>, Error> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let answer = Netlink::open(NETLINK_ROUTE, LIMIT).and_then(|netlink| netlink.dump(request));
    let messages = answer.map_err(|error| Error::Addresses(error.to_string()))?;
    let Entries { found, unread } = Entries::decode(&messages, address);
    unread.map_or(Ok(found), |why| Err(Error::Addresses(why)))
}

fn address(payload: &[u8]) -> Result<Option<Address>, DecodeError> {
    let message = AddressMessage::parse(payload)?;
    let AddressHeader { index, scope, .. } = message.header;
    Ok(local(&message).map(|ip| Address { index, ip, scope: scope.into() }))
}

/// `IFA_LOCAL` is the address itself; IPv6 has `IFA_ADDRESS` alone.
fn local(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => return Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    address
}

/// A socket that becomes readable when an address of the calling thread's namespace comes or goes.
pub(super) fn subscribe() -> Result<Socket, Error> {
    let failed = |what| move |source| Error::Netlink { what, source };
    let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("opening a socket"))?;
    socket.set_non_blocking(true).map_err(failed("making the socket non-blocking"))?;
    let groups = (libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32;
    socket.bind(&SocketAddr::new(0, groups)).map_err(failed("subscribing to address events"))?;
    Ok(socket)
}

/// Reads the events away. What changed is asked anew: an overrun (ENOBUFS) then costs nothing.
pub(super) fn drain(socket: &Socket) -> Result<(), Error> {
    let mut buffer = [0_u8; 8192];
    loop {
        // SAFETY: the buffer outlives the call, its size is given.
        let read = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        if read >= 0 {
            continue;
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN) => return Ok(()),
            Some(libc::ENOBUFS | libc::EINTR) => {}
            _ => return Err(Error::Netlink { what: "reading address events", source: error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{datapath::settings::tests::config, spec::CiliumSpec};

    fn known(cilium: CiliumSpec, index: u32, ip: &str, scope: u8) -> bool {
        let address = Address { index, ip: ip.parse().expect("an address"), scope };
        !known_to_cilium(&config(cilium, 1), &[address]).is_empty()
    }

    #[test]
    fn the_scope_decides_about_the_address_on_lo() {
        let default = CiliumSpec::default();
        assert!(known(default.clone(), LOOPBACK, "169.254.116.108", 0));
        assert!(!known(default.clone(), LOOPBACK, "169.254.116.108", 254));
        assert!(!known(default.clone(), LOOPBACK, "169.254.116.108", SCOPE_LINK), "link is not enough on lo");
        let raised = CiliumSpec { address_scope_max: 254, ..default };
        assert!(known(raised.clone(), LOOPBACK, "169.254.116.108", 254));
        assert!(!known(raised, LOOPBACK, "127.0.0.1", 254), "loopback addresses never");
    }

    #[test]
    fn cilium_host_keeps_its_link_scope() {
        assert!(known(CiliumSpec::default(), 10, "10.244.1.52", SCOPE_LINK));
        assert!(!known(CiliumSpec::default(), 2, "10.0.0.1", SCOPE_LINK));
    }

    #[test]
    fn other_devices_count_from_1_17() {
        let old = CiliumSpec { version: CiliumVersion::V1_16_5, ..CiliumSpec::default() };
        assert!(!known(old.clone(), 77, "169.254.20.10", 0));
        assert!(known(old, 2, "192.168.77.2", 0));
        assert!(known(CiliumSpec::default(), 77, "169.254.20.10", 0));
        assert!(!known(CiliumSpec::default(), 11, "10.9.9.9", 0), "not cilium_net");
    }

    #[test]
    fn ipv6_counts_where_it_is_on() {
        let mut config = config(CiliumSpec::default(), 1);
        let address = Address { index: LOOPBACK, ip: "fd54:616c:6f73::1".parse().expect("an address"), scope: 0 };
        assert!(known_to_cilium(&config, &[address]).is_empty());
        config.node_ipv6 = Some("fd00::2".parse().expect("an address"));
        assert_eq!(known_to_cilium(&config, &[address]).len(), 1);
    }
}
