//! The readers. Each is bounded in time and in what it reads, and all run at once; one that fails leaves a fact that
//! says why.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{Fact, Facts, HostRouting, Network};
use crate::{netns::Netns, target::Targets, trace::Flow};

mod agent;
mod batch;
mod bytes;
mod chain;
mod containers;
mod coredns;
mod corefile;
mod drops;
mod firewall;
mod http;
mod kernel;
mod kubernetes;
mod layout;
mod maps;
mod network;
mod pod_names;
mod pods;
mod processes;
mod programs;
mod resolv;
mod rtnetlink;
mod settings;
mod sockets;
mod state;
mod talos;

pub use drops::Drops;
pub use kubernetes::Cluster;

/// Where facts are looked for, and about which addresses.
#[derive(Clone, Debug)]
pub struct Sources {
    pub targets: Targets,
    /// The agent's API.
    pub cilium_socket: PathBuf,
    /// Cilium's settings as files named by their keys: a mounted ConfigMap, beside those the agent's process sees.
    pub cilium_config_dir: Option<PathBuf>,
    /// The agent's state: `<endpoint id>/ep_config.h`, there or in `state` below it.
    pub cilium_state_dir: PathBuf,
    /// The bpffs; maps are under `tc/globals`.
    pub bpf_root: PathBuf,
    /// None: it is looked for.
    pub cgroup_root: Option<PathBuf>,
    pub proc_root: PathBuf,
    /// The node's root directory; none: that of process 1.
    pub host_root: Option<PathBuf>,
    /// The kernel's own BTF.
    pub btf: PathBuf,
    /// Output of `talosctl get`; none: nothing is known from Talos.
    pub talos_resources: Vec<PathBuf>,
    /// None: the Kubernetes API is not asked.
    pub kubernetes: Option<Cluster>,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            targets: Targets::default(),
            cilium_socket: "/var/run/cilium/cilium.sock".into(),
            cilium_config_dir: None,
            cilium_state_dir: "/var/run/cilium/state".into(),
            bpf_root: "/sys/fs/bpf".into(),
            cgroup_root: None,
            proc_root: "/proc".into(),
            host_root: None,
            btf: "/sys/kernel/btf/vmlinux".into(),
            talos_resources: Vec::new(),
            kubernetes: None,
        }
    }
}

impl Sources {
    /// The node's root directory: the one named, else that of process 1.
    fn node_root(&self) -> PathBuf {
        self.host_root.clone().unwrap_or_else(|| self.proc_root.join("1/root"))
    }
}

/// How long a reader may take before its facts are given up. Each has shorter limits of its own; this one is for a
/// kernel or a file system that hangs.
const READER_LIMIT: Duration = Duration::from_secs(3);

/// Gathers everything, in the network namespace of the caller: the node's.
pub async fn gather(sources: &Sources) -> Facts {
    let (kernel, network, processes, firewall, cilium, programs, talos, agent, kubernetes) = tokio::join!(
        on_thread(sources, "kernel", kernel::read),
        on_thread(sources, "network", network::read),
        on_thread(sources, "processes", of_processes),
        on_thread(sources, "firewall", |_| firewall::read()),
        on_thread(sources, "maps", of_cilium),
        on_thread(sources, "programs", |_| programs::read()),
        on_thread(sources, "Talos' resources", |s| talos::Dump::read(&s.talos_resources)),
        agent::Agent::ask(&sources.cilium_socket),
        of_kubernetes(sources),
    );
    let mut facts = Facts::default();
    match network {
        Ok(network) => facts.network = network,
        Err(why) => tracing::warn!("{why}"),
    }
    match processes {
        Ok(mut found) => {
            if let Some(kubernetes) = &kubernetes {
                kubernetes.add_to(&mut found.settings);
                kubernetes.complete(&mut found.coredns, &found.pods, &found.pod_resolv_conf);
            }
            facts.network.pod_resolv_conf = found.pod_resolv_conf;
            facts.listeners = found.listeners;
            facts.pods = found.pods;
            facts.coredns = found.coredns;
            facts.cilium = agent.facts(&found.settings);
            facts.cilium.settings = found.settings.fact();
        }
        Err(why) => {
            let mut settings = settings::AllSettings { unread: vec![why.clone()], ..Default::default() };
            if let Some(kubernetes) = &kubernetes {
                kubernetes.add_to(&mut settings);
            }
            facts.cilium = agent.facts(&settings);
            facts.cilium.settings = settings.fact();
            facts.listeners = Fact::unavailable(&why, "sock_diag");
            facts.pods = Fact::unavailable(&why, pods::SOURCE);
            facts.coredns = Fact::unavailable(&why, pods::SOURCE);
            facts.network.pod_resolv_conf = Fact::unavailable(&why, "kubelet");
        }
    }
    match kernel {
        Ok(kernel) => facts.kernel = kernel,
        Err(why) => tracing::warn!("{why}"),
    }
    if !sources.talos_resources.is_empty() {
        let own = talos::Own {
            addresses: facts.network.addresses.get().map(Vec::as_slice),
            name: facts.kernel.node_name.get().map(|name| name.trim()),
        };
        facts.talos = Some(match talos {
            Ok(dump) => dump.facts(&sources.targets.addresses, own),
            Err(why) => super::Talos { unread: vec![why.clone()], ..super::Talos::unknown(&why, "--talos-resources") },
        });
    }
    facts.kubernetes = kubernetes.map(kubernetes::Found::facts);
    facts.firewall = firewall.unwrap_or_else(|why| Fact::unavailable(why, "nf_tables"));
    let of_cilium = cilium.inspect_err(|why| tracing::warn!("{why}"));
    if let Ok((of_maps, skip_fib, compiled, pinned)) = of_cilium {
        facts.cilium.lxc = of_maps.lxc;
        facts.cilium.ipcache = of_maps.ipcache;
        facts.cilium.not_masqueraded = of_maps.not_masqueraded;
        facts.cilium.snat_entries = of_maps.snat_entries;
        (facts.cilium.drops_before, facts.cilium.drops_map) = (of_maps.drops_before, of_maps.drops_map);
        facts.cilium.skip_fib = skip_fib;
        facts.cilium.devices = devices(facts.cilium.devices, pinned);
        facts.cilium.host_routing = host_routing(facts.cilium.host_routing, compiled);
    }
    facts.cilium.legacy_because = facts.cilium.why_legacy();
    facts.cilium.programs = programs.unwrap_or_else(|why| Fact::unavailable(why, programs::SOURCE));
    facts
}

/// None: it is not asked for.
async fn of_kubernetes(sources: &Sources) -> Option<kubernetes::Found> {
    let cluster = sources.kubernetes.clone()?;
    // The thread keeps the limit by itself, but for a file system that hangs.
    let late = kubernetes::LIMIT + Duration::from_millis(100);
    let asked = on_thread(sources, kubernetes::SOURCE, move |_| kubernetes::Found::ask(&cluster));
    let found = tokio::time::timeout(late, asked).await;
    let found = found.unwrap_or_else(|_| Err(format!("no answer within {late:?}")));
    Some(found.unwrap_or_else(|why| kubernetes::Found::unknown(&why, kubernetes::SOURCE)))
}

/// The address is on `lo` of the caller's network namespace: asked before anything is gathered, as it decides what is.
#[must_use]
pub fn is_on_lo(address: IpAddr) -> bool {
    network::is_on_lo(address)
}

/// Links, listeners and pods as they are by now, for whoever watches a node for longer. What cannot be read stays as
/// it was.
pub async fn refresh(sources: &Sources, facts: &mut Facts) {
    let (network, processes) =
        tokio::join!(on_thread(sources, "network", network::read), on_thread(sources, "processes", of_processes),);
    match network {
        Ok(network) => {
            let pod_resolv_conf = std::mem::take(&mut facts.network.pod_resolv_conf);
            facts.network = Network { pod_resolv_conf, ..network };
        }
        Err(why) => tracing::warn!("{why}"),
    }
    match processes {
        Ok(found) => (facts.listeners, facts.pods) = (found.listeners, found.pods),
        Err(why) => tracing::warn!("{why}"),
    }
}

/// Cilium's drops by now, to be compared with those before.
pub async fn cilium_drops(sources: &Sources) -> Drops {
    let drops = on_thread(sources, "cilium_metrics", |s| maps::Maps::new(&s.bpf_root).drops()).await;
    drops.unwrap_or_else(|why| Drops { counts: Fact::unavailable(why, "cilium_metrics"), map: None })
}

/// As whom each flow leaves the node, where Cilium's NAT table (`cilium_snat_v4_external`) knows it: for when no hook
/// saw the packet behind the translation.
pub async fn translated_sources(sources: &Sources, flows: Vec<Flow>) -> Vec<Option<SocketAddr>> {
    let count = flows.len();
    let read = move |s: &Sources| {
        let maps = maps::Maps::new(&s.bpf_root);
        flows.into_iter().map(|flow| maps.translated_source(flow)).collect()
    };
    on_thread(sources, "cilium_snat_v4_external", read).await.unwrap_or_else(|_why| vec![None; count])
}

/// Runs a reader on a thread of its own. One that hangs is left behind: a pool would wait for it at the end.
async fn on_thread<T: Send + 'static>(
    sources: &Sources,
    name: &'static str,
    read: impl FnOnce(&Sources) -> T + Send + 'static,
) -> Result<T, String> {
    let sources = sources.clone();
    let (done, result) = tokio::sync::oneshot::channel();
    let work = move || drop(done.send(read(&sources)));
    std::thread::Builder::new()
        .name(format!("facts-{name}"))
        .spawn(work)
        .map_err(|e| format!("no thread for reading {name}: {e}"))?;
    match tokio::time::timeout(READER_LIMIT, result).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) => Err(format!("reading {name} failed; this is a bug")),
        Err(_) => Err(format!("reading {name} took longer than {READER_LIMIT:?}")),
    }
}

type OfCilium = (super::Cilium, Fact<bool>, Option<(String, HostRouting)>, Fact<Vec<String>>);

fn of_cilium(sources: &Sources) -> OfCilium {
    let mut cilium = super::Cilium::default();
    maps::Maps::new(&sources.bpf_root).read(&sources.targets.addresses, &mut cilium);
    let state_dir = &sources.cilium_state_dir;
    (cilium, state::skip_fib(state_dir), state::host_routing(state_dir), state::pinned_devices(&sources.bpf_root))
}

struct OfProcesses {
    listeners: Fact<Vec<super::Listener>>,
    pods: Fact<Vec<super::Pod>>,
    coredns: Fact<Vec<super::Corefile>>,
    pod_resolv_conf: Fact<super::ResolvConf>,
    settings: settings::AllSettings,
}

/// What needs the list of processes, read once.
fn of_processes(sources: &Sources) -> OfProcesses {
    let own = Netns::current().and_then(|netns| netns.id());
    let own_key = own.as_ref().ok().map(|own| (own.dev, own.inode));
    let processes = processes::Processes::read(&sources.proc_root)
        .map_err(|e| format!("{}: {e}; name it with --proc-root", sources.proc_root.display()));
    let all = processes.as_ref().map(|processes| processes.all.as_slice()).unwrap_or_default();
    let listeners = sockets::read(sources.targets.port, own_key, all);
    let mut search = match (&processes, own) {
        (Ok(processes), Ok(own)) => {
            let found = pods::find(processes, own, &sources.proc_root, sources.host_root.as_deref());
            found.map_err(|e| e.to_string())
        }
        (Err(why), _) => Err(why.clone()),
        (_, Err(e)) => Err(e.to_string()),
    };
    if let Ok((found, _)) = &mut search {
        // A CoreDNS with hostNetwork that is the server under test is not who asks it.
        let servers = sockets::servers(listeners.get().map_or(&[][..], Vec::as_slice), &sources.targets);
        found.retain(|one| !one.pod.host_network || !servers.contains(&one.pod.pid));
    }
    let coredns = match &search {
        Ok((found, _)) => {
            let running = found.iter().filter_map(|found| Some((found.coredns?, found.pod.name.clone())));
            coredns::read(running, pods::SOURCE)
        }
        Err(why) => Fact::unavailable(why, pods::SOURCE),
    };
    let agent = all.iter().find(|process| process.name == "cilium-agent" && process.netns == own_key);
    let settings = settings::AllSettings::find(sources.cilium_config_dir.as_deref(), agent);
    let kubelet = all.iter().find(|process| process.name == "kubelet");
    let pod_resolv_conf = resolv::of_pods(kubelet, &sources.node_root());
    OfProcesses { listeners, pods: pods::fact(&search), coredns, pod_resolv_conf, settings }
}

/// The agent's word on its devices, and what the pins say where it differs; they may be the only source of what runs.
fn devices(mut said: Fact<Vec<String>>, mut pinned: Fact<Vec<String>>) -> Fact<Vec<String>> {
    let Some(pins) = pinned.get() else { return said };
    let Some(devices) = said.get() else { return pinned };
    let mut sorted = devices.clone();
    sorted.sort();
    let same = sorted == *pins;
    if said.running().is_none() {
        if !same {
            pinned.differs(format!("{}: {}", said.source(), devices.join(" ")));
        }
        return pinned;
    }
    if !same {
        said.differs(format!("{}: {}", pinned.source(), pins.join(" ")));
    }
    said
}

/// The agent's word, and what was compiled where it differs; that may be the only source.
fn host_routing(mut said: Fact<HostRouting>, compiled: Option<(String, HostRouting)>) -> Fact<HostRouting> {
    let Some((source, mode)) = compiled else { return said };
    match &mut said {
        Fact::Known { value, .. } if *value == mode => {}
        Fact::Known { .. } => said.differs(format!("{source}: {}", mode.as_str())),
        Fact::Unavailable { .. } => return Fact::known(mode, source),
    }
    said
}

#[cfg(test)]
#[path = "gather/gather_tests.rs"]
mod tests;
