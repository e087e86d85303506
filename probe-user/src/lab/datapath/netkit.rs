//! Programs inside of a netkit pair (Linux 6.7). aya has no such attach type.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use aya::programs::{ProgramError, SchedClassifier, TcAttachType};

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const BPF_LINK_CREATE: libc::c_long = 28;

/// `enum bpf_attach_type`: what the device itself transmits, and what its peer does.
const BPF_NETKIT_PRIMARY: u32 = 54;
const BPF_NETKIT_PEER: u32 = 55;

/// `union bpf_attr`, `struct link_create`; the rest is zero.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    _pad: u32,
    expected_revision: u64,
}

/// Attaches to the pair whose primary device is `ifindex`, in the calling thread's network namespace: where Cilium does
/// (pkg/datapath/loader/netkit.go). From the pod is what the peer transmits; to it, what the primary does.
pub(super) fn attach(program: &SchedClassifier, ifindex: u32, side: TcAttachType) -> Result<OwnedFd, ProgramError> {
    let fd = program.fd()?.as_fd().as_raw_fd();
    let attach_type = if side == TcAttachType::Ingress { BPF_NETKIT_PEER } else { BPF_NETKIT_PRIMARY };
    let request = LinkCreate { program: fd.unsigned_abs(), ifindex, attach_type, ..LinkCreate::default() };
    // SAFETY: the structure outlives the call and has the size told; what comes back is a descriptor of our own.
    unsafe {
        match libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, &raw const request, size_of::<LinkCreate>()) {
            -1 => Err(ProgramError::IOError(io::Error::last_os_error())),
            link => Ok(OwnedFd::from_raw_fd(link as RawFd)),
        }
    }
}
