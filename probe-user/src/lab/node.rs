//! The node: PID 1 of the lab. As Talos' machined does, it serves host DNS; as kubelet and Cilium do, it starts the pods
//! and routes them.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::RawFd,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Error,
    agent::settings,
    cgroup,
    datapath::Datapath,
    dns,
    links::Links,
    mounts,
    pod::{Files, PodPlan, RunningPod, Work, read_line_of, say, set_comm, wait_for_end},
    scenario::{CoreDns, NodeSpec},
    stuck_queue,
    topology::{self, NODE_V4, OUTSIDE_V4},
};
use crate::{
    target::{DNS_PORT, NODE_RESOLVER},
    trace::load::chain,
};

/// What the supervisor tells the node.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodePlan {
    pub name: String,
    pub spec: NodeSpec,
    /// A real CoreDNS to run.
    pub coredns: Option<PathBuf>,
    /// Open file of the outside's network namespace, inherited.
    pub outside: RawFd,
}

/// What the node tells the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    Ready { pods: Vec<PodPlace> },
    Failed(String),
}

/// Where a pod is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PodPlace {
    pub name: String,
    /// In the node's PID namespace.
    pub pid: u32,
    pub interface: Option<String>,
    /// As the node sees it.
    pub cgroup: PathBuf,
}

/// The node's process. It returns when the supervisor is gone.
///
/// # Errors
/// Only when nobody can be told any more: other errors go to the supervisor.
pub fn run() -> Result<(), Error> {
    match stand() {
        Ok(()) => Ok(()),
        Err(error) => say_json(&Said::Failed(chain(&error))),
    }
}

fn stand() -> Result<(), Error> {
    let plan: NodePlan = read_line_of("the node's plan")?;
    set_comm("machined");
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)
        .map_err(Error::sys("cannot make the node's namespaces"))?;
    nix::unistd::sethostname(&plan.name).map_err(Error::sys("cannot set the node's hostname"))?;
    mounts::of_node()?;
    let lab_cgroup = PathBuf::from(mounts::CGROUP).join(cgroup::of_lab(&plan.name));
    cgroup::join(&lab_cgroup.join("init"))?;

    let outside = crate::netns::Netns::open(format!("/proc/self/fd/{}", plan.outside))?;
    let mut pods = Vec::new();
    for pod in pods_of(&plan, &lab_cgroup) {
        pods.push(RunningPod::start(pod, &plan.name)?);
    }
    let mut agent = RunningPod::start(agent_of(&plan, &lab_cgroup), &plan.name)?;
    for pod in pods.iter_mut().chain([&mut agent]) {
        pod.made()?;
    }
    let topology = topology::build(&plan.spec, &outside, &pods)?;
    let _datapath = Datapath::attach(&topology.datapath).map_err(|error| Error::Datapath(chain(&error)))?;
    if plan.spec.faults.reply_queue_stuck {
        // After the datapath: before Linux 6.6 it adds clsact qdiscs, and that empties and resets a device's queue.
        let links = Links::open()?;
        for endpoint in &topology.datapath.endpoints {
            stuck_queue::block(&links, &endpoint.device)?;
        }
    }

    let runtime = super::runtime()?;
    let inside = runtime.enter();
    let upstream = SocketAddr::new(OUTSIDE_V4.into(), DNS_PORT);
    let _host_dns = dns::serve(dns::Role::Forwarder { upstream }, &listens(&plan.spec))
        .map_err(Error::io("cannot serve host DNS"))?;
    for pod in pods.iter_mut().chain([&mut agent]) {
        pod.serve()?;
    }
    let places = pods.iter().map(|pod| PodPlace {
        name: pod.plan.name.clone(),
        pid: pod.pid,
        interface: (!pod.plan.host_network).then(|| pod.plan.interface.clone()),
        cgroup: pod.plan.cgroup.clone(),
    });
    say_json(&Said::Ready { pods: places.collect() })?;
    drop(inside);
    runtime.block_on(reap_until_end());
    runtime.shutdown_timeout(Duration::ZERO);
    Ok(())
}

/// PID 1 buries every orphan.
async fn reap_until_end() {
    let Ok(mut children) = signal(SignalKind::child()) else {
        wait_for_end();
        return;
    };
    let mut end = tokio::task::spawn_blocking(wait_for_end);
    loop {
        tokio::select! {
            _ = &mut end => return,
            _ = children.recv() => {
                while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
            }
        }
    }
}

fn listens(spec: &NodeSpec) -> Vec<dns::Listen> {
    let at = |address: IpAddr, udp, tcp| dns::Listen {
        address: SocketAddr::new(address, DNS_PORT),
        udp,
        tcp,
        ttl: Some(spec.reply_ttl),
    };
    let mut listens = vec![at(NODE_RESOLVER, true, true)];
    listens.extend(spec.host_dns.iter().filter(|dns| dns.scope.is_some()).map(|dns| at(dns.address, dns.udp, dns.tcp)));
    if spec.also_on_node_address {
        listens.push(at(NODE_V4.into(), true, true));
    }
    listens
}

fn cgroup_of(lab_cgroup: &Path, number: u8) -> PathBuf {
    let uid = format!("5f0c1d2e-7a4b-4c3d-9e8f-0000000000{number:02x}");
    let container = format!("{number:02x}").repeat(32);
    lab_cgroup.join(cgroup::of_pod(&uid, &container))
}

/// Cilium's agent: a process on the node's network that has its settings below its own /tmp. What it answers comes from
/// [`Datapath`].
fn agent_of(plan: &NodePlan, lab_cgroup: &Path) -> PodPlan {
    PodPlan {
        name: "cilium-agent".into(),
        comm: "cilium-agent".into(),
        program: "cilium-agent".into(),
        cgroup: cgroup_of(lab_cgroup, 4),
        host_network: true,
        hostname: None,
        files: Some(Files { folder: "/tmp".into(), files: settings::files(&plan.spec.cilium, plan.spec.ipv6) }),
        work: Work::Idle,
        interface: String::new(),
        endpoint_id: 0,
        identity: 0,
    }
}

/// The node's pods: CoreDNS, Cilium's health endpoint and an ordinary one.
fn pods_of(plan: &NodePlan, lab_cgroup: &Path) -> Vec<PodPlan> {
    let place = |number| cgroup_of(lab_cgroup, number);
    let nameserver = plan.spec.host_dns.first().map_or(NODE_RESOLVER, |dns| dns.address);
    // kubelet's resolvConf on Talos (/system/resolved/resolv.conf): the service address of host DNS.
    let resolv = |text: String| ("resolv.conf".to_owned(), text);
    let etc = |files| Some(Files { folder: "/etc".into(), files });
    let coredns = plan.spec.coredns;
    let mut pods = Vec::new();
    if coredns != CoreDns::Elsewhere {
        let target =
            if coredns == CoreDns::BypassesHostDns { OUTSIDE_V4.to_string() } else { "/etc/resolv.conf".to_owned() };
        let bind = if coredns == CoreDns::HostNetwork { format!("    bind {NODE_V4}\n") } else { String::new() };
        let corefile = format!(
            ".:53 {{\n{bind}    errors\n    forward . {target} {{\n        max_concurrent 1000\n    }}\n    cache 30\n}}\n"
        );
        let host_network = coredns == CoreDns::HostNetwork;
        pods.push(PodPlan {
            name: "coredns-7c9d-x2k4p".into(),
            comm: "coredns".into(),
            program: "/coredns".into(),
            cgroup: place(1),
            host_network,
            hostname: (!host_network).then(|| "coredns-7c9d-x2k4p".into()),
            files: etc(vec![resolv(format!("nameserver {nameserver}\n")), ("coredns/Corefile".into(), corefile)]),
            work: plan.coredns.clone().map_or(Work::Forward, Work::Coredns),
            interface: "lxc5f2a1c09d3e7".into(),
            endpoint_id: 1209,
            identity: 31_337,
        });
    }
    // The agent starts it, in a network namespace but with the agent's files and hostname.
    pods.push(PodPlan {
        name: "health".into(),
        comm: "cilium-health-r".into(),
        program: "cilium-health-responder".into(),
        cgroup: place(2),
        host_network: false,
        hostname: None,
        files: None,
        work: Work::Idle,
        interface: "lxc_health".into(),
        endpoint_id: 2044,
        identity: 4,
    });
    pods.push(PodPlan {
        name: "app-6b7f-q8s5t".into(),
        comm: "app".into(),
        program: "/app".into(),
        cgroup: place(3),
        host_network: false,
        hostname: Some("app-6b7f-q8s5t".into()),
        files: etc(vec![resolv("search default.svc.cluster.local\nnameserver 10.96.0.10\n".into())]),
        work: Work::Idle,
        interface: "lxc014991a937be".into(),
        endpoint_id: 377,
        identity: 24_001,
    });
    pods
}

fn say_json(said: &Said) -> Result<(), Error> {
    say(&serde_json::to_string(said).map_err(Error::json("cannot write an answer"))?)
}
