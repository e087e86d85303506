//! Many keys of a hash map in one system call: BPF_MAP_LOOKUP_BATCH (Linux 5.6; `union bpf_attr`, batch, in
//! include/uapi/linux/bpf.h), which aya does not have. Key by key, a full translation table takes seconds.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
/// Entries to a call; a bucket that holds more is asked for with more.
const ENTRIES: u32 = 8192;
const MAX_ENTRIES: u32 = 1 << 20;

/// 56 bytes; the kernel takes what is missing of `union bpf_attr` as zero.
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<Attributes>() == 56);

/// Walks the keys of a hash map, `K` and `V` being the sizes in bytes of its keys and values.
pub(super) struct Batches<'fd, const K: usize, const V: usize> {
    map: BorrowedFd<'fd>,
    keys: Vec<[u8; K]>,
    values: Vec<[u8; V]>,
    /// Where the kernel goes on: for hash maps a bucket's number.
    position: Option<u32>,
    ended: bool,
}

impl<'fd, const K: usize, const V: usize> Batches<'fd, K, V> {
    /// The sizes must be the map's own: the kernel writes that much for each entry.
    pub(super) fn new(map: BorrowedFd<'fd>) -> Self {
        let (keys, values) = (Vec::new(), Vec::new());
        Self { map, keys, values, position: None, ended: false }
    }

    /// The next keys; `None` at the end. EINVAL from a kernel that has no such call.
    pub(super) fn next(&mut self) -> io::Result<Option<&[[u8; K]]>> {
        let mut room = ENTRIES;
        while !self.ended {
            match self.ask(room) {
                Ok(count) => return Ok(Some(&self.keys[..count])),
                Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && room < MAX_ENTRIES => room *= 4,
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    fn ask(&mut self, room: u32) -> io::Result<usize> {
        let entries = usize::try_from(room).map_err(io::Error::other)?;
        self.keys.resize(entries.max(self.keys.len()), [0; K]);
        self.values.resize(entries.max(self.values.len()), [0; V]);
        let from = self.position.unwrap_or_default();
        let mut to = 0_u32;
        let mut attributes = Attributes {
            in_batch: if self.position.is_some() { (&raw const from).addr() as u64 } else { 0 },
            out_batch: (&raw mut to).addr() as u64,
            keys: self.keys.as_mut_ptr().addr() as u64,
            values: self.values.as_mut_ptr().addr() as u64,
            count: room,
            map_fd: self.map.as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: every address is of memory that outlives the call and has room for `count` entries of the map's
        // sizes (`new` asks for that), or for the position, which is 4 bytes for hash maps.
        let status =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut attributes, size_of::<Attributes>()) };
        if status < 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::ENOENT) {
                return Err(error);
            }
            self.ended = true; // with the last entries
        }
        self.position = Some(to);
        Ok(usize::try_from(attributes.count).map_err(io::Error::other)?.min(entries))
    }
}
