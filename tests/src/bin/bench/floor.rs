//! What run-time statistics show for a program that does nothing: the two reads of the clock that they take around each
//! run. Programs under test bear it too, so their own share is what is above it.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::Context as _;
use hostdns_probe::netns::Netns;

// include/uapi/linux/bpf.h, enum bpf_cmd, bpf_prog_type, bpf_attach_type.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_TCX_INGRESS: u32 = 46;
/// At the head: what stands behind Cilium's program does not run.
const BPF_F_BEFORE: u32 = 1 << 3;

/// `r0 = -1 (TCX_NEXT); exit`, as struct bpf_insn in the machine's own byte order: opcode, registers, offset, immediate.
const NOTHING: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD; what is not given is zero.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// The same for BPF_LINK_CREATE.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The empty program, at the ingress of the pods' devices; it goes away with this.
pub(crate) struct Floor {
    _program: OwnedFd,
    _links: Vec<OwnedFd>,
}

impl Floor {
    /// # Errors
    /// The kernel has no tcx.
    pub(crate) fn attach(node: &Netns) -> anyhow::Result<Self> {
        let load = ProgLoad {
            prog_type: BPF_PROG_TYPE_SCHED_CLS,
            insn_cnt: NOTHING.len() as u32,
            insns: NOTHING.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
        };
        let program = bpf(BPF_PROG_LOAD, &load).context("cannot load an empty program")?;
        let attach = |target_ifindex| {
            let prog_fd = program.as_raw_fd() as u32;
            let at = LinkCreate { prog_fd, target_ifindex, attach_type: BPF_TCX_INGRESS, flags: BPF_F_BEFORE };
            bpf(BPF_LINK_CREATE, &at).context("cannot attach an empty program")
        };
        let links = node.run(|| {
            let devices = nix::net::if_::if_nameindex()?;
            let pods = devices.iter().filter(|device| device.name().to_bytes().starts_with(b"lxc"));
            pods.map(|device| attach(device.index())).collect::<anyhow::Result<Vec<_>>>()
        })??;
        Ok(Self { _program: program, _links: links })
    }
}

/// bpf(2), for the commands that return a file descriptor.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    let size = size_of::<T>();
    // SAFETY: the attributes and what they point at live until the call returns, and `size` is theirs.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just opened it for this process, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
