//! Frames, byte by byte, and a packet socket to send them.

use std::{io, os::fd::AsRawFd as _, os::fd::FromRawFd as _, os::fd::OwnedFd};

use hostdns_probe::netns::Netns;

pub(crate) const TARGET: [u8; 4] = [169, 254, 116, 108];
pub(crate) const POD: [u8; 4] = [10, 0, 0, 2];
pub(crate) const POD_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
pub(crate) const TARGET_V6: [u8; 16] =
    [0xfd, 0x54, 0x61, 0x6c, 0x6f, 0x73, 0, 0, 0x20, 0x4f, 0x53, 0x20, 0x44, 0x4e, 0x05, 0x31];
pub(crate) const QUERY: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03org\x00\x00\x01\x00\x01";

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// From the pod to the node, with any tags (type and id) between addresses and type.
pub(crate) fn ethernet(tags: &[(u16, u16)], ether_type: u16, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 2];
    for (kind, id) in tags {
        bytes.extend(kind.to_be_bytes());
        bytes.extend(id.to_be_bytes());
    }
    bytes.extend(ether_type.to_be_bytes());
    bytes.extend(rest);
    bytes
}

pub(crate) fn v4(packet: &[u8]) -> Vec<u8> {
    ethernet(&[], IPV4, packet)
}

pub(crate) fn v6(packet: &[u8]) -> Vec<u8> {
    ethernet(&[], IPV6, packet)
}

pub(crate) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend((8 + payload.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

/// A TCP header whose length field says `words`, and a payload.
pub(crate) fn tcp(source: u16, words: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.to_be_bytes());
    bytes.extend(53_u16.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, words << 4, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(payload);
    bytes
}

/// An IPv4 header from the pod to the target. `options` in words of four bytes; `fragment` is the word of flags and
/// offset.
pub(crate) fn ipv4(protocol: u8, options: &[u8], fragment: u16, rest: &[u8]) -> Vec<u8> {
    ipv4_between(POD, TARGET, protocol, options, fragment, rest)
}

pub(crate) fn ipv4_between(
    from: [u8; 4],
    to: [u8; 4],
    protocol: u8,
    options: &[u8],
    fragment: u16,
    rest: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let mut bytes = vec![0x40 | (header / 4) as u8, 0];
    bytes.extend(((header + rest.len()) as u16).to_be_bytes());
    bytes.extend([0x77, 0x77]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(from);
    bytes.extend(to);
    bytes.extend(options);
    let sum = bytes.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(rest);
    bytes
}

pub(crate) fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend((rest.len() as u16).to_be_bytes());
    bytes.extend([next, 64]);
    bytes.extend(POD_V6);
    bytes.extend(TARGET_V6);
    bytes.extend(rest);
    bytes
}

/// A packet socket on a device of a namespace: what is sent comes out at the device's other end.
pub(crate) struct Injector {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
}

impl Injector {
    pub(crate) fn new(netns: &Netns, device: &str) -> Self {
        netns
            .run(|| {
                // SAFETY: no pointers; the descriptor is owned from here on.
                let socket = unsafe {
                    let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
                    assert!(fd >= 0, "{}", io::Error::last_os_error());
                    OwnedFd::from_raw_fd(fd)
                };
                // SAFETY: all-zero is a valid sockaddr_ll.
                let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
                address.sll_family = libc::AF_PACKET as u16;
                address.sll_ifindex = nix::net::if_::if_nametoindex(device).unwrap().cast_signed();
                Self { socket, address }
            })
            .unwrap()
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        let mut address = self.address;
        address.sll_protocol = u16::from_ne_bytes([frame[12], frame[13]]);
        // SAFETY: frame and address outlive the call; the sizes given are theirs.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        assert_eq!(usize::try_from(sent).ok(), Some(frame.len()), "{}", io::Error::last_os_error());
    }
}
