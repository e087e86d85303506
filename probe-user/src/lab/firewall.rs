//! An ingress firewall of the node, as Talos builds one (`NetworkDefaultActionConfig` block): an nftables base chain that
//! drops what no rule accepts. Spoken over nfnetlink directly; the numbers are those of linux/netfilter/nf_tables.h.

use std::io;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::Error;

const SUBSYSTEM: u16 = 10; // NFNL_SUBSYS_NFTABLES
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
const NEW_RULE: u16 = (SUBSYSTEM << 8) | 6;
const FAMILY_INET: u8 = 1;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

const TABLE: &[u8] = b"talos\0";
const CHAIN: &[u8] = b"ingress\0";

/// Drops everything that enters the node's sockets, but through the interfaces `accepted`. Works in the calling thread's
/// network namespace.
///
/// # Errors
/// The kernel has no nf_tables, or refuses.
pub fn block_input_except(accepted: &[&str]) -> Result<(), Error> {
    apply(&batch(accepted)).map_err(Error::Firewall)
}

fn batch(accepted: &[&str]) -> Vec<u8> {
    let mut bytes = message(BATCH_BEGIN, REQUEST, 0, 0, SUBSYSTEM, &[]);
    bytes.extend(message(NEW_TABLE, REQUEST | ACK | CREATE, 1, FAMILY_INET, 0, &attribute(1, TABLE)));
    let hook = [attribute(1, &1_u32.to_be_bytes()), attribute(2, &0_i32.to_be_bytes())].concat(); // input, priority
    let chain = [
        attribute(1, TABLE),
        attribute(3, CHAIN),
        attribute(4 | NESTED, &hook),
        attribute(5, &0_u32.to_be_bytes()), // policy: NF_DROP
        attribute(7, b"filter\0"),
    ];
    bytes.extend(message(NEW_CHAIN, REQUEST | ACK | CREATE, 2, FAMILY_INET, 0, &chain.concat()));
    for (interface, sequence) in accepted.iter().zip(3_u32..) {
        let expressions = [interface_is(interface), accept()].concat();
        let rule = [attribute(1, TABLE), attribute(2, CHAIN), attribute(4 | NESTED, &expressions)];
        bytes.extend(message(NEW_RULE, REQUEST | ACK | CREATE | APPEND, sequence, FAMILY_INET, 0, &rule.concat()));
    }
    bytes.extend(message(BATCH_END, REQUEST, 0, 0, SUBSYSTEM, &[]));
    bytes
}

/// `meta iifname == interface`
fn interface_is(interface: &str) -> Vec<u8> {
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(interface.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from;
    }
    let register = 1_u32.to_be_bytes(); // NFT_REG_1
    let load = [attribute(1, &register), attribute(2, &6_u32.to_be_bytes())]; // NFT_META_IIFNAME
    let compare = [
        attribute(1, &register),
        attribute(2, &0_u32.to_be_bytes()), // NFT_CMP_EQ
        attribute(3 | NESTED, &attribute(1, &name)),
    ];
    [expression(b"meta\0", &load.concat()), expression(b"cmp\0", &compare.concat())].concat()
}

fn accept() -> Vec<u8> {
    let verdict = attribute(2 | NESTED, &attribute(1, &1_u32.to_be_bytes())); // NFTA_DATA_VERDICT: NF_ACCEPT
    expression(b"immediate\0", &[attribute(1, &0_u32.to_be_bytes()), attribute(2 | NESTED, &verdict)].concat())
}

fn expression(name: &[u8], content: &[u8]) -> Vec<u8> {
    attribute(1 | NESTED, &[attribute(1, name), attribute(2 | NESTED, content)].concat())
}

/// A netlink attribute: length and type in host order, padded to four bytes.
fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), content].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A netlink message with its nfgenmsg (family, version 0, resource id in network order).
fn message(kind: u16, flags: u16, sequence: u32, family: u8, resource: u16, content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len() + 20).unwrap_or(u32::MAX);
    [
        &len.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &sequence.to_ne_bytes(),
        &0_u32.to_ne_bytes(),
        &[family, 0],
        &resource.to_be_bytes(),
        content,
    ]
    .concat()
}

/// Sends the batch and reads what the kernel says of it; it has answered when the send returns.
fn apply(batch: &[u8]) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
    send(netlink.as_raw_fd(), batch, MsgFlags::empty())?;
    let mut replies = vec![0; 32 * 1024];
    loop {
        match recv(netlink.as_raw_fd(), &mut replies, MsgFlags::MSG_DONTWAIT) {
            Ok(len) => first_error(replies.get(..len).unwrap_or_default())?,
            Err(nix::errno::Errno::EAGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The error in a datagram of NLMSG_ERROR messages (0 is an acknowledgement).
fn first_error(mut bytes: &[u8]) -> io::Result<()> {
    const ERROR: u16 = 2;
    while let (Some(len), Some(kind)) = (field(bytes, 0), bytes.get(4..6)) {
        if kind == ERROR.to_ne_bytes()
            && let Some(code) = field(bytes, 16).map(u32::cast_signed)
            && code != 0
        {
            return Err(io::Error::from_raw_os_error(-code));
        }
        let next = (len as usize).next_multiple_of(4);
        if next == 0 {
            break;
        }
        bytes = bytes.get(next..).unwrap_or_default();
    }
    Ok(())
}

fn field(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_messages_say_their_length() {
        assert_eq!(attribute(3, b"ab\0").len(), 8);
        let bytes = batch(&["lo"]);
        let mut rest = &bytes[..];
        let mut messages = 0;
        while let Some(len) = field(rest, 0) {
            assert_eq!(len % 4, 0);
            rest = &rest[len as usize..];
            messages += 1;
        }
        assert_eq!((messages, rest.len()), (5, 0));
    }

    #[test]
    fn an_error_is_found_behind_an_acknowledgement() {
        let reply = |code: i32| {
            [&36_u32.to_ne_bytes()[..], &2_u16.to_ne_bytes(), &[0; 10], &code.to_ne_bytes(), &[0; 16]].concat()
        };
        assert!(first_error(&reply(0)).is_ok());
        let error = first_error(&[reply(0), reply(-libc::EOPNOTSUPP)].concat()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
    }
}
