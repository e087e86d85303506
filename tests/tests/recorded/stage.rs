//! A recording put back in its place: maps in a bpffs, the agent's answers on a socket, settings in a directory, devices
//! and addresses in a network namespace. The readers find there what they find on a node.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, UdpSocket},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    thread,
};

use hostdns_probe::{
    facts::{self, Facts, Sources},
    netns::Netns,
    target::HOST_DNS_V4,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde::{Deserialize, de::DeserializeOwned};
use tempfile::TempDir;

use crate::{
    maps::{self, Info},
    net::run,
};

#[derive(Debug, Deserialize)]
struct Device {
    ifname: String,
    flags: Vec<String>,
    addr_info: Vec<Address>,
}

#[derive(Debug, Deserialize)]
struct Address {
    local: IpAddr,
    prefixlen: u8,
    scope: String,
}

#[derive(Debug, Deserialize)]
struct Route {
    dst: String,
    gateway: Option<IpAddr>,
    dev: Option<String>,
}

/// What the agent's socket does with a question for a path.
pub(crate) type Answer = fn(recorded: &[u8], stream: &mut UnixStream);

pub(crate) fn whole(recorded: &[u8], stream: &mut UnixStream) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", recorded.len());
    let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(recorded));
}

/// How the recording is put up.
pub(crate) struct Stage {
    pub(crate) health: Answer,
    pub(crate) config: Answer,
    /// What becomes of a map's layout, by its name.
    pub(crate) layout: fn(&str, &mut Info),
}

impl Default for Stage {
    fn default() -> Self {
        Self { health: whole, config: whole, layout: |_name, _info| {} }
    }
}

/// Gathers the facts of a recording, all of it on a thread of its own with its own mounts.
pub(crate) fn gather(recording: &Path, stage: Stage) -> Facts {
    on_stage(recording, stage, async |sources| facts::gather(sources).await)
}

/// Does something with the readers where a recording is put up.
pub(crate) fn on_stage<T: Send + 'static>(
    recording: &Path,
    stage: Stage,
    act: impl AsyncFnOnce(&Sources) -> T + Send + 'static,
) -> T {
    let recording = recording.to_owned();
    thread::spawn(move || stage.put_up(&recording, act)).join().unwrap()
}

impl Stage {
    fn put_up<T: Send>(&self, recording: &Path, act: impl AsyncFnOnce(&Sources) -> T + Send) -> T {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources {
            cilium_socket: dir.path().join("cilium.sock"),
            cilium_config_dir: Some(recording.join("config")),
            cilium_state_dir: dir.path().join("state"),
            bpf_root: bpffs(&dir, recording, self.layout),
            ..Sources::default()
        };
        self.serve(recording, &sources.cilium_socket);
        let node = network(recording);
        let _listeners = node.run(listen).unwrap();
        node.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(act(&sources))
        })
        .unwrap()
    }

    /// Answers until the process ends.
    fn serve(&self, recording: &Path, socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        let answers = [("/v1/healthz", self.health, "healthz"), ("/v1/config", self.config, "config")];
        let answers = answers
            .map(|(path, answer, name)| (path, answer, fs::read(recording.join(format!("api/{name}.json"))).unwrap()));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let asked = answers.iter().find(|(path, ..)| request.starts_with(&format!("GET {path} ")));
                let (_, answer, body) = asked.unwrap_or_else(|| panic!("{request}")).clone();
                thread::spawn(move || answer(&body, &mut stream));
            }
        });
    }
}

fn bpffs(dir: &TempDir, recording: &Path, layout: fn(&str, &mut Info)) -> PathBuf {
    let root = dir.path().join("bpf");
    fs::create_dir(&root).unwrap();
    mount(Some("bpf"), &root, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
    let globals = root.join("tc/globals");
    fs::create_dir_all(&globals).unwrap();
    for entry in fs::read_dir(recording.join("maps")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".info.json").filter(|name| *name != "cilium_runtime_config") else {
            continue;
        };
        maps::pin(recording, name, &globals.join(name), |info| layout(name, info));
    }
    for line in fs::read_to_string(recording.join("bpf/tree.txt")).unwrap().lines() {
        let path = line.split(' ').next_back().unwrap();
        if line.starts_with("d ") && path.starts_with("./cilium/devices/") {
            fs::create_dir_all(root.join(path)).unwrap();
        }
    }
    root
}

/// The names of the recorded node's devices.
pub(crate) fn devices(recording: &Path) -> Vec<String> {
    let devices: Vec<Device> = ip(recording, "addr.json");
    devices.into_iter().map(|device| device.ifname).collect()
}

fn ip<T: DeserializeOwned>(recording: &Path, name: &str) -> T {
    serde_json::from_str(&fs::read_to_string(recording.join("ip").join(name)).unwrap()).unwrap()
}

fn network(recording: &Path) -> Netns {
    let node = Netns::new().unwrap();
    node.run(|| {
        for which in ["all", "default"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1").unwrap();
            fs::write(format!("/proc/sys/net/ipv4/conf/{which}/rp_filter"), "0").unwrap();
        }
    })
    .unwrap();
    let devices: Vec<Device> = ip(recording, "addr.json");
    for (number, Device { ifname, flags, addr_info }) in devices.into_iter().enumerate() {
        if ifname != "lo" {
            run(&node, &format!("ip link add {ifname} type veth peer name other{number}"));
            run(&node, &format!("ip link set other{number} up"));
        }
        if flags.iter().any(|flag| flag == "UP") {
            run(&node, &format!("ip link set {ifname} up"));
        }
        let addresses = addr_info.iter().filter(|one| one.local.is_ipv4() && !one.local.is_loopback());
        for Address { local, prefixlen, scope } in addresses {
            run(&node, &format!("ip addr add {local}/{prefixlen} dev {ifname} scope {scope}"));
        }
    }
    let routes: Vec<Route> = ip(recording, "route.json");
    for route in routes.iter().filter(|route| route.dst == "default") {
        let (gateway, dev) = (route.gateway.unwrap(), route.dev.as_deref().unwrap());
        run(&node, &format!("ip route add default via {gateway} dev {dev}"));
    }
    node
}

/// The server of the recorded node; nobody listens where the address is absent.
fn listen() -> Option<(UdpSocket, TcpListener)> {
    let target = (HOST_DNS_V4, 53);
    Some((UdpSocket::bind(target).ok()?, TcpListener::bind(target).ok()?))
}
