//! A node in namespaces: `eth0` into an outside namespace, `lxc1` to a pod, host DNS's address on `lo`.

use std::{
    net::UdpSocket,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use hostdns_probe::netns::Netns;

/// The root of cgroup v2, as `check` would find it.
pub(crate) fn cgroup_root() -> PathBuf {
    use std::os::unix::fs::MetadataExt as _;
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let path = PathBuf::from(words.next()?);
            (words.next() == Some("cgroup2")).then_some(path)
        })
        .find(|path| std::fs::metadata(path).is_ok_and(|meta| meta.ino() == 1))
        .expect("the root of cgroup v2 is mounted")
}

pub(crate) struct Node {
    pub(crate) node: Netns,
    pub(crate) pod: Netns,
    outside: Netns,
}

impl Node {
    pub(crate) fn new() -> Self {
        let here = Self { node: Netns::new().unwrap(), pod: Netns::new().unwrap(), outside: Netns::new().unwrap() };
        here.veth("lxc1", &here.pod);
        here.veth("eth0", &here.outside);
        run(&here.node, "ip link set lo up");
        run(&here.node, "ip addr add 169.254.116.108/32 dev lo scope host");
        run(&here.node, "ip link set lxc1 up");
        run(&here.node, "ip addr add 10.0.0.1/24 dev lxc1");
        run(&here.node, "ip addr add 192.0.2.10/24 dev eth0");
        run(&here.node, "ip link set eth0 up");
        run(&here.node, "ip neigh add 192.0.2.1 dev eth0 lladdr 02:00:00:00:00:01");
        run(&here.node, "ip route add default via 192.0.2.1");
        run(&here.pod, "ip link set lo up");
        run(&here.pod, "ip addr add 10.0.0.2/24 dev eth0");
        run(&here.pod, "ip link set eth0 up");
        run(&here.pod, "ip route add default via 10.0.0.1");
        run(&here.outside, "ip link set eth0 up");
        let sysctls = ["net/ipv4/ip_forward=1", "net/ipv6/conf/all/disable_ipv6=1"];
        here.node
            .run(|| {
                for (path, value) in sysctls.iter().filter_map(|setting| setting.split_once('=')) {
                    std::fs::write(format!("/proc/sys/{path}"), value).unwrap();
                }
            })
            .unwrap();
        // Resolve the neighbours, so that the first packet is not a queued one.
        run(&here.pod, "ip neigh replace 10.0.0.1 dev eth0 lladdr 02:00:00:00:01:01");
        run(&here.node, "ip neigh replace 10.0.0.2 dev lxc1 lladdr 02:00:00:00:01:02");
        here
    }

    fn veth(&self, name: &str, to: &Netns) {
        let (near, far) = if name == "lxc1" {
            ("02:00:00:00:01:01", "02:00:00:00:01:02")
        } else {
            ("02:00:00:00:02:01", "02:00:00:00:02:02")
        };
        // The far end is made where it belongs: named by a descriptor that the child inherits through /proc.
        let far_netns = format!("/proc/{}/fd/{}", std::process::id(), {
            use std::os::fd::{AsFd as _, AsRawFd as _};
            to.as_fd().as_raw_fd()
        });
        let command =
            format!("ip link add {name} address {near} type veth peer name eth0 address {far} netns {far_netns}");
        run(&self.node, &command);
    }

    pub(crate) fn add_veth(&self, name: &str) {
        run(&self.node, &format!("ip link add {name} type veth peer name {name}p"));
    }

    pub(crate) fn without_address(&self) {
        run(&self.node, "ip addr del 169.254.116.108/32 dev lo");
    }

    pub(crate) fn index(&self, name: &str) -> u32 {
        self.node.run(|| nix::net::if_::if_nametoindex(name).unwrap()).unwrap()
    }

    pub(crate) fn qdiscs(&self) -> String {
        output(&self.node, "tc qdisc show")
    }

    pub(crate) fn filters(&self, name: &str) -> String {
        output(&self.node, &format!("tc filter show dev {name} ingress"))
    }

    /// Echoes what it gets on the address, port 53.
    pub(crate) fn serve(&self) -> Server {
        let socket = self.node.run(|| UdpSocket::bind("169.254.116.108:53").unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let cookie = socket_cookie(&socket);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    socket.send_to(&buffer[..len], from).unwrap();
                }
            }
        });
        Server { cookie, stop, thread: Some(thread) }
    }
}

pub(crate) struct Server {
    /// `SO_COOKIE`.
    pub(crate) cookie: u64,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn socket_cookie(socket: &UdpSocket) -> u64 {
    use std::os::fd::AsRawFd as _;
    let mut cookie = 0_u64;
    let mut len = 8;
    // SAFETY: `cookie` and `len` outlive the call and fit SO_COOKIE's u64.
    let status = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, (&raw mut cookie).cast(), &raw mut len)
    };
    assert_eq!(status, 0, "SO_COOKIE");
    cookie
}

pub(crate) fn run(netns: &Netns, command: &str) {
    output(netns, command);
}

pub(crate) fn output(netns: &Netns, command: &str) -> String {
    let mut words = command.split(' ');
    let program = words.next().unwrap();
    let output = netns.run(|| Command::new(program).args(words).output().unwrap()).unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
