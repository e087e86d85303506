//! Devices that come while the trace runs: rtnetlink's link events, read where the thread that attaches can wait for
//! them.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{RouteNetlinkMessage, link::LinkAttribute};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::netlink::messages;

/// `RTMGRP_LINK` (include/uapi/linux/rtnetlink.h).
const RTMGRP_LINK: u32 = 1;

/// What happened to a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// New, or changed.
    Present {
        index: u32,
        name: String,
    },
    Gone {
        index: u32,
    },
    /// Events were lost (the socket's buffer overran): names must be looked up anew.
    Overrun,
}

/// The listening socket.
pub(crate) struct Links {
    socket: Socket,
}

impl Links {
    /// Listens in the calling thread's namespace.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, RTMGRP_LINK))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// What came since the last call, without waiting.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut buffer = vec![0_u8; 64 * 1024];
        loop {
            match self.socket.recv(&mut &mut buffer[..], libc::MSG_TRUNC) {
                Ok(len) if len <= buffer.len() => parse(&buffer[..len], &mut changes),
                Ok(_) => changes.push(Change::Overrun),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changes.push(Change::Overrun),
                Err(_) => return changes,
            }
        }
    }
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn parse(bytes: &[u8], changes: &mut Vec<Change>) {
    for message in messages::<RouteNetlinkMessage>(bytes).flatten() {
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                let name = link.attributes.into_iter().find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name),
                    _ => None,
                });
                if let Some(name) = name {
                    changes.push(Change::Present { index: link.header.index, name });
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                changes.push(Change::Gone { index: link.header.index });
            }
            _ => {}
        }
    }
}
