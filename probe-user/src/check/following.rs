//! The tracer at work beside the questions: it collects what the kernel saw, and ends a question as soon as that
//! proves how it ended.

use std::{
    collections::{BTreeMap, HashSet},
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::JoinHandle};

use super::{Options, linking};
use crate::{
    ended::Ended,
    facts::{Facts, Transport},
    query::{Ask, Evidence, Observer, Vantage},
    trace::{
        EventCounts, Hook, PacketTrace,
        correlate::{Horizon, correlate},
        event::{Cover, Event, Topology},
        load,
        tracer::{Follow, InterfaceToWatch, TraceConfig, Tracer, boot_ns},
    },
};

/// Events kept at most. A check makes a few hundred; a flood on its very ports must not fill the memory.
const MAX_EVENTS: usize = 20_000;

/// How often silence is looked at.
const TICK: Duration = Duration::from_millis(20);

/// How long a new event may wait to be looked at, so that a flood of them costs no more.
const PACE: Duration = Duration::from_millis(4);

/// The tracer, what it saw, and who waits for what.
pub(super) struct Following {
    tracer: Option<Arc<Tracer>>,
    /// In place of the tracer's hooks, where there is no tracer.
    hooks: Vec<Hook>,
    shared: Arc<Mutex<Shared>>,
    reader: Option<JoinHandle<()>>,
}

struct Shared {
    topology: Topology,
    events: Vec<Event>,
    /// Events beyond [`MAX_EVENTS`].
    overflowed: u64,
    /// Ports of the questions' own sockets.
    ports: HashSet<u16>,
    waiting: BTreeMap<usize, Waiting>,
}

/// A question under way.
struct Waiting {
    vantage: Vantage,
    transport: Transport,
    server: SocketAddr,
    /// Known once its socket is.
    port: Option<u16>,
    tell: Option<oneshot::Sender<Evidence>>,
}

/// What the following came to.
pub(super) struct Followed {
    pub(super) topology: Topology,
    pub(super) hooks: Vec<Hook>,
    pub(super) traces: Vec<PacketTrace>,
    pub(super) events: EventCounts,
}

impl Following {
    /// Attaches what can be attached. Where nothing can, the questions are asked all the same.
    pub(super) async fn start(options: &Options, facts: &Facts, topology: Topology, vantages: &[Vantage]) -> Self {
        let (config, absent) = config(options, facts, &topology, vantages);
        let (tracer, mut hooks) = match Tracer::start(config).await {
            Ok(tracer) => (Some(Arc::new(tracer)), Vec::new()),
            Err(error) => (None, vec![unattached("eBPF", None, load::chain(&error))]),
        };
        hooks.extend(absent);
        let shared = Arc::new(Mutex::new(Shared {
            topology,
            events: Vec::new(),
            overflowed: 0,
            ports: HashSet::new(),
            waiting: BTreeMap::new(),
        }));
        let reader = tracer.clone().map(|tracer| tokio::spawn(read(tracer, Arc::clone(&shared))));
        Self { tracer, hooks, shared, reader }
    }

    /// For one question: whom to tell of its socket, and what may end it early.
    pub(super) fn follow(
        &self,
        index: usize,
        ask: &Ask,
        deadline: Instant,
    ) -> (impl Observer + use<>, impl Future<Output = Evidence> + use<>) {
        let (tell, told) = oneshot::channel();
        lock(&self.shared).waiting.insert(
            index,
            Waiting {
                vantage: ask.vantage.clone(),
                transport: ask.question.transport,
                server: ask.question.address,
                port: None,
                tell: Some(tell),
            },
        );
        let (shared, tracer) = (Arc::clone(&self.shared), self.tracer.clone());
        let observer = move |transport: Transport, local: SocketAddr, cookie: u64| {
            if let Some(tracer) = &tracer
                && let Err(error) = tracer.own_port(transport, local.port())
            {
                tracing::warn!(%error, "a question is followed among everybody else's");
            }
            let shared = &mut *lock(&shared);
            shared.ports.insert(local.port());
            if let Some(waiting) = shared.waiting.get_mut(&index) {
                waiting.port = Some(local.port());
                shared.topology.clients.push((cookie, waiting.vantage.netns.cookie));
            }
        };
        let ended = async move {
            let out_of_time = tokio::time::sleep_until(deadline.into());
            tokio::select! {
                Ok(evidence) = told => evidence,
                () = out_of_time => Evidence { ended: Ended::Unknown, note: OUT_OF_TIME.to_owned() },
            }
        };
        (observer, ended)
    }

    /// No more questions: everything that was seen, joined.
    pub(super) fn finish(&self) -> Followed {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
        let hooks: Vec<Hook> =
            self.tracer.as_ref().map(|tracer| tracer.hooks()).into_iter().flatten().chain(self.hooks.clone()).collect();
        let mut shared = lock(&self.shared);
        let mut events = self.tracer.as_ref().map_or_else(EventCounts::default, |tracer| tracer.counts());
        events.lost += shared.overflowed;
        shared.topology.cover = cover(&hooks, &shared.topology, events);
        let traces = correlate(&shared.events, &shared.topology, Horizon { now_ns: boot_ns(), last: true });
        Followed { topology: shared.topology.clone(), hooks, traces, events }
    }
}

/// The note of a question that the check's own budget ended (HDP009).
pub(super) const OUT_OF_TIME: &str = "the check ran out of its time budget";

/// What to hook, and the wishes that no device fulfils.
fn config(options: &Options, facts: &Facts, topology: &Topology, vantages: &[Vantage]) -> (TraceConfig, Vec<Hook>) {
    let asking: Vec<&str> = vantages.iter().filter_map(|vantage| vantage.interface.as_deref()).collect();
    let worth = topology.worth_watching(&asking);
    let wished = |name: &str| options.all_interfaces || options.interfaces.iter().any(|glob| glob.matches(name));
    let more = topology
        .devices
        .iter()
        .filter(|device| wished(&device.name) && !worth.iter().any(|known| known.index == device.index));
    let watch = |device: &crate::trace::event::Device, needed: bool| InterfaceToWatch {
        index: device.index,
        name: device.name.clone(),
        layer3: facts
            .network
            .links
            .get()
            .is_some_and(|links| links.iter().any(|link| link.index == device.index && link.layer3)),
        exit: device.role.leaves_the_node(),
        needed,
    };
    let interfaces = worth.iter().map(|device| watch(device, true)).chain(more.map(|device| watch(device, false)));
    let absent = options
        .interfaces
        .iter()
        .filter(|glob| !topology.devices.iter().any(|device| glob.matches(&device.name)))
        .map(|glob| unattached("tcx", Some(glob.as_str()), "the node has no such interface (--interface)".to_owned()))
        .collect();
    let config = TraceConfig {
        targets: options.sources.targets.clone(),
        cgroup_root: facts.kernel.cgroup_root.get().cloned(),
        interfaces: interfaces.collect(),
        own_netns: topology.node,
        pod_netns: topology.pods.iter().map(|&(cookie, _)| cookie).collect(),
        btf: None,
        follow: if options.all_interfaces { Follow::All } else { Follow::Listed },
        force_clsact: false,
    };
    (config, absent)
}

fn unattached(name: &str, interface: Option<&str>, reason: String) -> Hook {
    Hook {
        name: name.to_owned(),
        interface: interface.map(ToOwned::to_owned),
        attached: false,
        reason: Some(reason),
        since_ns: 0,
    }
}

/// Reads until it is told to stop, and wakes whoever has waited long enough.
async fn read(tracer: Arc<Tracer>, shared: Arc<Mutex<Shared>>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looked = Instant::now();
    loop {
        tokio::select! {
            event = tracer.recv() => match event {
                Some(event) => {
                    lock(&shared).keep(event);
                    if looked.elapsed() < PACE {
                        continue;
                    }
                }
                None => return,
            },
            _ = tick.tick() => {}
        }
        looked = Instant::now();
        let shared = &mut *lock(&shared);
        if shared.waiting.values().any(|waiting| waiting.tell.is_some()) {
            shared.topology.cover = cover(&tracer.hooks(), &shared.topology, tracer.counts());
            shared.wake();
        }
    }
}

impl Shared {
    /// Other pods' queries to the same address are theirs.
    fn keep(&mut self, event: Event) {
        let ours = event
            .flow
            .is_none_or(|flow| self.ports.contains(&flow.src.port()) || self.ports.contains(&flow.dst.port()));
        if !ours {
            return;
        }
        if self.events.len() < MAX_EVENTS {
            self.events.push(event);
        } else {
            self.overflowed += 1;
        }
    }

    fn wake(&mut self) {
        let traces = correlate(&self.events, &self.topology, Horizon { now_ns: boot_ns(), last: false });
        for trace in &traces {
            let Some(evidence) = evidence(trace) else { continue };
            let waiting = self.waiting.values_mut().find(|waiting| waiting.is_about(trace, &self.topology));
            if let Some(tell) = waiting.and_then(|waiting| waiting.tell.take()) {
                // Whoever asked may have its answer by now.
                let _ = tell.send(evidence);
            }
        }
    }
}

impl Waiting {
    fn is_about(&self, trace: &PacketTrace, topology: &Topology) -> bool {
        trace.flow.transport == self.transport
            && trace.flow.dst == self.server
            && Some(trace.flow.src.port()) == self.port
            && linking::is_from(trace, &self.vantage, topology)
    }
}

/// What a trace proves already.
fn evidence(trace: &PacketTrace) -> Option<Evidence> {
    let note = match trace.ended {
        Ended::Leaked => {
            let leak = trace.leak.as_ref()?;
            format!("left the node through {}", leak.interface)
        }
        Ended::Dropped => {
            let drop = trace.drop.as_ref()?;
            format!("dropped at {}: {}", drop.r#where, drop.reason)
        }
        Ended::Lost => {
            let lost = trace.lost.as_ref()?;
            format!("the {} was last seen at {}", lost.direction, lost.last_hop)
        }
        Ended::PortUnreachable => "nobody listens there".to_owned(),
        _ => return None,
    };
    Some(Evidence { ended: trace.ended, note })
}

/// Which silence means something: hooks that were in place before the first sighting, nothing lost.
fn cover(hooks: &[Hook], topology: &Topology, events: EventCounts) -> Cover {
    let on = |name: &str| hooks.iter().any(|hook| hook.attached && hook.name.starts_with(name));
    let exits = topology.devices.iter().filter(|device| device.role.leaves_the_node()).all(|device| {
        hooks.iter().any(|hook| {
            hook.attached && hook.interface.as_deref() == Some(&device.name) && hook.name.contains("egress")
        })
    });
    Cover {
        sockets: on("cgroup_skb egress") && on("cgroup_skb ingress"),
        drops: on("tp_btf kfree_skb"),
        transmit: on("tp_btf net_dev_start_xmit"),
        exits,
        complete: events.lost == 0,
    }
}

/// What the lock guards is whole after every step: a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
