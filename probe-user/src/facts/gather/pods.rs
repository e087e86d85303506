//! The pods of this node: network namespaces of other processes that have a link to the node's own.
//!
//! Which of the node's links leads where is asked of the kernel (RTM_GETNSID), so that a namespace of another node on
//! the same machine is not taken for a pod, and nothing need be entered to tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    net::IpAddr,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::Path,
    time::{Duration, Instant},
};

use super::containers::{self, Container};
use super::pod_names::Names;
use super::processes::{NetnsKey, Process, Processes, read_text};
use super::rtnetlink;
use crate::{
    facts::{Fact, Link, NetnsId, Pod, PodRole},
    netlink::{Entries, Error, Netlink},
    netns::Netns,
};

pub(super) const SOURCE: &str = "/proc and rtnetlink";
const MAX_PODS: usize = 512;
/// Namespaces are entered for this long; the pods that matter most come first.
const ENTER_LIMIT: Duration = Duration::from_millis(250);
const LIMIT: Duration = Duration::from_millis(500);

/// A pod, and the CoreDNS process in it.
pub(super) struct Found<'a> {
    pub(super) pod: Pod,
    pub(super) coredns: Option<&'a Process>,
}

/// What was found, and what could not be, as text.
pub(super) type Search<'a> = (Vec<Found<'a>>, Vec<String>);

/// Finds the pods. `own` is the namespace of the calling thread, the node's.
pub(super) fn find<'a>(
    processes: &'a Processes,
    own: NetnsId,
    proc_root: &Path,
    host_root: Option<&Path>,
) -> Result<Search<'a>, Error> {
    let own_key = (own.dev, own.inode);
    let mut groups = BTreeMap::<NetnsKey, Vec<&Process>>::new();
    for process in &processes.all {
        groups.entry(process.netns.unwrap_or(own_key)).or_default().push(process);
    }
    let here = groups.remove(&own_key).unwrap_or_default();

    let node = Node::read()?;
    let names = Names::read(proc_root, host_root);
    let mut gaps = processes.gaps.clone();
    let mut found: Vec<_> =
        groups.into_iter().filter_map(|(key, members)| pod(key, &members, &node, &names, &mut gaps)).collect();
    found.sort_by_key(|found| (rank(found.pod.role), found.pod.pid));
    if found.len() > MAX_PODS {
        gaps.push(format!("{} pods more than {MAX_PODS} were left out", found.len() - MAX_PODS));
        found.truncate(MAX_PODS);
    }
    enter(&mut found, proc_root, &mut gaps);

    let on_host = here.into_iter().filter(|process| process.netns.is_some() && process.is_coredns());
    found.extend(on_host.map(|process| Found { pod: host_network(process, own, &names), coredns: Some(process) }));
    found.sort_by_key(|found| rank(found.pod.role));
    if found.is_empty() && !in_initial_pid_namespace(proc_root) {
        gaps.push("processes outside of this PID namespace are not seen (hostPID: true)".into());
    }
    Ok((found, gaps))
}

/// Whether every process of the machine can be seen. Inside a node that is a container itself they cannot, and need
/// not, so this counts only where nothing was found.
fn in_initial_pid_namespace(proc_root: &Path) -> bool {
    const PROC_PID_INIT_INO: u64 = 0xefff_fffc; // include/linux/proc_ns.h
    fs::metadata(proc_root.join("self/ns/pid")).is_ok_and(|meta| meta.ino() == PROC_PID_INIT_INO)
}

const fn rank(role: PodRole) -> u8 {
    match role {
        PodRole::Coredns => 0,
        PodRole::Health => 1,
        PodRole::Other => 2,
    }
}

/// The node's side of things.
struct Node {
    netlink: Netlink,
    links: Vec<Link>,
    /// Interfaces with an address of their own beyond link-local: uplinks, not pods' devices.
    addressed: BTreeSet<u32>,
}

impl Node {
    fn read() -> Result<Self, Error> {
        let netlink = Netlink::open(rtnetlink::FAMILY, LIMIT)?;
        let links = rtnetlink::links(&netlink)?.found;
        let local = |address: &IpAddr| match address {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        let addresses = rtnetlink::addresses(&netlink)?.found.into_iter().filter(|(_, found)| !local(&found.address));
        Ok(Self { netlink, links, addressed: addresses.map(|(index, _)| index).collect() })
    }

    /// One process of a namespace may end meanwhile; any other leads there too.
    fn link_to_any(&self, members: &[&Process]) -> io::Result<Option<&Link>> {
        let mut result = Ok(None);
        for process in members {
            result = self.link_to(process);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// The link whose other end is in the namespace of `process`.
    fn link_to(&self, process: &Process) -> io::Result<Option<&Link>> {
        let namespace = File::open(process.path.join("ns/net"))?;
        let Ok(Some(nsid)) = rtnetlink::nsid(&self.netlink, namespace.as_fd()) else { return Ok(None) };
        let paired =
            |link: &&Link| link.peer_nsid == Some(nsid) && matches!(link.kind.as_deref(), Some("veth" | "netkit"));
        Ok(self.links.iter().find(paired))
    }
}

/// The pod of a namespace, or `None` when it is not one of this node's.
fn pod<'a>(
    key: NetnsKey,
    members: &[&'a Process],
    node: &Node,
    names: &Names,
    gaps: &mut Vec<String>,
) -> Option<Found<'a>> {
    let link = match node.link_to_any(members) {
        Ok(link) => link?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None, // its last process has just ended
        Err(e) => {
            gaps.push(format!("the network namespace of process {} cannot be opened: {e}", members.first()?.pid));
            return None;
        }
    };
    let coredns = members.iter().copied().find(|process| process.is_coredns());
    let container = |process: &Process| containers::of_cgroup(&read_text(&process.path.join("cgroup"), 64 << 10).ok()?);
    // The sandbox's `pause` says less about a pod than what runs in it.
    let process =
        coredns.or_else(|| members.iter().copied().find(|p| p.name != "pause")).or(members.first().copied())?;
    let container = container(process).or_else(|| members.iter().find_map(|process| container(process)));
    let cilium = link.name.starts_with("lxc");
    if container.is_none() && !cilium && node.addressed.contains(&link.index) {
        return None; // what the node's uplink leads to
    }
    let health = link.name == "lxc_health" || members.iter().any(|p| p.name.starts_with("cilium-health"));
    let role = match (coredns, health) {
        (Some(_), _) => PodRole::Coredns,
        (None, true) => PodRole::Health,
        (None, false) => PodRole::Other,
    };
    let named = describe(process, role, container, names);
    let netns = NetnsId { dev: key.0, inode: key.1, cookie: 0 };
    Some(Found { pod: Pod { netns, interface: Some(link.name.clone()), ..named }, coredns })
}

/// All of a pod but its network.
fn describe(process: &Process, role: PodRole, container: Option<Container>, names: &Names) -> Pod {
    let uid = container.as_ref().map(|container| container.pod_uid.as_str());
    let (name, namespace) = match role {
        // It is a process of the agent's pod, but no part of it to the datapath.
        PodRole::Health => (Some("cilium-health".to_owned()), None),
        PodRole::Coredns | PodRole::Other => names.of(process, uid),
    };
    Pod {
        name: name.unwrap_or_else(|| format!("{} (pid {})", process.name, process.pid)),
        namespace,
        container: container.and_then(|container| container.id),
        role,
        pid: process.pid,
        netns: NetnsId { dev: 0, inode: 0, cookie: 0 },
        host_network: false,
        interface: None,
        addresses: Vec::new(),
    }
}

fn host_network(process: &Process, own: NetnsId, names: &Names) -> Pod {
    let container = read_text(&process.path.join("cgroup"), 64 << 10).ok();
    let container = container.and_then(|text| containers::of_cgroup(&text));
    Pod { netns: own, host_network: true, ..describe(process, PodRole::Coredns, container, names) }
}

/// Asks each namespace for its cookie and its addresses.
fn enter(found: &mut [Found<'_>], proc_root: &Path, gaps: &mut Vec<String>) {
    let started = Instant::now();
    let total = found.len();
    for (at, Found { pod, .. }) in found.iter_mut().enumerate() {
        if started.elapsed() > ENTER_LIMIT {
            gaps.push(format!("only {at} of {total} pods were entered within {ENTER_LIMIT:?}"));
            break;
        }
        let path = proc_root.join(pod.pid.to_string()).join("ns/net");
        let inside = Netns::open(path).and_then(|netns| netns.run(|| (crate::netns::netns_cookie(), addresses())));
        match inside {
            Ok((cookie, addresses)) => {
                pod.netns.cookie = cookie;
                match addresses {
                    Ok(read) => {
                        pod.addresses = read.found;
                        gaps.extend(read.unread.map(|why| format!("the addresses of pod {}: {why}", pod.name)));
                    }
                    Err(e) => gaps.push(format!("the addresses of pod {}: {e}", pod.name)),
                }
            }
            Err(e) => gaps.push(format!("pod {}: {e}", pod.name)),
        }
    }
}

/// Addresses of the calling thread's namespace that others can reach.
fn addresses() -> Result<Entries<IpAddr>, Error> {
    let Entries { found, unread } = rtnetlink::addresses(&Netlink::open(rtnetlink::FAMILY, LIMIT)?)?;
    let found = found.into_iter().filter(|(_, found)| found.scope == 0).map(|(_, found)| found.address).collect();
    Ok(Entries { found, unread })
}

/// As a fact.
pub(super) fn fact(search: &Result<Search<'_>, String>) -> Fact<Vec<Pod>> {
    match search {
        Ok((found, gaps)) => {
            Fact::known(found.iter().map(|found| found.pod.clone()).collect(), SOURCE).noting(gaps.iter().cloned())
        }
        Err(why) => Fact::unavailable(why, SOURCE),
    }
}
