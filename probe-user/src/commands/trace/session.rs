//! The tracer at work: events in, transactions out, and pods followed as they come and go.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::task::JoinHandle;

use super::{
    TraceArgs, coverage::Coverage, losses::Losses, newcomers::Newcomers, reasons::Reasons, render::Surroundings,
};
use crate::{
    ended::Ended,
    facts::{self, Facts, Sources},
    target::HOST_DNS_V6,
    trace::{
        EventCounts, Hook, HookKind,
        correlate::{Correlator, Finished, Horizon},
        event::{Device, DeviceRole, Event, Topology},
        hooking,
        pods::Names,
        reorder::{Reorder, WAIT_NS},
        tracer::{LATENCY, Others, Tracer, boot_ns},
        transaction::{Telling, Transaction},
        truncated::Truncated,
    },
};

/// Events taken at once.
const BATCH: usize = 1024;

/// Transactions told at once.
const LOT: usize = 256;

/// How often the list of devices is compared: a pod comes with one.
const LINKS_PACE: Duration = Duration::from_millis(400);

/// How often the hooks are looked at.
const HOOKS_PACE: Duration = Duration::from_millis(200);

/// A pod that is gone is known for so long: its last transactions are still open.
const REMEMBER: Duration = Duration::from_secs(10);

/// A transaction as it is shown, with what a packet file needs besides.
pub(super) struct Seen {
    pub(super) transaction: Transaction,
    pub(super) events: Vec<Event>,
    /// Time of its first hop.
    pub(super) unix_ns: i128,
}

pub(super) struct Session {
    tracer: Tracer,
    sources: Sources,
    facts: Facts,
    topology: Topology,
    names: Names,
    /// Pods' namespaces that are gone, and since when.
    left: HashMap<u64, Instant>,
    /// The same for pods' devices.
    gone: HashMap<u32, Instant>,
    coverage: Coverage,
    newcomers: Newcomers,
    /// There is a namespace without a name.
    unnamed: bool,
    absent: Vec<Hook>,
    links: Vec<(u32, String)>,
    links_looked: Instant,
    hooks_looked: Option<Instant>,
    refreshing: Option<JoinHandle<Facts>>,
    batch: Vec<Event>,
    reorder: Reorder,
    correlator: Correlator,
    losses: Losses,
    reasons: Reasons,
    truncated: Truncated,
    boot_to_unix_ns: i128,
    /// From then on every hook that matters was on; what began before was seen in part.
    ready_ns: u64,
    sample: Option<u32>,
    started: Instant,
}

impl Session {
    pub(super) async fn start(args: &TraceArgs) -> anyhow::Result<Self> {
        let mut sources = args.sources.sources(args.target.targets(false));
        let links = interfaces();
        let facts = facts::gather(&sources).await;
        if args.target.address.is_empty() {
            let addresses = facts.network.addresses.get().map_or(&[][..], Vec::as_slice);
            let v6 = addresses.iter().any(|one| one.interface == "lo" && one.address == HOST_DNS_V6);
            sources.targets = args.target.targets(v6);
        }
        let topology = Topology { strangers: true, ..Topology::from_facts(&facts, &sources.targets) };
        let (mut config, absent) =
            hooking::config(&facts, &sources.targets, &topology, &[], &args.interface, args.all_interfaces);
        config.others = Others::everybody(args.sample.unwrap_or(0));
        let tracer =
            Tracer::start(config).await.context("nothing can be traced here; `hostdns-probe check` says more")?;
        let ready_ns = boot_ns();
        give_back_memory();
        Ok(Self {
            tracer,
            names: Names::from_facts(&facts),
            reasons: Reasons::new(&facts.cilium.drops_before, facts.cilium.drops_map),
            sources,
            facts,
            topology,
            left: HashMap::new(),
            gone: HashMap::new(),
            coverage: Coverage::default(),
            newcomers: Newcomers::default(),
            unnamed: false,
            absent,
            links,
            links_looked: Instant::now(),
            hooks_looked: None,
            refreshing: None,
            batch: Vec::with_capacity(BATCH),
            reorder: Reorder::default(),
            correlator: Correlator::default(),
            losses: Losses::default(),
            truncated: Truncated::default(),
            boot_to_unix_ns: jiff::Timestamp::now().as_nanosecond() - i128::from(boot_ns()),
            ready_ns,
            sample: args.sample.filter(|&n| n > 1),
            started: Instant::now(),
        })
    }

    /// What is watched, in one line.
    pub(super) fn opening(&self) -> String {
        let targets: Vec<_> = self.sources.targets.sockets().map(|socket| socket.to_string()).collect();
        let sample = self.sample.map_or_else(String::new, |n| format!("; one query in {n}"));
        format!("tracing DNS to and from {}{sample}; Ctrl-C ends it", targets.join(" and "))
    }

    /// Waits for events and takes them in. False: no more will come. Safe to be given up while it waits.
    pub(super) async fn read(&mut self) -> bool {
        let read = self.tracer.recv_many(&mut self.batch, BATCH).await;
        self.take_in();
        read > 0
    }

    fn take_in(&mut self) {
        for event in std::mem::take(&mut self.batch) {
            self.cover(&event);
            self.reorder.push(event);
        }
    }

    /// A pod's device is hooked when its DNS is first seen.
    fn cover(&mut self, event: &Event) {
        if let Some((netns, index)) = self.newcomers.arrives(event, &self.topology) {
            self.cover_device(netns, index);
        }
        let at_socket = matches!(event.hook, HookKind::SocketOut | HookKind::SocketIn);
        if !at_socket || event.netns == 0 || event.netns == self.topology.node || self.coverage.knows(event.netns) {
            self.newcomers.known_sends(event);
            return;
        }
        self.unnamed |= !self.topology.is_ours(event.netns);
        let interface = self.names.pod(event.netns).and_then(|pod| pod.interface.as_deref());
        let device = self.topology.devices.iter().find(|device| Some(device.name.as_str()) == interface);
        match device.map(|device| device.index) {
            Some(index) => self.cover_device(event.netns, index),
            None => self.newcomers.sends(event),
        }
    }

    /// Hooks the device of a pod; one that is not known yet has just come.
    fn cover_device(&mut self, netns: u64, index: u32) {
        if self.topology.device(index).is_none() {
            let Ok(name) = nix::net::if_::if_indextoname(index) else {
                self.coverage.add(netns, None);
                return;
            };
            let name = name.to_string_lossy().into_owned();
            let role = DeviceRole::Pod;
            let device = Device { index, name, role, stacked_on: None, covered_since_ns: None, pod: None };
            self.topology.devices.push(device);
        }
        let Some(device) = self.topology.device(index).filter(|device| device.role == DeviceRole::Pod) else { return };
        if !self.coverage.knows(netns) {
            self.coverage.add(netns, Some(index));
            self.tracer.watch(hooking::watch(device, &self.facts, false));
        }
    }

    /// Takes in what is ripe, and follows pods as they come and go. What has ended by then comes from [`Self::next_lot`].
    pub(super) async fn look(&mut self) {
        self.follow_pods().await;
        self.correlate(boot_ns());
    }

    /// A part of what has ended, so that a great many of them take no more memory than a few, and whether there is more.
    pub(super) async fn next_lot(&mut self) -> (Vec<Seen>, bool) {
        let (finished, more) = self.take_lot(false);
        (self.tell(finished, false).await, more)
    }

    /// Reads to the end: then [`Self::next_lot`] has what has ended, and [`Self::last_lot`] the rest.
    pub(super) async fn finish(&mut self) {
        let until = tokio::time::Instant::now() + LATENCY * 2 + Duration::from_nanos(WAIT_NS);
        while tokio::time::timeout_at(until, self.read()).await == Ok(true) {}
        self.settle_coverage();
        self.correlate(u64::MAX);
    }

    /// The same of what is still on its way: it has no end that anybody saw.
    pub(super) async fn last_lot(&mut self) -> (Vec<Seen>, bool) {
        let (mut finished, more) = self.take_lot(true);
        for open in &mut finished {
            if matches!(open.trace.ended, Ended::Lost | Ended::Unanswered | Ended::Unknown) {
                open.trace.ended = Ended::Unknown;
                open.trace.lost = None;
                open.trace.unknown = Some("still open when the trace ended".to_owned());
            }
        }
        (self.tell(finished, true).await, more)
    }

    fn take_lot(&mut self, last: bool) -> (Vec<Finished>, bool) {
        let mut finished = Vec::new();
        let more = self.correlator.take_lot(&self.topology, Horizon { now_ns: boot_ns(), last }, LOT, &mut finished);
        (finished, more)
    }

    fn correlate(&mut self, ripe_ns: u64) {
        self.losses.look(self.counts().lost, boot_ns());
        if self.hooks_looked.is_none_or(|looked| looked.elapsed() >= HOOKS_PACE) {
            self.hooks_looked = Some(Instant::now());
            self.topology.cover = hooking::cover(&self.tracer.hooks(), &self.topology, true);
        }
        self.topology.cover.complete = self.losses.is_complete();
        while let Some(event) = self.reorder.pop(ripe_ns) {
            self.correlator.push(event, &self.topology);
        }
    }

    async fn tell(&mut self, mut finished: Vec<Finished>, last: bool) -> Vec<Seen> {
        finished.retain(|finished| finished.trace.started_ns >= self.ready_ns);
        let finished = self.reasons.add(finished, &self.sources, last).await;
        finished
            .into_iter()
            .map(|finished| {
                let started_ns = finished.trace.started_ns;
                let telling = Telling {
                    names: &self.names,
                    boot_to_unix_ns: self.boot_to_unix_ns,
                    events_lost: self.losses.since(started_ns),
                    sampled: self.sample,
                };
                let mut transaction = Transaction::tell(finished.trace, &finished.events, telling);
                self.truncated.join(&mut transaction);
                Seen { transaction, events: finished.events, unix_ns: i128::from(started_ns) + self.boot_to_unix_ns }
            })
            .collect()
    }

    /// Where devices came or went, pods did: they are looked for beside the trace.
    async fn follow_pods(&mut self) {
        self.settle_coverage();
        if let Some(task) = self.refreshing.take_if(|task| task.is_finished()) {
            match task.await {
                Ok(facts) => self.renew(facts),
                Err(error) => tracing::warn!(%error, "new pods could not be looked for"),
            }
        }
        if self.refreshing.is_some() || self.links_looked.elapsed() < LINKS_PACE {
            return;
        }
        self.links_looked = Instant::now();
        let links = interfaces();
        if links != self.links || std::mem::take(&mut self.unnamed) {
            self.links = links;
            let (sources, mut facts) = (self.sources.clone(), self.facts.clone());
            self.refreshing = Some(tokio::spawn(async move {
                facts::refresh(&sources, &mut facts).await;
                facts
            }));
        }
    }

    fn renew(&mut self, facts: Facts) {
        let mut topology = Topology::from_facts(&facts, &self.sources.targets);
        (topology.strangers, topology.cover) = (true, self.topology.cover);
        // A device that has just come may not be among the facts yet, and one that has gone is still on some hops.
        let is_there = |index: u32| self.links.iter().any(|&(known, _)| known == index);
        self.newcomers.keep(is_there);
        for device in std::mem::take(&mut self.topology.devices) {
            let stays = device.role == DeviceRole::Pod
                && (is_there(device.index)
                    || self.gone.entry(device.index).or_insert_with(Instant::now).elapsed() < REMEMBER);
            if stays && topology.device(device.index).is_none() {
                topology.devices.push(device);
            }
        }
        self.gone.retain(|_, since| since.elapsed() < REMEMBER);
        let mut names = Names::from_facts(&facts);
        for &(cookie, _) in &topology.pods {
            self.left.remove(&cookie);
            if !self.topology.pods.iter().any(|&(known, _)| known == cookie)
                && let Err(error) = self.tracer.add_netns(cookie)
            {
                tracing::warn!(%error, "a new pod is not followed");
            }
        }
        for (cookie, name) in std::mem::take(&mut self.topology.pods) {
            if topology.pods.iter().any(|&(known, _)| known == cookie) {
                continue;
            }
            if self.left.entry(cookie).or_insert_with(Instant::now).elapsed() < REMEMBER {
                topology.pods.push((cookie, name));
                names.keep(cookie, &self.names);
            } else {
                self.left.remove(&cookie);
                self.tracer.remove_netns(cookie);
            }
        }
        let is_pod = |cookie: u64| topology.pods.iter().any(|&(known, _)| known == cookie);
        self.coverage.keep(|cookie| self.newcomers.device(cookie).is_some() || is_pod(cookie), REMEMBER);
        (self.topology, self.names, self.facts) = (topology, names, facts);
    }

    fn settle_coverage(&mut self) {
        for (device, outcome) in self.tracer.outcomes() {
            self.coverage.settle(device, outcome);
        }
    }

    fn counts(&self) -> EventCounts {
        let (own, others) = (self.tracer.counts(), self.tracer.other_counts());
        EventCounts { seen: own.seen + others.seen, lost: own.lost + others.lost }
    }

    /// What the summary needs to know beside the transactions.
    pub(super) fn surroundings(&self) -> Surroundings {
        let hooks = self.tracer.hooks();
        let missing = hooks.iter().chain(&self.absent).filter(|hook| !hook.attached).map(|hook| {
            let place = hook.interface.as_deref().map_or_else(String::new, |interface| format!(" on {interface}"));
            format!("{}{place}: {}", hook.name, hook.reason.as_deref().unwrap_or("no reason is known"))
        });
        let hooked = |name: &str| hooks.iter().any(|hook| hook.attached && hook.interface.as_deref() == Some(name));
        let known = |name: &str| hooks.iter().any(|hook| hook.interface.as_deref() == Some(name));
        let asked = |name: &str| {
            let of = |&(netns, _): &(u64, String)| {
                self.coverage.knows(netns)
                    && self.names.pod(netns).and_then(|pod| pod.interface.as_deref()) == Some(name)
            };
            self.topology.pods.iter().any(of)
        };
        let is_there = |name: &str| nix::net::if_::if_nametoindex(name).is_ok();
        let uncovered = self.topology.devices.iter().filter(|device| match device.role {
            DeviceRole::Other => false,
            // One that has gone took its hooks along.
            DeviceRole::Pod => asked(&device.name) && !hooked(&device.name) && is_there(&device.name),
            _ => !known(&device.name),
        });
        Surroundings {
            lasted: self.started.elapsed(),
            events: self.counts(),
            queries: self.tracer.queries(),
            missing: missing.collect(),
            uncovered: uncovered.map(|device| device.name.clone()).collect(),
            pods: self.coverage.counts(),
            sampled: self.sample,
        }
    }
}

/// Reading the kernel's types took many times what is needed from now on.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn interfaces() -> Vec<(u32, String)> {
    nix::net::if_::if_nameindex().map_or_else(
        |_unread| Vec::new(),
        |all| all.iter().map(|one| (one.index(), one.name().to_string_lossy().into_owned())).collect(),
    )
}
