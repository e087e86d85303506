//! The programs that run one after the other at one place of a device, with tcx or inside of netkit: both keep a
//! `bpf_mprog_bundle` (include/linux/bpf_mprog.h) and answer BPF_PROG_QUERY. aya asks for tcx's alone. Layouts are those
//! of `union bpf_attr` and `struct bpf_prog_info`, include/uapi/linux/bpf.h.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

/// `enum bpf_cmd`.
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;

/// `enum bpf_attach_type`: tcx since Linux 6.6, netkit since 6.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    TcxIngress = 46,
    TcxEgress = 47,
    /// What the primary device itself transmits, towards the pod.
    NetkitPrimary = 54,
    /// What its peer does; attached to, and asked of, the primary device as well.
    NetkitPeer = 55,
}

/// `BPF_MPROG_MAX` (include/linux/bpf_mprog.h): a chain is never longer.
const MAX: usize = 64;

/// `query` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    _pad: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

const _: () = assert!(size_of::<Query>() == 64);

/// What BPF_PROG_GET_FD_BY_ID takes.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

const _: () = assert!(size_of::<ById>() == 12);

/// `info` of `union bpf_attr`.
#[repr(C)]
struct Ask {
    fd: u32,
    len: u32,
    info: u64,
}

const _: () = assert!(size_of::<Ask>() == 16);

/// The beginning of `struct bpf_prog_info`, up to the name; the kernel writes as much as there is room for.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    _type_to_map_ids: [u64; 8],
    name: [u8; 16],
}

const _: () = assert!(size_of::<ProgramInfo>() == 80);

/// A program of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) id: u32,
    pub(super) name: String,
}

/// The chain at a place of a device of the calling thread's namespace, in the order in which it runs. `ENOENT`: one went
/// away meanwhile.
pub(super) fn of(ifindex: u32, place: Place) -> io::Result<Vec<Program>> {
    let mut ids = [0_u32; MAX];
    let mut query = Query {
        ifindex,
        attach_type: place as u32,
        program_ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: MAX as u32,
        ..Query::default()
    };
    // SAFETY: the kernel writes to `query`, and to `ids` as many as `count` says there is room for.
    unsafe { bpf(BPF_PROG_QUERY, &mut query)? };
    let count = usize::try_from(query.count).unwrap_or(MAX).min(MAX);
    ids[..count].iter().map(|&id| Ok(Program { id, name: name(id)? })).collect()
}

/// What the kernel keeps of it (`BPF_OBJ_NAME_LEN`); what is no UTF-8 is shown as such.
fn name(id: u32) -> io::Result<String> {
    let mut by_id = ById { id, ..ById::default() };
    // SAFETY: nothing is written, and what comes back is a descriptor of our own.
    let program = unsafe { OwnedFd::from_raw_fd(bpf(BPF_PROG_GET_FD_BY_ID, &mut by_id)?) };
    let mut info = ProgramInfo::default();
    let mut ask = Ask {
        fd: program.as_raw_fd().cast_unsigned(),
        len: size_of::<ProgramInfo>() as u32,
        info: (&raw mut info).expose_provenance() as u64,
    };
    // SAFETY: the kernel writes to `ask`, and to `info` as much as its length says there is room for.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut ask)? };
    Ok(text(&info.name))
}

/// Up to the NUL that ends it.
pub(super) fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// # Safety
///
/// `attributes` is what the command takes, and the addresses in it are of memory that the command may read and write.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attributes` outlives the call and has the size told; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { RawFd::try_from(result).map_err(io::Error::other) }
}
