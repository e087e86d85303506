//! A node for one test: namespaces, devices, servers, and the datapath attached. Gone when dropped.

use std::{
    collections::BTreeMap,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _},
    path::PathBuf,
    process::Command,
    sync::mpsc,
};

use aya::{
    maps::{HashMap, Map, MapData, PerCpuHashMap},
    programs::{SchedClassifier, TcAttachType},
};
use hostdns_probe::{
    lab::{
        datapath::Datapath,
        spec::{CiliumSpec, DatapathConfig, Device, Endpoint},
    },
    netns::Netns,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};
use tempfile::TempDir;

use crate::traffic::{PATIENCE, PORT, ask, bound, serve};

pub(crate) const HOST_DNS: &str = "169.254.116.108";
pub(crate) const HOST_DNS_V6: &str = "fd54:616c:6f73::204f:5320:444e:531";
pub(crate) const NODE: &str = "192.168.77.2";
pub(crate) const OUTSIDE: &str = "203.0.113.9";

/// What a test wants of its node.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) cilium: CiliumSpec,
    /// Scope of the address on `lo`; none: absent.
    pub(crate) scope: Option<&'static str>,
    pub(crate) externals: u32,
    /// TTL of the host DNS's answers; 2 on Talos.
    pub(crate) reply_ttl: u32,
    pub v6: bool,
    /// The one external device is a tun.
    pub(crate) tun: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        let cilium = CiliumSpec::default();
        Self { cilium, scope: Some("host"), externals: 1, reply_ttl: 2, v6: false, tun: false }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that lives in the node's network namespace and a mount namespace of its own.
struct NodeThread {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl NodeThread {
    fn start(netns: &Netns, bpffs: PathBuf) -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let netns = netns.as_fd().try_clone_to_owned().unwrap();
        let thread = std::thread::spawn(move || {
            setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), none).unwrap();
            for job in queue {
                job();
            }
        });
        Self { jobs: Some(jobs), thread: Some(thread) }
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (result, wait) = mpsc::channel();
        self.jobs.as_ref().unwrap().send(Box::new(move || drop(result.send(work())))).unwrap();
        wait.recv().expect("the node's thread did not panic")
    }
}

impl Drop for NodeThread {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

pub(crate) struct Node {
    pub(crate) datapath: Option<Datapath>,
    pub(crate) pods: Vec<Netns>,
    pub(crate) node: Netns,
    /// Its servers live as long as it does.
    _outside: Netns,
    /// Packets on the tun device, if there is one.
    pub(crate) tun: Option<std::fs::File>,
    pub(crate) agent_socket: PathBuf,
    pub(crate) state_dir: PathBuf,
    thread: NodeThread,
    bpffs: PathBuf,
    _directory: TempDir,
}

fn ip(netns: &Netns, arguments: &str) {
    let output = netns.run(|| Command::new("ip").args(arguments.split(' ')).output()).unwrap().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn sysctl(netns: &Netns, name: &str, value: &str) {
    netns.run(|| std::fs::write(format!("/proc/sys/net/{name}"), value)).unwrap().unwrap();
}

fn path(netns: &Netns) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd())
}

fn veth(a: &Netns, name_a: &str, b: &Netns, name_b: &str) {
    ip(a, &format!("link add {name_a} type veth peer name {name_b} netns {}", path(b)));
    ip(a, &format!("link set {name_a} up"));
    ip(b, &format!("link set {name_b} up"));
}

fn device(netns: &Netns, name: &str, layer3: bool) -> Device {
    let wanted = name.to_owned();
    // sysfs shows the namespace it was mounted in; netlink the caller's.
    let json = netns.run(|| Command::new("ip").args(["-json", "link", "show", "dev", &wanted]).output());
    let json: serde_json::Value = serde_json::from_slice(&json.unwrap().unwrap().stdout).unwrap();
    let mut mac = [0; 6];
    if !layer3 {
        for (byte, text) in mac.iter_mut().zip(json[0]["address"].as_str().unwrap().split(':')) {
            *byte = u8::from_str_radix(text, 16).unwrap();
        }
    }
    Device { name: name.into(), index: json[0]["ifindex"].as_u64().unwrap().try_into().unwrap(), mac, layer3 }
}

fn mac(netns: &Netns, name: &str) -> [u8; 6] {
    device(netns, name, false).mac
}

impl Node {
    pub(crate) fn new(wanted: &Wanted) -> Self {
        let (node, outside) = (Netns::new().unwrap(), Netns::new().unwrap());
        let pods = vec![Netns::new().unwrap(), Netns::new().unwrap()];
        for netns in pods.iter().chain([&node, &outside]) {
            ip(netns, "link set lo up");
            sysctl(netns, "ipv4/conf/all/rp_filter", "0");
            sysctl(netns, "ipv4/conf/default/rp_filter", "0");
            sysctl(netns, "ipv6/conf/default/accept_dad", "0");
            sysctl(netns, "ipv4/ping_group_range", "0 2147483647");
        }
        sysctl(&node, "ipv4/ip_forward", "1");
        sysctl(&node, "ipv6/conf/all/forwarding", "1");

        // Outside: a router, a server on the internet, and somebody with the host DNS's address.
        for server in [OUTSIDE, HOST_DNS] {
            ip(&outside, &format!("addr add {server}/32 dev lo"));
        }
        ip(&outside, &format!("addr add {HOST_DNS_V6}/128 dev lo nodad"));
        let tun = wanted.tun.then(|| open_tun(&node));
        if wanted.tun {
            ip(&node, "addr add 192.168.77.2/24 dev eth0");
            ip(&node, "link set eth0 up");
            ip(&node, "route add default dev eth0");
        }
        for n in 0..if wanted.tun { 0 } else { wanted.externals } {
            veth(&node, &format!("eth{n}"), &outside, &format!("o-eth{n}"));
            ip(&node, &format!("addr add 192.168.{}.2/24 dev eth{n}", 77 + n));
            ip(&node, &format!("addr add fd00:77:{n}::2/64 dev eth{n} nodad"));
            ip(&outside, &format!("addr add 192.168.{}.1/24 dev o-eth{n}", 77 + n));
            ip(&outside, &format!("addr add fd00:77:{n}::1/64 dev o-eth{n} nodad"));
        }
        if !wanted.tun {
            ip(&node, "route add default via 192.168.77.1");
            ip(&node, "-6 route add default via fd00:77:0::1");
            ip(&outside, "route add 10.244.0.0/16 via 192.168.77.2");
            ip(&outside, "-6 route add fd00:10:244::/48 via fd00:77:0::2");
        }

        // The node as Cilium leaves it (recorded `ip route` and `ip addr`).
        ip(&node, "link add cilium_host type veth peer name cilium_net");
        for name in ["cilium_host", "cilium_net"] {
            ip(&node, &format!("link set {name} arp off up"));
        }
        ip(&node, "addr add 10.244.1.52/32 dev cilium_host scope link");
        ip(&node, "route add 10.244.1.52 dev cilium_host scope link");
        ip(&node, "route add 10.244.1.0/24 via 10.244.1.52 dev cilium_host src 10.244.1.52");
        ip(&node, "-6 addr add fd00:10:244:1::52/128 dev cilium_host nodad");
        ip(&node, "-6 route add fd00:10:244:1::/64 dev cilium_host");
        let endpoints = pods.iter().zip(1..).map(|(pod, n)| add_pod(&node, pod, n, wanted)).collect();
        if let Some(scope) = wanted.scope {
            ip(&node, &format!("addr add {HOST_DNS}/32 dev lo scope {scope}"));
            if wanted.v6 {
                ip(&node, &format!("addr add {HOST_DNS_V6}/128 dev lo nodad"));
            }
        }

        let directory = tempfile::tempdir().unwrap();
        let bpffs = directory.path().join("bpf");
        std::fs::create_dir(&bpffs).unwrap();
        let config = DatapathConfig {
            cilium: wanted.cilium.clone(),
            node_ipv4: NODE.parse().unwrap(),
            node_ipv6: wanted.v6.then(|| "fd00:77:0::2".parse().unwrap()),
            external: (0..wanted.externals).map(|n| device(&node, &format!("eth{n}"), wanted.tun)).collect(),
            cilium_host: device(&node, "cilium_host", false),
            cilium_net: device(&node, "cilium_net", false),
            overlay: None,
            endpoints,
            host_dns: vec![HOST_DNS.parse().unwrap(), HOST_DNS_V6.parse().unwrap()],
            bpf_root: bpffs.clone(),
            state_dir: directory.path().join("state"),
            agent_socket: directory.path().join("cilium.sock"),
        };
        serve(&node, "node", Some(wanted.reply_ttl));
        serve(&outside, "outside", None);
        let thread = NodeThread::start(&node, bpffs.clone());
        let (agent_socket, state_dir) = (config.agent_socket.clone(), config.state_dir.clone());

        let datapath = match thread.run(move || Datapath::attach(&config)) {
            Ok(datapath) => Some(datapath),
            Err(error) => panic!("{error}"),
        };

        Self {
            datapath,
            pods,
            node,
            _outside: outside,
            tun,
            agent_socket,
            state_dir,
            thread,
            bpffs,
            _directory: directory,
        }
    }

    pub(crate) fn ip(&self, arguments: &str) {
        ip(&self.node, arguments);
    }

    /// Asks over UDP from a pod: who answered, and whom it saw asking. None: no answer.
    pub(crate) fn udp(&self, pod: usize, server: &str) -> Option<String> {
        let server = SocketAddr::new(server.parse().unwrap(), PORT);
        self.pods[pod].run(|| ask(&bound(server), server)).unwrap().ok()
    }

    pub(crate) fn tcp(&self, pod: usize, server: &str) -> Option<String> {
        let server = SocketAddr::new(server.parse().unwrap(), PORT);
        self.pods[pod]
            .run(|| {
                let mut stream = TcpStream::connect_timeout(&server, PATIENCE).ok()?;
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).ok()?;
                Some(answer)
            })
            .unwrap()
    }

    /// Whether an ICMP echo is answered.
    pub(crate) fn ping(&self, pod: usize, target: &str) -> bool {
        let target = SocketAddr::new(target.parse().unwrap(), 0);
        self.pods[pod]
            .run(|| {
                // SAFETY: a plain system call; the descriptor is owned by the socket at once.
                let socket = unsafe {
                    UdpSocket::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP))
                };
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket.send_to(&[8, 0, 0, 0, 0, 0, 0, 1, 42, 42], target).is_ok()
                    && socket.recv_from(&mut [0; 64]).is_ok()
            })
            .unwrap()
    }

    /// Packets that `cilium_metrics` counts by reason, and the keys that count them.
    pub(crate) fn metrics(&self) -> BTreeMap<u8, (u64, [u8; 8])> {
        let pin = self.pin("cilium_metrics");
        self.thread.run(move || {
            let map: PerCpuHashMap<_, [u8; 8], [u64; 2]> =
                Map::PerCpuHashMap(MapData::from_pin(pin).unwrap()).try_into().unwrap();
            let mut counts = BTreeMap::new();
            for entry in map.iter() {
                let (key, values) = entry.unwrap();
                let packets: u64 = values.iter().map(|value| value[0]).sum();
                counts.entry(key[0]).or_insert((0, key)).0 += packets;
            }
            counts
        })
    }

    /// Keys and values of `cilium_snat_v4_external`.
    pub(crate) fn snat(&self) -> Vec<([u8; 14], [u8; 40])> {
        let pin = self.pin("cilium_snat_v4_external");
        self.thread.run(move || {
            let map: HashMap<_, [u8; 14], [u8; 40]> =
                Map::LruHashMap(MapData::from_pin(pin).unwrap()).try_into().unwrap();
            map.iter().map(Result::unwrap).collect()
        })
    }

    /// Bytes of the address's entry in `cilium_lxc`.
    pub(crate) fn lxc(&self, address: Ipv4Addr) -> Option<[u8; 48]> {
        let pin = self.pin("cilium_lxc");
        let mut key = [0; 20];
        key[..4].copy_from_slice(&address.octets());
        key[16] = 1;
        self.thread.run(move || {
            let map: HashMap<_, [u8; 20], [u8; 48]> = Map::HashMap(MapData::from_pin(pin).unwrap()).try_into().unwrap();
            map.get(&key, 0).ok()
        })
    }

    /// Names under `tc/globals`.
    pub(crate) fn pins(&self) -> Vec<String> {
        let directory = self.bpffs.join("tc/globals");
        let mut names: Vec<String> = self.thread.run(move || {
            let entries = std::fs::read_dir(directory).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        });
        names.sort();
        names
    }

    /// Names of the programs at a tcx hook, in order.
    pub(crate) fn programs(&self, interface: &'static str, side: TcAttachType) -> Vec<String> {
        let (_, programs) = self.node.run(|| SchedClassifier::query_tcx(interface, side)).unwrap().unwrap();
        programs.iter().map(|program| program.name_as_str().unwrap().to_owned()).collect()
    }

    fn pin(&self, name: &str) -> PathBuf {
        self.bpffs.join("tc/globals").join(name)
    }
}

fn add_pod(node: &Netns, pod: &Netns, n: u16, wanted: &Wanted) -> Endpoint {
    let lxc = format!("lxc{n}");
    let address = Ipv4Addr::new(10, 244, 1, 100 + u8::try_from(n).unwrap());
    let address_v6 = format!("fd00:10:244:1::{n}00");
    veth(node, &lxc, pod, "eth0");
    ip(pod, &format!("addr add {address}/32 dev eth0"));
    ip(pod, "route add 10.244.1.52 dev eth0 scope link");
    ip(pod, "route add default via 10.244.1.52");
    ip(node, &format!("addr add fe80::1/64 dev {lxc} nodad"));
    ip(pod, &format!("addr add {address_v6}/128 dev eth0 nodad"));
    ip(pod, "-6 route add default via fe80::1 dev eth0");
    if wanted.cilium.endpoint_routes {
        ip(node, &format!("route add {address}/32 dev {lxc} scope link"));
    }
    Endpoint {
        id: 1000 + n,
        device: device(node, &lxc, false),
        mac: mac(pod, "eth0"),
        ipv4: Some(address),
        ipv6: wanted.v6.then(|| address_v6.parse().unwrap()),
        identity: 30000 + u32::from(n),
    }
}

/// A tun device named eth0 in the node's namespace: no Ethernet header.
fn open_tun(node: &Netns) -> std::fs::File {
    node.run(|| {
        let file = std::fs::File::options().read(true).write(true).open("/dev/net/tun").unwrap();
        // struct ifreq: name, flags (linux/if.h).
        let mut request = [0_u8; 40];
        request[..4].copy_from_slice(b"eth0");
        request[16..18].copy_from_slice(&(libc::IFF_TUN as u16 | libc::IFF_NO_PI as u16).to_ne_bytes());
        const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
        // SAFETY: the request outlives the call and has the size of struct ifreq.
        assert_eq!(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) }, 0);
        file
    })
    .unwrap()
}
