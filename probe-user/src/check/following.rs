//! The tracer at work beside the questions: it collects what the kernel saw, and ends a question as soon as that
//! proves how it ended.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
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
    query::{Ask, Evidence, OUT_OF_TIME, Observer, Vantage},
    trace::{
        EventCounts, Hook, HookKind, PacketTrace,
        correlate::{Horizon, correlate},
        event::{Event, Topology},
        hooking, load,
        tracer::{Tracer, boot_ns},
    },
};

/// Events kept at most. A check makes a few hundred; a flood on its very ports must not fill the memory.
const MAX_EVENTS: usize = 20_000;

/// From one hook to the next it takes a packet microseconds; addresses of packets are used again.
const ON_ITS_WAY_NS: u64 = 100_000_000;

/// How often silence is looked at.
const TICK: Duration = Duration::from_millis(20);

/// How long a new event may wait to be looked at, so that a flood of them costs no more.
const PACE: Duration = Duration::from_millis(4);

/// How long the last events are waited for, on a machine that has no time for them.
const PATIENCE: Duration = Duration::from_secs(5);

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
    /// By the address of its `sk_buff`, of every packet that was kept; no more than there are events.
    on_their_way: HashMap<u64, OnItsWay>,
    waiting: BTreeMap<usize, Waiting>,
}

/// Where a packet was seen last.
struct OnItsWay {
    time_ns: u64,
    to: Option<SocketAddr>,
    /// At a socket, or freed: the next packet at that address is another one.
    arrived: bool,
}

impl OnItsWay {
    fn after(event: &Event) -> Self {
        let arrived = matches!(event.hook, HookKind::SocketIn | HookKind::Drop);
        Self { time_ns: event.time_ns, to: event.flow.map(|flow| flow.dst), arrived }
    }
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
        let asking: Vec<&str> = vantages.iter().filter_map(|vantage| vantage.interface.as_deref()).collect();
        let (config, absent) = hooking::config(
            facts,
            &options.sources.targets,
            &topology,
            &asking,
            &options.interfaces,
            options.all_interfaces,
        );
        let (tracer, mut hooks) = match Tracer::start(config).await {
            Ok(tracer) => (Some(Arc::new(tracer)), Vec::new()),
            Err(error) => (None, vec![hooking::unattached("eBPF", None, load::chain(&error))]),
        };
        hooks.extend(absent);
        let shared = Arc::new(Mutex::new(Shared {
            topology,
            events: Vec::new(),
            overflowed: 0,
            ports: HashSet::new(),
            on_their_way: HashMap::new(),
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

    /// No more questions: everything that was seen until `settle` from now, joined.
    pub(super) async fn finish(&self, settle: Duration) -> Followed {
        let caught_up = match &self.tracer {
            Some(tracer) => read_up_to(tracer, settle).await,
            None => true,
        };
        if let Some(reader) = &self.reader {
            reader.abort();
        }
        if let Some(tracer) = &self.tracer {
            take_queued(tracer, &self.shared).await;
        }
        let hooks: Vec<Hook> =
            self.tracer.as_ref().map(|tracer| tracer.hooks()).into_iter().flatten().chain(self.hooks.clone()).collect();
        let mut shared = lock(&self.shared);
        let mut events = self.tracer.as_ref().map_or_else(EventCounts::default, |tracer| tracer.counts());
        events.lost += shared.overflowed;
        shared.topology.cover = hooking::cover(&hooks, &shared.topology, caught_up && events.lost == 0);
        let traces = correlate(&shared.events, &shared.topology, Horizon { now_ns: boot_ns(), last: true });
        Followed { topology: shared.topology.clone(), hooks, traces, events }
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
        let until = take_queued(&tracer, &shared).await;
        let shared = &mut *lock(&shared);
        if shared.waiting.values().any(|waiting| waiting.tell.is_some()) {
            shared.topology.cover = hooking::cover(&tracer.hooks(), &shared.topology, tracer.counts().lost == 0);
            shared.wake(until);
        }
    }
}

/// Waits until everything is read that happens within `settle`. False: it was given up.
async fn read_up_to(tracer: &Tracer, settle: Duration) -> bool {
    let until = boot_ns().saturating_add(u64::try_from(settle.as_nanos()).unwrap_or(u64::MAX));
    tokio::time::sleep(settle).await;
    let deadline = Instant::now() + PATIENCE;
    while tracer.read_until() < until {
        if Instant::now() > deadline {
            tracing::warn!("events are read too slowly on this machine: nothing is claimed from silence");
            return false;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    true
}

/// Keeps what is in the queue. Until when (boot clock, nanoseconds) that is everything.
async fn take_queued(tracer: &Tracer, shared: &Mutex<Shared>) -> u64 {
    let until = tracer.read_until();
    let mut queued = Vec::new();
    tracer.take_queued(&mut queued).await;
    let mut shared = lock(shared);
    queued.into_iter().for_each(|event| shared.keep(event));
    until
}

impl Shared {
    /// Other pods' queries to the same address are theirs.
    fn keep(&mut self, event: Event) {
        let ours = event
            .flow
            .is_none_or(|flow| self.ports.contains(&flow.src.port()) || self.ports.contains(&flow.dst.port()));
        if !ours && !self.is_translated(&event) {
            return;
        }
        self.on_their_way.insert(event.skb, OnItsWay::after(&event));
        if self.events.len() < MAX_EVENTS {
            self.events.push(event);
        } else {
            self.overflowed += 1;
        }
    }

    /// One of ours that leaves with another port: masquerading takes a free one where the pod's own is in use.
    fn is_translated(&self, event: &Event) -> bool {
        let leaves = matches!(event.hook, HookKind::Egress | HookKind::Transmit);
        let seen = self.on_their_way.get(&event.skb).filter(|_| leaves && event.skb != 0);
        seen.is_some_and(|seen| {
            !seen.arrived
                && seen.to == event.flow.map(|flow| flow.dst)
                && event.time_ns.saturating_sub(seen.time_ns) <= ON_ITS_WAY_NS
        })
    }

    /// `until`: of everything up to then it is known whether it happened.
    fn wake(&mut self, until: u64) {
        let traces = correlate(&self.events, &self.topology, Horizon { now_ns: until, last: false });
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
            let drop = trace.drop.as_ref().filter(|drop| !is_congestion(&drop.reason))?;
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

/// A full queue, or no memory, at that moment (include/net/dropreason-core.h): the next one sent may get through, and a
/// resolver sends another.
fn is_congestion(reason: &str) -> bool {
    const MOMENTARY: [&str; 9] = [
        "SOCKET_RCVBUFF",
        "SOCKET_BACKLOG",
        "PROTO_MEM",
        "CPU_BACKLOG",
        "QDISC_DROP",
        "QDISC_OVERLIMIT",
        "QDISC_CONGESTED",
        "NEIGH_QUEUEFULL",
        "NOMEM",
    ];
    MOMENTARY.contains(&reason)
}

/// What the lock guards is whole after every step: a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Flow;

    const PORT: u16 = 41_334;

    fn shared() -> Shared {
        Shared {
            topology: Topology::default(),
            events: Vec::new(),
            overflowed: 0,
            ports: HashSet::from([PORT]),
            on_their_way: HashMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    fn seen(time_ns: u64, hook: HookKind, port: u16, to: &str) -> Event {
        let src = SocketAddr::new([10, 0, 0, 5].into(), port);
        let flow = Some(Flow { src, dst: to.parse().unwrap(), transport: Transport::Udp });
        Event { skb: 7, flow, ..Event::bare(hook, time_ns) }
    }

    #[test]
    fn ours_is_kept_though_it_leaves_with_another_port() {
        const TARGET: &str = "169.254.116.108:53";
        let kept = |events: &[Event]| {
            let mut shared = shared();
            events.iter().cloned().for_each(|event| shared.keep(event));
            shared.events.len()
        };
        let ours = seen(1000, HookKind::Ingress, PORT, TARGET);
        assert_eq!(kept(&[ours.clone(), seen(2000, HookKind::Transmit, 61_000, TARGET)]), 2);
        assert_eq!(kept(&[ours.clone(), seen(2000, HookKind::Egress, 61_000, TARGET)]), 2);
        // Another packet at the same address, later or after ours arrived, or one that asks somebody else.
        assert_eq!(kept(&[ours.clone(), seen(2_000_000_000, HookKind::Transmit, 61_000, TARGET)]), 1);
        assert_eq!(kept(&[ours.clone(), seen(2000, HookKind::Ingress, 61_000, TARGET)]), 1);
        assert_eq!(kept(&[ours.clone(), seen(2000, HookKind::Transmit, 61_000, "192.0.2.1:53")]), 1);
        let arrived = seen(1500, HookKind::SocketIn, PORT, TARGET);
        assert_eq!(kept(&[ours, arrived, seen(2000, HookKind::Transmit, 61_000, TARGET)]), 2);
    }

    #[test]
    fn a_full_queue_ends_no_question() {
        assert!(is_congestion("SOCKET_RCVBUFF") && is_congestion("QDISC_DROP"));
        for lasting in ["TC_INGRESS", "IP_RPFILTER", "NETFILTER_DROP", "NO_SOCKET"] {
            assert!(!is_congestion(lasting), "{lasting}");
        }
    }
}
