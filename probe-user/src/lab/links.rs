//! rtnetlink, for code that builds things one after the other. A [`Links`] works in the network namespace of the thread
//! that opened it.

use std::{net::IpAddr, os::fd::RawFd};

use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, LinkDummy, LinkMessageBuilder, LinkNetkit, LinkUnspec, LinkVeth, LinkVxlan, RouteMessageBuilder,
    packet_route::{
        address::{AddressHeaderFlags, AddressScope},
        link::{InfoData, InfoNetkit, InfoVeth, LinkAttribute, NetkitMode},
        route::RouteScope,
    },
};

use super::{Error, spec::Device};

/// A netlink connection into one network namespace.
pub struct Links {
    runtime: tokio::runtime::Runtime,
    handle: Handle,
}

impl Links {
    /// Opens a connection in the calling thread's network namespace.
    ///
    /// # Errors
    /// No netlink socket can be opened.
    pub fn open() -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::io("cannot start a runtime for netlink"))?;
        let (connection, handle, _messages) = {
            let _inside = runtime.enter();
            rtnetlink::new_connection().map_err(Error::io("cannot open a netlink socket"))?
        };
        runtime.spawn(connection);
        Ok(Self { runtime, handle })
    }

    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// A veth pair, the near end up (the kernel does not take a peer that is); the peer is made in the network namespace `peer_netns` (none: in this one). `noarp` as
    /// Cilium sets it on its own pair.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn veth(&self, name: &str, peer: &str, peer_netns: Option<RawFd>, noarp: bool) -> Result<(), Error> {
        let mut far = LinkMessageBuilder::<LinkUnspec>::new().name(peer).arp(!noarp);
        if let Some(fd) = peer_netns {
            far = far.setns_by_fd(fd);
        }
        let near = LinkVeth::new(name, peer)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far.build())))
            .arp(!noarp)
            .up()
            .build();
        self.wait(self.handle.link().add(near).execute())
            .map_err(Error::netlink(format!("cannot make the veth pair {name}/{peer}")))
    }

    /// A netkit pair with Ethernet addresses, the near (primary) end up, the peer in the network namespace `peer_netns`.
    ///
    /// # Errors
    /// The kernel refuses, or has no netkit (Linux 6.7, CONFIG_NETKIT).
    pub fn netkit(&self, name: &str, peer: &str, peer_netns: RawFd) -> Result<(), Error> {
        let far = LinkMessageBuilder::<LinkUnspec>::new().name(peer).setns_by_fd(peer_netns).build();
        let data = InfoData::Netkit(vec![InfoNetkit::Mode(NetkitMode::L2), InfoNetkit::Peer(far)]);
        let near = LinkNetkit::new(name, peer, NetkitMode::L2).set_info_data(data).up().build();
        self.wait(self.handle.link().add(near).execute())
            .map_err(Error::netlink(format!("cannot make the netkit pair {name}/{peer}")))
    }

    /// Cilium's `cilium_vxlan`: external mode, no learning.
    ///
    /// # Errors
    /// The kernel refuses, or has no vxlan.
    pub fn vxlan(&self, name: &str) -> Result<(), Error> {
        let link = LinkMessageBuilder::<LinkVxlan>::new(name).collect_metadata(true).port(8472).learning(false).up();
        self.wait(self.handle.link().add(link.build()).execute())
            .map_err(Error::netlink(format!("cannot make the vxlan device {name}")))
    }

    /// A dummy device.
    ///
    /// # Errors
    /// The kernel refuses, or has none.
    pub fn dummy(&self, name: &str) -> Result<(), Error> {
        self.wait(self.handle.link().add(LinkDummy::new(name).build()).execute())
            .map_err(Error::netlink(format!("cannot make the dummy device {name}")))
    }

    /// Sets a device up.
    ///
    /// # Errors
    /// It is not there.
    pub fn up(&self, name: &str) -> Result<(), Error> {
        let index = self.device(name)?.index;
        let change = LinkUnspec::new_with_index(index).up().build();
        self.wait(self.handle.link().set(change).execute()).map_err(Error::netlink(format!("cannot set {name} up")))
    }

    /// Index and Ethernet address of a device.
    ///
    /// # Errors
    /// It is not there.
    pub fn device(&self, name: &str) -> Result<Device, Error> {
        let found = self
            .wait(self.handle.link().get().match_name(name).execute().try_next())
            .map_err(Error::netlink(format!("cannot look up {name}")))?
            .ok_or_else(|| Error::NoLink(name.into()))?;
        let mac = found.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => None,
        });
        Ok(Device { name: name.into(), index: found.header.index, mac: mac.unwrap_or_default(), layer3: mac.is_none() })
    }

    /// Adds an address. `scope` is `RT_SCOPE_*`; of an IPv6 address the kernel derives it. No duplicate address
    /// detection: nobody else lives here, and a tentative address answers nothing.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn address(&self, name: &str, address: IpAddr, prefix_len: u8, scope: u8) -> Result<(), Error> {
        let index = self.device(name)?.index;
        let mut request = self.handle.address().add(index, address, prefix_len);
        let header = &mut request.message_mut().header;
        header.scope = AddressScope::from(scope);
        if address.is_ipv6() {
            header.flags |= AddressHeaderFlags::Nodad;
        }
        self.wait(request.execute()).map_err(Error::netlink(format!("cannot add {address}/{prefix_len} to {name}")))
    }

    /// Adds a route to `destination`/`prefix_len` (0: the default route) out of device `name`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn route(&self, destination: IpAddr, prefix_len: u8, gateway: Option<IpAddr>, name: &str) -> Result<(), Error> {
        let index = self.device(name)?.index;
        let what = || format!("cannot add the route to {destination}/{prefix_len} through {name}");
        let mut route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination, prefix_len)
            .map_err(|error| Error::Io { what: what(), source: std::io::Error::other(error) })?
            .output_interface(index);
        match gateway {
            Some(gateway) => {
                route = route
                    .gateway(gateway)
                    .map_err(|error| Error::Io { what: what(), source: std::io::Error::other(error) })?;
            }
            None if destination.is_ipv4() => route = route.scope(RouteScope::Link),
            None => {}
        }
        self.wait(self.handle.route().add(route.build()).execute()).map_err(Error::netlink(what()))
    }

    /// A neighbour that needs no asking.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn neighbour(&self, name: &str, address: IpAddr, mac: [u8; 6]) -> Result<(), Error> {
        let index = self.device(name)?.index;
        self.wait(self.handle.neighbours().add(index, address).link_layer_address(&mac).replace().execute())
            .map_err(Error::netlink(format!("cannot add the neighbour {address} on {name}")))
    }
}
