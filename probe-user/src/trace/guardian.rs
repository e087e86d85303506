//! A tiny child process that outlives its parent by an instant, to remove the clsact filters of a killed one.
//!
//! It waits at a pipe: each record names a filter, the end of the pipe is the parent's end. It is forked from a
//! process with threads, so between `fork` and `_exit` it must not allocate, lock or panic: it uses system calls,
//! and buffers on its stack. It keeps no descriptor of the parent's besides the pipe, a netlink socket and the lock,
//! or it would keep the parent's programs alive.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    sync::Mutex,
};

use super::{
    attach::Side,
    clsact::{PRIORITY, handle},
};

/// Filters that are watched, at most: two per device.
const CAPACITY: usize = 2048;

/// The parent's end.
pub(crate) struct Guardian {
    pipe: Mutex<File>,
}

impl Guardian {
    /// Forks, in the calling thread's network namespace.
    pub(crate) fn start(instance: u16, lock: Option<&OwnedFd>) -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let netlink = netlink_socket()?;
        let lock = lock.map_or(read.as_raw_fd(), |lock| lock.as_raw_fd());
        // SAFETY: the child only makes system calls (see above) and never returns from `child`.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => child(read.as_raw_fd(), netlink.as_raw_fd(), lock, instance),
            pid => {
                let mut status = 0;
                // SAFETY: the first child ends at once; `status` outlives the call.
                unsafe { libc::waitpid(pid, &raw mut status, 0) };
                Ok(Self { pipe: Mutex::new(File::from(write)) })
            }
        }
    }

    /// Names a filter to remove, and whether the qdisc under it is ours to remove.
    pub(crate) fn watch(&self, ifindex: u32, side: Side, qdisc_is_ours: bool) -> io::Result<()> {
        let flags = u32::from(side == Side::Egress) | u32::from(qdisc_is_ours) << 1;
        let mut record = [0; 8];
        record[..4].copy_from_slice(&ifindex.to_ne_bytes());
        record[4..].copy_from_slice(&flags.to_ne_bytes());
        // Eight bytes are written as one (PIPE_BUF).
        self.pipe.lock().map_err(|_poisoned| io::Error::other("poisoned"))?.write_all(&record)
    }
}

fn netlink_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the descriptor is owned from here on.
    unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let timeout = libc::timeval { tv_sec: 2, tv_usec: 0 };
        let len = size_of::<libc::timeval>() as libc::socklen_t;
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const timeout).cast(), len);
        Ok(socket)
    }
}

/// The second fork makes it a child of init: nobody has to wait for it.
fn child(pipe: RawFd, netlink: RawFd, lock: RawFd, instance: u16) -> ! {
    // SAFETY: system calls on descriptors that are open; nothing here allocates.
    unsafe {
        libc::setsid();
        if libc::fork() != 0 {
            libc::_exit(0);
        }
        // Out of the way first: the three may be 0, 1 or 2 themselves.
        let (pipe, netlink, lock) = (
            libc::fcntl(pipe, libc::F_DUPFD, 10),
            libc::fcntl(netlink, libc::F_DUPFD, 10),
            libc::fcntl(lock, libc::F_DUPFD, 10),
        );
        libc::dup2(pipe, 0);
        libc::dup2(netlink, 1);
        libc::dup2(lock, 2);
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        libc::prctl(libc::PR_SET_NAME, c"hostdns-guard".as_ptr());
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
            libc::signal(signal, libc::SIG_IGN);
        }
        guard(instance);
        libc::_exit(0)
    }
}

/// Reads until the parent is gone, then cleans up.
fn guard(instance: u16) {
    let mut watched = [(0_u32, 0_u32); CAPACITY];
    let mut len = 0;
    loop {
        let mut record = [0_u8; 8];
        // SAFETY: descriptor 0 is the pipe; the buffer has the size given.
        let read = unsafe { libc::read(0, record.as_mut_ptr().cast(), record.len()) };
        match read {
            8 if len < CAPACITY => {
                let [a, b, c, d, e, f, g, h] = record;
                watched[len] = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
                len += 1;
            }
            8 => {}
            -1 if errno() == libc::EINTR => {}
            _ => break,
        }
    }
    for &(ifindex, flags) in watched.iter().take(len) {
        let parent = parent(flags & 1 != 0);
        // `TC_H_MAKE(priority << 16, htons(ETH_P_ALL))`.
        let info = u32::from(PRIORITY) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
        let handle = handle(instance, flags & 2 != 0);
        request(NETLINK, &Request::new(libc::RTM_DELTFILTER, libc::NLM_F_ACK, ifindex, parent, handle, info), None);
    }
    for &(ifindex, flags) in watched.iter().take(len) {
        // Others may have put filters into it since (Cilium, say); then it is theirs now.
        if flags & 2 != 0 && !has_filters(ifindex, parent(false)) && !has_filters(ifindex, parent(true)) {
            let qdisc = Request::new(libc::RTM_DELQDISC, libc::NLM_F_ACK, ifindex, CLSACT, 0, 0);
            request(NETLINK, &qdisc, None);
        }
    }
}

/// The child's netlink socket.
const NETLINK: RawFd = 1;

/// `TC_H_CLSACT` (include/uapi/linux/pkt_sched.h).
const CLSACT: u32 = 0xffff_fff1;

/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)`, and the same for egress.
const fn parent(egress: bool) -> u32 {
    if egress { 0xffff_fff3 } else { 0xffff_fff2 }
}

/// Unreadable counts as one: what is not known stays.
fn has_filters(ifindex: u32, parent: u32) -> bool {
    let mut found = false;
    !dump(NETLINK, ifindex, parent, &mut |_handle| found = true) || found
}

/// Tells the handle of every filter on one side of a device. False: they could not be read to the end.
fn dump(netlink: RawFd, ifindex: u32, parent: u32, each: &mut dyn FnMut(u32)) -> bool {
    let dump = Request::new(libc::RTM_GETTFILTER, libc::NLM_F_DUMP, ifindex, parent, 0, 0);
    request(netlink, &dump, Some(each))
}

/// The same for both sides, in the calling thread's network namespace and on a socket of its own.
pub(crate) fn filters(ifindex: u32, each: &mut dyn FnMut(u32)) -> io::Result<()> {
    let netlink = netlink_socket()?;
    if [false, true].into_iter().all(|egress| dump(netlink.as_raw_fd(), ifindex, parent(egress), each)) {
        Ok(())
    } else {
        Err(io::Error::other("the filters cannot be listed"))
    }
}

/// `struct nlmsghdr` and `struct tcmsg`.
#[repr(C)]
struct Request {
    header: libc::nlmsghdr,
    family: u8,
    _pad: [u8; 3],
    ifindex: u32,
    handle: u32,
    parent: u32,
    info: u32,
}

impl Request {
    const fn new(kind: u16, flags: libc::c_int, ifindex: u32, parent: u32, handle: u32, info: u32) -> Self {
        let header = libc::nlmsghdr {
            nlmsg_len: size_of::<Self>() as u32,
            nlmsg_type: kind,
            nlmsg_flags: (libc::NLM_F_REQUEST | flags) as u16,
            nlmsg_seq: 0,
            nlmsg_pid: 0,
        };
        Self { header, family: 0, _pad: [0; 3], ifindex, handle, parent, info }
    }
}

/// Sends, and reads to the end of the answer; of a dump, `each` filter's handle. False: that failed.
fn request(netlink: RawFd, request: &Request, mut each: Option<&mut dyn FnMut(u32)>) -> bool {
    // SAFETY: the descriptor is a netlink socket; both buffers have the sizes given.
    unsafe {
        if libc::send(netlink, (&raw const *request).cast(), size_of::<Request>(), 0) < 0 {
            return false;
        }
        loop {
            let mut buffer = [0_u8; 8192];
            let len = libc::recv(netlink, buffer.as_mut_ptr().cast(), buffer.len(), 0);
            let Ok(len) = usize::try_from(len) else { return false };
            let mut rest = buffer.get(..len).unwrap_or_default();
            while let [a, b, c, d, e, f, ..] = *rest {
                let (size, kind) = (u32::from_ne_bytes([a, b, c, d]) as usize, u16::from_ne_bytes([e, f]));
                let Some(each) = each.as_mut() else { return true };
                if matches!(libc::c_int::from(kind), libc::NLMSG_DONE | libc::NLMSG_ERROR) {
                    return true;
                }
                // A dump also names chains and protocols without a handle; only a filter has one (tcm_handle).
                if let (libc::RTM_NEWTFILTER, Some(&[a, b, c, d])) = (kind, rest.get(24..28)) {
                    let handle = u32::from_ne_bytes([a, b, c, d]);
                    if handle != 0 {
                        each(handle);
                    }
                }
                rest = rest.get(size.next_multiple_of(4).max(16)..).unwrap_or_default();
            }
        }
    }
}

fn errno() -> libc::c_int {
    // SAFETY: the thread's own errno.
    unsafe { *libc::__errno_location() }
}
