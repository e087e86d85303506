//! A device queue that does not move: frames sent to a pod wait in it for hours. Nothing is dropped, nothing is counted,
//! and no reply arrives: what a loss without a trace looks like from outside.
//!
//! It is a token bucket (tbf) of one byte a second, emptied at once, with frames before the pods' that take hours.

use std::io;

use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike as _, sendto, socket};
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use rtnetlink::{
    packet_core::{DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
};

use super::{Error, links::Links, spec::Device};

/// Bytes that one frame may have at most to be queued rather than dropped: a DNS answer is far below.
const BURST: u32 = 1024;
/// The first empties the bucket. The others wait in front of whatever is sent to the pod, 17 minutes each: alone, an
/// answer would be let through after a minute or two.
const FRAMES: usize = 16;
/// `enum` in linux/pkt_sched.h.
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_BURST: u16 = 6;

/// Blocks the queue of `device`.
///
/// # Errors
/// The kernel has no tbf, or refuses.
pub fn block(links: &Links, device: &Device) -> Result<(), Error> {
    let what = || format!("cannot block the queue of {} (does the kernel have sch_tbf?)", device.name);
    let mut message = TcMessage::default();
    message.header.index = i32::try_from(device.index).unwrap_or_default();
    message.header.parent = TcHandle::ROOT;
    message.header.handle = TcHandle { major: 1, minor: 0 };
    message.attributes = vec![
        TcAttribute::Kind("tbf".into()),
        TcAttribute::Options(vec![
            TcOption::Other(DefaultNla::new(TCA_TBF_PARMS, parameters())),
            TcOption::Other(DefaultNla::new(TCA_TBF_BURST, BURST.to_ne_bytes().to_vec())),
        ]),
    ];
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    let mut handle = links.handle().clone();
    links
        .wait(async {
            use futures_util::StreamExt as _;
            let mut replies = handle.request(request)?;
            while let Some(reply) = replies.next().await {
                if let NetlinkPayload::Error(error) = reply.payload
                    && error.code.is_some()
                {
                    return Err(rtnetlink::Error::NetlinkError(error));
                }
            }
            Ok(())
        })
        .map_err(Error::netlink(what()))?;
    fill(device).map_err(Error::io(what()))
}

/// `struct tc_tbf_qopt` (linux/pkt_sched.h, host byte order): two rates of 12 bytes, limit, buffer, mtu.
fn parameters() -> Vec<u8> {
    let mut rate = [0; 12];
    rate[1] = 1; // TC_LINKLAYER_ETHERNET: no rate table wanted
    rate[8..].copy_from_slice(&1_u32.to_ne_bytes()); // bytes per second
    let limit = 1_u32 << 20; // bytes that may wait
    [&rate[..], &[0; 12], &limit.to_ne_bytes(), &BURST.to_ne_bytes(), &0_u32.to_ne_bytes()].concat()
}

/// Sends frames as large as the bucket; their EtherType (IEEE 802, local experimental) means nothing to the pod.
fn fill(device: &Device) -> io::Result<()> {
    let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    let mut frame = vec![0; BURST as usize];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&device.mac);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    let to = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0x88b5_u16.to_be(),
        sll_ifindex: i32::try_from(device.index).unwrap_or_default(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff; 8],
    };
    // SAFETY: `to` is a sockaddr_ll of the length told.
    let address =
        unsafe { LinkAddr::from_raw((&raw const to).cast(), Some(size_of::<libc::sockaddr_ll>() as libc::socklen_t)) }
            .ok_or_else(|| io::Error::other("not a link address"))?;
    use std::os::fd::AsRawFd as _;
    for _ in 0..FRAMES {
        sendto(raw.as_raw_fd(), &frame, &address, MsgFlags::empty())?;
    }
    Ok(())
}
