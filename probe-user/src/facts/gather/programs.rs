//! The programs on the devices that packets pass, with tcx and with clsact, in the order in which they run. Looked at
//! before any hook of ours is on; those of another probe beside this one are left out.

use std::{error::Error as _, io, time::Duration};

use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use netlink_packet_core::{DecodeError, Emitable as _, NlaBuffer, NlasIterator};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcHeader, TcMessage},
};

use super::rtnetlink;
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
    let netkit = links.iter().filter(|link| link.kind.as_deref() == Some("netkit")).count();
    if netkit > 0 {
        notes.push(format!("what netkit runs by itself is not read, on {netkit} devices"));
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
    let mut found = Vec::new();
    for (tcx, clsact, side, parent) in [
        (TcxIngress, ClsactIngress, TcAttachType::Ingress, TcHandle::MIN_INGRESS),
        (TcxEgress, ClsactEgress, TcAttachType::Egress, TcHandle::MIN_EGRESS),
    ] {
        found.extend(with_tcx(&link.name, tcx, side)?);
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
    Ok(found)
}

/// A program that goes away between the list of ids and the look at it is `ENOENT`; the list is read again then.
const ATTEMPTS: usize = 3;

fn with_tcx(interface: &str, hook: AttachPoint, side: TcAttachType) -> Result<Vec<AttachedProgram>, String> {
    let mut error = None;
    for _ in 0..ATTEMPTS {
        let failed = match SchedClassifier::query_tcx(interface, side) {
            Ok((_revision, programs)) => {
                let programs = programs.iter().map(|program| AttachedProgram {
                    interface: interface.to_owned(),
                    hook,
                    name: program.name_as_str().unwrap_or_default().to_owned(),
                    id: Some(program.id()),
                    priority: None,
                    handle: None,
                });
                return Ok(programs.collect());
            }
            Err(failed) => failed,
        };
        match cause(&failed) {
            // Before Linux 6.6 the kernel knows no such attach type, and nothing can be there. Or the device has gone.
            Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENODEV | libc::ENXIO) => return Ok(Vec::new()),
            Some(libc::ENOENT) => error = Some(failed),
            Some(libc::EPERM | libc::EACCES) => {
                return Err(format!("{}: {failed}; CAP_NET_ADMIN and CAP_SYS_ADMIN are needed", hook.as_str()));
            }
            _ => return Err(format!("{}: {failed}", hook.as_str())),
        }
    }
    Err(format!("{}: they change faster than they can be read: {error:?}", hook.as_str()))
}

/// The error's number, the kernel's.
fn cause(error: &ProgramError) -> Option<i32> {
    let mut cause = error.source();
    if let ProgramError::SyscallError(error) = error {
        return error.io_error.raw_os_error();
    }
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        cause = error.source();
    }
    None
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

/// Up to the NUL that ends it; what is no UTF-8 is shown as such.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
#[path = "programs_tests.rs"]
mod tests;
