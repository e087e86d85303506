//! The programs on the devices that packets pass, with tcx, with clsact and inside of netkit, in the order in which they
//! run. Looked at before any hook of ours is on; those of another probe beside this one are left out.

use std::{io, time::Duration};

use netlink_packet_core::{DecodeError, Emitable as _, NlaBuffer, NlasIterator};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcHeader, TcMessage},
};

use super::{
    chain::{self, Place, Program, text},
    rtnetlink,
};
use crate::{
    facts::{AttachPoint, AttachedProgram, Fact, Link},
    netlink::{Entries, Error, Netlink},
};

pub(super) const SOURCE: &str = "bpf(BPF_PROG_QUERY) and rtnetlink RTM_GETTFILTER";

/// How long the kernel has for one answer.
const LIMIT: Duration = Duration::from_millis(500);

/// Devices looked at: the kubelet's default of 110 pods, Cilium's own and the node's have room.
const MAX_DEVICES: usize = 128;

/// Programs kept.
const MAX_PROGRAMS: usize = 1024;

/// What the names of our own programs begin with.
const OURS: &str = "hostdns_";

/// Reads the programs on the devices of the calling thread's namespace.
pub(super) fn read() -> Fact<Vec<AttachedProgram>> {
    let opened = Netlink::open(rtnetlink::FAMILY, LIMIT);
    let (netlink, links) = match opened.and_then(|netlink| rtnetlink::links(&netlink).map(|links| (netlink, links))) {
        Ok(asked) => asked,
        Err(e) => return Fact::unavailable(e, SOURCE),
    };
    let mut notes: Vec<String> = links.unread.into_iter().collect();
    let mut links = of_interest(links.found);
    let left_out = links.len().saturating_sub(MAX_DEVICES);
    if left_out > 0 {
        links.truncate(MAX_DEVICES);
        notes.push(format!("{left_out} more devices were not looked at"));
    }
    let mut value = Vec::new();
    for link in &links {
        match of_device(&netlink, link, &mut notes) {
            Ok(found) => value.extend(found.into_iter().filter(|program| !program.name.starts_with(OURS))),
            Err(why) => return Fact::unavailable(format!("{}: {why}", link.name), SOURCE),
        }
    }
    if value.len() > MAX_PROGRAMS {
        notes.push(format!("{} more programs were left out", value.len() - MAX_PROGRAMS));
        value.truncate(MAX_PROGRAMS);
    }
    Fact::known(value, SOURCE).noting(notes)
}

/// Cilium's own devices first, then those towards other machines (a veth in a node that is a container), then pods'. Where
/// Cilium is chained behind another plugin, pods' devices have other names; they are younger than the node's.
fn of_interest(links: Vec<Link>) -> Vec<Link> {
    let rank = |link: &Link| match (link.name.as_str(), link.kind.as_deref()) {
        ("lo", _) | (_, Some("dummy" | "ifb" | "bridge" | "nlmon")) => None,
        (name, _) if name.starts_with("cilium_") => Some(0),
        (name, _) if name.starts_with("lxc") => Some(2),
        _ => Some(1),
    };
    let mut ranked: Vec<_> = links.into_iter().filter_map(|link| Some((rank(&link)?, link))).collect();
    ranked.sort_by_key(|&(rank, ref link)| (rank, link.index));
    ranked.into_iter().map(|(_, link)| link).collect()
}

fn of_device(netlink: &Netlink, link: &Link, notes: &mut Vec<String>) -> Result<Vec<AttachedProgram>, String> {
    use AttachPoint::{ClsactEgress, ClsactIngress, TcxEgress, TcxIngress};
    let ask = |place| move || chain::of(link.index, place);
    let (mut found, last) = netkit(link, notes, ask(Place::NetkitPeer), ask(Place::NetkitPrimary))?;
    for (tcx, clsact, place, parent) in [
        (TcxIngress, ClsactIngress, Place::TcxIngress, TcHandle::MIN_INGRESS),
        (TcxEgress, ClsactEgress, Place::TcxEgress, TcHandle::MIN_EGRESS),
    ] {
        found.extend(chained(link, tcx, ask(place)).map_err(|e| why(tcx, &e))?);
        let filters = filters(netlink, link.index, parent).map_err(|e| format!("{}: {e}", clsact.as_str()))?;
        notes.extend(filters.unread.map(|unread| format!("{} {}: {unread}", link.name, clsact.as_str())));
        found.extend(filters.found.into_iter().map(|filter| AttachedProgram {
            interface: link.name.clone(),
            hook: clsact,
            name: filter.name,
            id: filter.id,
            priority: Some(filter.priority),
            handle: Some(filter.handle),
        }));
    }
    found.extend(last);
    Ok(found)
}

/// The programs inside of a netkit pair, by its primary device: those of what the peer transmits, which run before
/// anything here, and those of what the device itself transmits, which run last.
fn netkit(
    link: &Link,
    notes: &mut Vec<String>,
    peer: impl FnMut() -> io::Result<Vec<Program>>,
    primary: impl FnMut() -> io::Result<Vec<Program>>,
) -> Result<(Vec<AttachedProgram>, Vec<AttachedProgram>), String> {
    use AttachPoint::{NetkitPeer, NetkitPrimary};
    if link.kind.as_deref() != Some("netkit") {
        return Ok((Vec::new(), Vec::new()));
    }
    match chained(link, NetkitPeer, peer) {
        Ok(first) => Ok((first, chained(link, NetkitPrimary, primary).map_err(|e| why(NetkitPrimary, &e))?)),
        // This is the peer, and the kernel tells of both by the primary device alone (drivers/net/netkit.c,
        // `netkit_dev_fetch`). One that is here too is read for itself.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            if link.peer_nsid.is_some() {
                let name = &link.name;
                notes.push(format!("{name}: what runs inside of this netkit pair can be read at its other end alone"));
            }
            Ok((Vec::new(), Vec::new()))
        }
        Err(error) => Err(why(NetkitPeer, &error)),
    }
}

/// A program that goes away between the list of ids and the look at it is `ENOENT`; the list is read again then.
const ATTEMPTS: usize = 3;

fn chained(
    link: &Link,
    hook: AttachPoint,
    mut ask: impl FnMut() -> io::Result<Vec<Program>>,
) -> io::Result<Vec<AttachedProgram>> {
    let mut asked = ask();
    for _ in 1..ATTEMPTS {
        if asked.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::ENOENT)) {
            asked = ask();
        }
    }
    let programs = match asked {
        Ok(programs) => programs,
        Err(error) => match error.raw_os_error() {
            // A kernel that knows no such attach type has nothing there. Or the device has gone.
            Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENODEV | libc::ENXIO) => Vec::new(),
            _ => return Err(error),
        },
    };
    let programs = programs.into_iter().map(|Program { id, name }| AttachedProgram {
        interface: link.name.clone(),
        hook,
        name,
        id: Some(id),
        priority: None,
        handle: None,
    });
    Ok(programs.collect())
}

fn why(hook: AttachPoint, error: &io::Error) -> String {
    let hook = hook.as_str();
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => format!("{hook}: {error}; CAP_NET_ADMIN and CAP_SYS_ADMIN are needed"),
        Some(libc::ENOENT) => format!("{hook}: they change faster than they can be read: {error}"),
        _ => format!("{hook}: {error}"),
    }
}

/// A filter of kind `bpf`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Filter {
    name: String,
    id: Option<u32>,
    priority: u16,
    handle: u32,
}

/// Those at one side of a clsact qdisc, in the order in which they run; none where there is no such qdisc.
fn filters(netlink: &Netlink, index: u32, parent: u16) -> Result<Entries<Filter>, Error> {
    let mut request = TcMessage::default();
    request.header.index = index.cast_signed();
    request.header.parent = TcHandle { major: TcHandle::CLSACT.major, minor: parent };
    Ok(Entries::decode(&netlink.dump(RouteNetlinkMessage::GetTrafficFilter(request))?, filter))
}

/// `TCA_*` (include/uapi/linux/rtnetlink.h) and `TCA_BPF_*` (include/uapi/linux/pkt_cls.h).
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;

/// `None`: another kind of filter, or one of the entries without a handle that a dump has for each priority.
fn filter(payload: &[u8]) -> Result<Option<Filter>, DecodeError> {
    let header = TcHeader::parse(payload)?;
    let handle = u32::from(header.handle);
    let attributes = payload.get(header.buffer_len()..).unwrap_or_default();
    if handle == 0 || attribute(attributes, TCA_KIND)?.is_none_or(|kind| text(kind) != "bpf") {
        return Ok(None);
    }
    let options = attribute(attributes, TCA_OPTIONS)?.unwrap_or_default();
    let id = match attribute(options, TCA_BPF_ID)? {
        Some(bytes) => {
            Some(u32::from_ne_bytes(bytes.try_into().map_err(|_| DecodeError::from("TCA_BPF_ID has not 4 bytes"))?))
        }
        None => None,
    };
    Ok(Some(Filter {
        name: attribute(options, TCA_BPF_NAME)?.map(text).unwrap_or_default(),
        id,
        // tcm_info: the priority above, the protocol below (TC_H_MAKE, net/sched/cls_api.c).
        priority: (header.info >> 16) as u16,
        handle,
    }))
}

/// Bytes of `struct nlattr`, in front of its content.
const HEADER: usize = 4;

/// The content of the first attribute of a kind; an error where those before it cannot be walked.
fn attribute(bytes: &[u8], kind: u16) -> Result<Option<&[u8]>, DecodeError> {
    for nla in NlasIterator::new(bytes) {
        let nla: NlaBuffer<&[u8]> = nla?;
        if nla.kind() == kind {
            let len = nla.value_length();
            return Ok(nla.into_inner().get(HEADER..HEADER + len));
        }
    }
    Ok(None)
}

#[cfg(test)]
#[path = "programs_tests.rs"]
mod tests;
