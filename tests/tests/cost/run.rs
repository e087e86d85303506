//! `BPF_PROG_TEST_RUN`, and packets for it.

use std::{fs, os::fd::RawFd};

/// A program that this process has loaded. The descriptor stays the tracer's.
pub(crate) struct Program(RawFd);

impl Program {
    /// Looks through our own descriptors: other processes may have loaded the same program.
    pub(crate) fn of_this_process(name: &str) -> Self {
        for entry in fs::read_dir("/proc/self/fdinfo").unwrap().flatten() {
            let fdinfo = fs::read_to_string(entry.path()).unwrap_or_default();
            let id = fdinfo.lines().find_map(|line| line.strip_prefix("prog_id:"));
            // Links show the id of their program too, among other things.
            let (Some(id), false) = (id, fdinfo.contains("link_id:")) else { continue };
            let id: u32 = id.trim().parse().unwrap();
            let named = aya::programs::loaded_programs().flatten().any(|program| {
                program.id() == id && program.name_as_str().is_some_and(|known| name.starts_with(known))
            });
            if named {
                return Self(entry.file_name().to_string_lossy().parse().unwrap());
            }
        }
        panic!("{name} is not loaded");
    }

    /// Nanoseconds for one of `repeat` runs. The packet begins with its Ethernet header; a cgroup_skb program gets it
    /// from the network header on (net/bpf/test_run.c).
    pub(crate) fn run(&self, packet: &[u8], repeat: u32) -> u32 {
        /// The member `test` of `union bpf_attr` (include/uapi/linux/bpf.h).
        #[repr(C)]
        #[derive(Default)]
        struct Attributes {
            prog_fd: u32,
            retval: u32,
            data_size_in: u32,
            data_size_out: u32,
            data_in: u64,
            data_out: u64,
            repeat: u32,
            duration: u32,
            rest: [u64; 6],
        }
        const BPF_PROG_TEST_RUN: libc::c_long = 10;
        let mut attributes = Attributes {
            prog_fd: self.0.cast_unsigned(),
            data_size_in: packet.len() as u32,
            data_in: packet.as_ptr() as u64,
            repeat,
            ..Attributes::default()
        };
        // SAFETY: the attributes and the packet outlive the call, and the sizes given are theirs.
        let status =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attributes, size_of::<Attributes>()) };
        assert_eq!(status, 0, "BPF_PROG_TEST_RUN: {}", std::io::Error::last_os_error());
        attributes.duration
    }
}

pub(crate) mod packet {
    pub(crate) const SOURCE_PORT: u16 = 40_000;

    const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03org\x00\x00\x01\x00\x01";

    fn ethernet(ether_type: u16) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 2];
        bytes.extend(ether_type.to_be_bytes());
        bytes
    }

    pub(crate) fn arp() -> Vec<u8> {
        let mut bytes = ethernet(0x0806);
        bytes.extend([0; 46]);
        bytes
    }

    fn ipv4(protocol: u8, source: [u8; 4], destination: [u8; 4], rest: &[u8]) -> Vec<u8> {
        let mut bytes = ethernet(0x0800);
        bytes.extend([0x45, 0]);
        bytes.extend((20 + rest.len() as u16).to_be_bytes());
        bytes.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
        bytes.extend(source);
        bytes.extend(destination);
        bytes.extend(rest);
        bytes
    }

    fn udp(port: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(SOURCE_PORT.to_be_bytes());
        bytes.extend(port.to_be_bytes());
        bytes.extend((8 + QUERY.len() as u16).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(QUERY);
        bytes
    }

    pub(crate) fn udp_v4(source: [u8; 4], destination: [u8; 4], port: u16) -> Vec<u8> {
        ipv4(17, source, destination, &udp(port))
    }

    pub(crate) fn tcp_v4(source: [u8; 4], destination: [u8; 4], port: u16) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend(SOURCE_PORT.to_be_bytes());
        tcp.extend(port.to_be_bytes());
        tcp.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend([0; 1000]);
        ipv4(6, source, destination, &tcp)
    }

    /// From fd00::2 to fd00::1.
    pub(crate) fn udp_v6() -> Vec<u8> {
        let payload = udp(53);
        let mut bytes = ethernet(0x86dd);
        bytes.extend([0x60, 0, 0, 0]);
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend([17, 64]);
        for last in [2, 1] {
            let mut address = [0; 16];
            address[0] = 0xfd;
            address[15] = last;
            bytes.extend(address);
        }
        bytes.extend(payload);
        bytes
    }
}
