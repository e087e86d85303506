//! The tracer: loads, attaches, reads. Nothing is pinned; what is attached ends with the process.

mod devices;

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Instant,
};

use aya::{
    Btf,
    maps::{HashMap, MapData, PerCpuArray},
};
use hostdns_probe_ebpf::{Counts, TCP, UDP, own_port_key};
use tokio::sync::{mpsc, oneshot};

use self::devices::Devices;
pub use self::devices::Outcome;
use super::{
    EventCounts, Hook, attach, btf,
    event::Event,
    load::{self, Error, take_hash},
    read::{Reader, ReaderCounts},
};
pub use super::{attach::boot_ns, read::LATENCY};
use crate::{facts::Transport, netns::Netns, target::Targets};

/// What to follow, and where.
#[derive(Clone, Debug, Default)]
pub struct TraceConfig {
    pub targets: Targets,
    /// Root of cgroup v2, as the facts have it; none: sockets are not watched.
    pub cgroup_root: Option<PathBuf>,
    /// In order of worth. They are devices of the calling thread's network namespace, the node's.
    pub interfaces: Vec<InterfaceToWatch>,
    /// Cookie of that namespace.
    pub own_netns: u64,
    /// Cookies of the pods' namespaces. Events of others are ignored in the kernel.
    pub pod_netns: Vec<u64>,
    /// The kernel's BTF; none: `/sys/kernel/btf/vmlinux`.
    pub btf: Option<PathBuf>,
    /// Attach to devices that come later.
    pub follow: Follow,
    /// How much of what is not the check's own.
    pub others: Others,
    /// As on a kernel without tcx. `HOSTDNS_PROBE_FORCE_CLSACT=1` does the same.
    pub force_clsact: bool,
}

/// What is wanted of flows that are not the check's own: bounds in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Others {
    /// Size of their ring, a power of two and of pages. It is mapped into this process, too.
    pub ring_bytes: u32,
    /// Events that a CPU may emit in 67 ms; and of those with a packet's bytes, which cost 8 µs each.
    pub admitted: u64,
    pub admitted_costly: u64,
    /// Only the first sighting of a UDP packet carries the message, and what is lost, is lost by whole queries.
    pub once: bool,
    /// One flow in so many ([`sample_hash`]); 0: all.
    ///
    /// [`sample_hash`]: hostdns_probe_ebpf::sample_hash
    pub sample: u32,
    /// Clients in namespaces that nobody has named yet are heard too.
    pub strangers: bool,
}

/// For a check they are bystanders: 30 000 events a second and CPU, of which 1500 costly (1.2 % of a CPU).
impl Default for Others {
    fn default() -> Self {
        Self { ring_bytes: 1 << 20, admitted: 2000, admitted_costly: 100, once: false, sample: 0, strangers: false }
    }
}

impl Others {
    /// They are what it is about: 250 000 events a second and CPU, which is some 20 % of it, and a ring that holds what
    /// comes in a fifth of a second at 20 000 queries a second.
    #[must_use]
    pub const fn everybody(sample: u32) -> Self {
        Self { ring_bytes: 1 << 22, admitted: 16_384, admitted_costly: 2048, once: true, sample, strangers: true }
    }
}

/// Which new devices to attach to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follow {
    /// Only those of the list, when they come back.
    #[default]
    Listed,
    /// `lxc*` and `cilium_*` too.
    Cilium,
    /// Every device.
    All,
}

/// A device to attach to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceToWatch {
    pub index: u32,
    pub name: String,
    /// Has no Ethernet header. The programs parse from the network header and need no telling; for the record.
    pub layer3: bool,
    /// A packet that it transmits has left the node: external, tunnel and encryption devices.
    pub exit: bool,
    /// `start` returns only when its hooks are on.
    pub needed: bool,
}

/// A running trace. Usable from several tasks; [`Tracer::recv`] wants one at a time.
pub struct Tracer {
    events: tokio::sync::Mutex<mpsc::Receiver<Event>>,
    own_ports: Mutex<OwnPorts>,
    namespaces: Mutex<HashMap<MapData, u64, u8>>,
    counts: PerCpuArray<MapData, Counts>,
    reader_counts: Arc<ReaderCounts>,
    hooks: Arc<Mutex<Vec<Hook>>>,
    devices: Option<Devices>,
    reader: Option<(OwnedFd, std::thread::JoinHandle<()>)>,
}

/// Ports of the check's own sockets, each with how many use it: two vantages may have the same.
struct OwnPorts {
    map: HashMap<MapData, u32, u8>,
    users: BTreeMap<u32, u32>,
}

impl Tracer {
    /// Loads and attaches. It returns when the sockets' hooks, the tracepoints and the `needed` interfaces are on; the
    /// others follow, paced, while the trace already runs.
    ///
    /// # Errors
    /// Nothing can work: the kernel takes no programs from us. A single hook that cannot be had is no error, but a
    /// line in [`Tracer::hooks`].
    pub async fn start(config: TraceConfig) -> Result<Self, Error> {
        // Threads of the runtime may be in other namespaces: this one's counts.
        let netns = Netns::current()?;
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || span.in_scope(|| Self::start_blocking(config, netns)))
            .await
            .map_err(|_panicked| Error::Thread)??
            .into_running()
            .await
    }

    fn start_blocking(config: TraceConfig, netns: Netns) -> Result<Starting, Error> {
        let began = Instant::now();
        let step = |what: &str| tracing::debug!(elapsed = ?began.elapsed(), "{what}");
        // Read once; aya goes through all of it for the tracepoints' ids, which is done beside the rest.
        let bytes = btf::read(config.btf.as_deref().unwrap_or(Path::new(btf::VMLINUX))).map(Arc::new);
        step("BTF read");
        let all = bytes.as_ref().map_err(ToString::to_string).map(Arc::clone);
        let btf = std::thread::spawn(move || {
            Btf::parse(&all?, aya::Endianness::default()).map_err(|error| load::chain(&error))
        });
        let kernel = bytes.and_then(|bytes| btf::Kernel::parse(&bytes));
        step("BTF understood");
        let loaded = load::load(&config.targets, &config.others, config.own_netns, kernel)?;
        step("maps made");
        let load::Loaded { mut ebpf, kernel, socket_netns } = loaded;
        let mut namespaces = take_hash::<u64, u8>(&mut ebpf, "NAMESPACES")?;
        for cookie in config.pod_netns.iter().chain([&config.own_netns]).filter(|&&cookie| cookie != 0) {
            namespaces.insert(cookie, 1, 0).map_err(|source| Error::Map { name: "NAMESPACES", source })?;
        }
        let mut exits = take_hash::<u32, u8>(&mut ebpf, "EXITS")?;
        for interface in config.interfaces.iter().filter(|interface| interface.exit) {
            exits.insert(interface.index, 1, 0).map_err(|source| Error::Map { name: "EXITS", source })?;
        }
        let map = take_hash(&mut ebpf, "OWN_PORTS")?;
        let own_ports = Mutex::new(OwnPorts { map, users: BTreeMap::new() });
        let counts = PerCpuArray::try_from(load::take(&mut ebpf, "COUNTS")?)
            .map_err(|source| Error::Map { name: "COUNTS", source })?;
        step("maps filled");
        let drop_reasons = kernel.as_ref().map(|kernel| kernel.drop_reasons.clone()).unwrap_or_default();
        let reader = Reader::new(&mut ebpf, drop_reasons)?;
        let reader_counts = reader.counts();
        let (stop, stopped) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
            .map_err(|error| Error::Reader(error.into()))
            .map(|(read, write)| (write, read))?;
        let (events, thread) = reader.spawn(stopped).map_err(Error::Reader)?;

        let hooks = Arc::new(Mutex::new(attach::sockets(&mut ebpf, config.cgroup_root.as_deref(), socket_netns)));
        step("sockets attached");
        let btf = btf.join().map_err(|_panicked| Error::Thread)?;
        step("BTF indexed");
        let tracepoints = attach::tracepoints(&mut ebpf, kernel.as_ref().map(|_| ()), btf);
        lock(&hooks).extend(tracepoints);
        step("tracepoints attached");
        let (ready, attached) = oneshot::channel();
        let devices = Devices::start(ebpf, exits, config, netns, Arc::clone(&hooks), ready).map_err(Error::Reader)?;
        let tracer = Self {
            events: tokio::sync::Mutex::new(events),
            own_ports,
            namespaces: Mutex::new(namespaces),
            counts,
            reader_counts,
            hooks,
            devices: Some(devices),
            reader: Some((stop, thread)),
        };
        Ok(Starting { tracer, attached })
    }

    /// From now on, events of the client port get a buffer of their own and are handed over at once. Call it before
    /// the first packet is sent.
    ///
    /// # Errors
    /// The map is full: over a thousand ports at a time.
    pub fn own_port(&self, transport: Transport, port: u16) -> Result<(), Error> {
        let OwnPorts { map, users } = &mut *lock(&self.own_ports);
        let key = port_key(transport, port);
        map.insert(key, 1, 0).map_err(|source| Error::Map { name: "OWN_PORTS", source })?;
        *users.entry(key).or_default() += 1;
        Ok(())
    }

    /// The other end of [`Tracer::own_port`].
    pub fn release_own_port(&self, transport: Transport, port: u16) {
        let OwnPorts { map, users } = &mut *lock(&self.own_ports);
        let key = port_key(transport, port);
        let Some(count) = users.get_mut(&key) else { return };
        *count -= 1;
        if *count == 0 {
            users.remove(&key);
            if let Err(error) = map.remove(&key) {
                tracing::debug!(%error, port, "a port could not be released");
            }
        }
    }

    /// Counts a further pod's namespace in.
    ///
    /// # Errors
    /// The map is full.
    pub fn add_netns(&self, cookie: u64) -> Result<(), Error> {
        lock(&self.namespaces).insert(cookie, 1, 0).map_err(|source| Error::Map { name: "NAMESPACES", source })
    }

    /// The other end of [`Tracer::add_netns`].
    pub fn remove_netns(&self, cookie: u64) {
        if let Err(error) = lock(&self.namespaces).remove(&cookie) {
            tracing::debug!(%error, cookie, "a namespace could not be left out");
        }
    }

    /// Attaches to one more device, in the background; [`Tracer::hooks`] says what came of it. One that is attached to
    /// already stays as it is.
    pub fn watch(&self, interface: InterfaceToWatch) {
        if let Some(devices) = &self.devices {
            devices.watch(interface);
        }
    }

    /// What became of the devices that [`Tracer::watch`] was asked for.
    #[must_use]
    pub fn outcomes(&self) -> Vec<(u32, Outcome)> {
        self.devices.as_ref().map_or_else(Vec::new, Devices::outcomes)
    }

    /// All attach points so far, in the order in which they were tried.
    #[must_use]
    pub fn hooks(&self) -> Vec<Hook> {
        lock(&self.hooks).clone()
    }

    /// The next event, by kernel time as long as the buffers are read within a millisecond of each other: sort what
    /// belongs together by `time_ns`. None: the reader has ended.
    pub async fn recv(&self) -> Option<Event> {
        self.events.lock().await.recv().await
    }

    /// The next events, at least one and at most `limit`, appended to `events`. 0: the reader has ended.
    pub async fn recv_many(&self, events: &mut Vec<Event>, limit: usize) -> usize {
        self.events.lock().await.recv_many(events, limit).await
    }

    /// Appends what is in the queue, without waiting for more.
    pub async fn take_queued(&self, events: &mut Vec<Event>) {
        let mut queue = self.events.lock().await;
        while let Ok(event) = queue.try_recv() {
            events.push(event);
        }
    }

    /// Boot clock, nanoseconds: what happened up to then is in the queue, or was. Silence means something only up to
    /// here: a starved machine may not have read on.
    #[must_use]
    pub fn read_until(&self) -> u64 {
        self.reader_counts.read_until.load(Ordering::Acquire)
    }

    /// Events of the check's own ports.
    #[must_use]
    pub fn counts(&self) -> EventCounts {
        let counts = self.kernel_counts();
        let lost = self.reader_counts.own_lost.load(Ordering::Relaxed);
        EventCounts { seen: counts.own_seen, lost: counts.own_lost + lost }
    }

    /// Queries that other flows' sockets sent over UDP, and how many of them were lost before they could be followed.
    #[must_use]
    pub fn queries(&self) -> EventCounts {
        let counts = self.kernel_counts();
        EventCounts { seen: counts.queries, lost: counts.queries_lost }
    }

    /// Events of everybody else's queries to the targets. Lost are also those that the rate limit held back.
    #[must_use]
    pub fn other_counts(&self) -> EventCounts {
        let counts = self.kernel_counts();
        let lost = self.reader_counts.other_lost.load(Ordering::Relaxed);
        EventCounts { seen: counts.other_seen, lost: counts.other_lost + lost }
    }

    fn kernel_counts(&self) -> Counts {
        let mut sum = Counts::default();
        match self.counts.get(&0, 0) {
            Ok(cpus) => {
                for counts in cpus.iter() {
                    sum.own_seen += counts.own_seen;
                    sum.own_lost += counts.own_lost;
                    sum.other_seen += counts.other_seen;
                    sum.other_lost += counts.other_lost;
                    sum.queries += counts.queries;
                    sum.queries_lost += counts.queries_lost;
                }
            }
            Err(error) => tracing::warn!(%error, "the counters cannot be read"),
        }
        sum
    }

    /// Detaches everything and waits for it: about 10 ms per device hook. Dropping the tracer does the same in the
    /// background, so that a verdict need not wait; the end of the process does it too.
    pub async fn detach(mut self) {
        let parts = (self.devices.take(), self.reader.take());
        if tokio::task::spawn_blocking(move || close(parts)).await.is_err() {
            tracing::warn!("a thread of the tracer panicked");
        }
    }
}

type Parts = (Option<Devices>, Option<(OwnedFd, std::thread::JoinHandle<()>)>);

fn close((devices, reader): Parts) {
    // The hooks first, so that nothing comes any more.
    drop(devices);
    if let Some((stop, thread)) = reader {
        drop(stop);
        let _ = thread.join();
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let parts = (self.devices.take(), self.reader.take());
        if parts.0.is_some() || parts.1.is_some() {
            std::thread::spawn(move || close(parts));
        }
    }
}

/// Everything but the devices is on.
struct Starting {
    tracer: Tracer,
    attached: oneshot::Receiver<()>,
}

impl Starting {
    async fn into_running(self) -> Result<Tracer, Error> {
        self.attached.await.map_err(|_ended| Error::Thread)?;
        Ok(self.tracer)
    }
}

const fn port_key(transport: Transport, port: u16) -> u32 {
    let transport = match transport {
        Transport::Udp => UDP,
        Transport::Tcp => TCP,
    };
    own_port_key(transport, port)
}

/// What the lock guards is whole after every step: a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
