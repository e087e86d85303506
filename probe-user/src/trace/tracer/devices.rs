//! The thread that attaches to devices, inside the node's namespace, and follows what comes and goes.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::oneshot;

use super::{Follow, InterfaceToWatch, TraceConfig, lock};
use crate::{
    netns::Netns,
    trace::{
        Hook,
        attach::{self, DeviceMode},
        clsact::Clsact,
        links::{Change, Links},
    },
};

/// One attach holds RTNL for about 12 ms. Between attaches that nobody waits for, others get as long a turn.
const PAUSE: Duration = Duration::from_millis(12);

/// The thread, and what ends it.
pub(super) struct Devices {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    outcomes: Arc<Mutex<Vec<(u32, Outcome)>>>,
    requests: mpsc::Sender<InterfaceToWatch>,
    wake: OwnedFd,
}

/// What became of a device that was asked for while the trace ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Covered,
    /// Gone before its turn came.
    Gone,
    /// There, and not to be attached to; the hooks say why.
    Refused,
}

/// Devices that somebody asks for while the trace runs.
struct Requests {
    queue: mpsc::Receiver<InterfaceToWatch>,
    /// Readable where there is one.
    woken: OwnedFd,
}

impl Devices {
    pub(super) fn start(
        ebpf: Ebpf,
        exits: HashMap<MapData, u32, u8>,
        config: TraceConfig,
        netns: Netns,
        hooks: Arc<Mutex<Vec<Hook>>>,
        ready: oneshot::Sender<()>,
    ) -> io::Result<Self> {
        use nix::fcntl::OFlag;
        let (stopped, stop) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (woken, wake) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let (requests, queue) = mpsc::channel();
        let outcomes = Arc::default();
        let told = Arc::clone(&outcomes);
        let thread = std::thread::Builder::new().name("trace-attach".into()).spawn(move || {
            let forced =
                config.force_clsact || std::env::var_os("HOSTDNS_PROBE_FORCE_CLSACT").is_some_and(|v| v == "1");
            let work = Work {
                ebpf,
                exits,
                config,
                hooks,
                mode: forced.then_some(DeviceMode::Clsact),
                clsact: Clsact::default(),
                attached: BTreeMap::new(),
                outcomes: told,
            };
            if let Err(error) = netns.run(move || work.run(&stopped, &Requests { queue, woken }, ready)) {
                tracing::warn!(%error, "no device can be attached to");
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread), outcomes, requests, wake })
    }

    /// What has become of devices since it was asked last, by index.
    pub(super) fn outcomes(&self) -> Vec<(u32, Outcome)> {
        std::mem::take(&mut *lock(&self.outcomes))
    }

    pub(super) fn watch(&self, interface: InterfaceToWatch) {
        // Where the thread has ended there is nobody to ask, and a full pipe wakes it as well as one more byte.
        if self.requests.send(interface).is_ok() {
            let _ = nix::unistd::write(&self.wake, &[1]);
        }
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A device with our programs on it.
struct Attached {
    name: String,
    /// Where they are links. Those of a device that is gone are closed: nobody else does.
    links: Vec<attach::Link>,
}

struct Work {
    ebpf: Ebpf,
    exits: HashMap<MapData, u32, u8>,
    config: TraceConfig,
    hooks: Arc<Mutex<Vec<Hook>>>,
    mode: Option<DeviceMode>,
    clsact: Clsact,
    /// What is attached to, by index.
    attached: BTreeMap<u32, Attached>,
    outcomes: Arc<Mutex<Vec<(u32, Outcome)>>>,
}

impl Work {
    fn run(mut self, stop: &OwnedFd, requests: &Requests, ready: oneshot::Sender<()>) {
        let began = Instant::now();
        let links = Links::listen()
            .inspect_err(|error| tracing::warn!(%error, "new devices are not followed: no link events"))
            .ok();
        if let Err(why) = attach::load_device_programs(&mut self.ebpf) {
            let hooks = self
                .config
                .interfaces
                .iter()
                .map(|interface| attach::hook("tcx", Some(&interface.name), Err(why.clone())));
            lock(&self.hooks).extend(hooks);
            let _ = ready.send(());
            return;
        }
        tracing::debug!(elapsed = ?began.elapsed(), "device programs loaded");
        let (needed, rest): (Vec<_>, Vec<_>) =
            self.config.interfaces.clone().into_iter().partition(|interface| interface.needed);
        for interface in &needed {
            self.attach(interface.index, &interface.name);
        }
        tracing::debug!(elapsed = ?began.elapsed(), interfaces = needed.len(), "needed devices attached");
        let _ = ready.send(());
        for interface in &rest {
            let began = Instant::now();
            self.attach(interface.index, &interface.name);
            if wait(stop, None, None, PAUSE.max(began.elapsed())) {
                return;
            }
        }
        loop {
            if wait(stop, Some(requests), links.as_ref(), Duration::from_secs(60)) {
                return;
            }
            // Pods are not made to wait for politeness when many come at once.
            let asked = requests.take();
            let pause = if asked.len() > 1 { Duration::ZERO } else { PAUSE };
            for interface in asked {
                self.attach_asked_for(&interface);
                if wait(stop, None, None, pause) {
                    return;
                }
            }
            for change in links.iter().flat_map(Links::changes) {
                self.follow(change);
            }
        }
    }

    /// True: at least one hook is on.
    fn attach(&mut self, index: u32, name: &str) -> bool {
        let (hooks, links) = attach::device(&mut self.ebpf, name, &mut self.mode, &mut self.clsact);
        let on = hooks.iter().any(|hook| hook.attached);
        if on {
            self.attached.insert(index, Attached { name: name.to_owned(), links });
        }
        lock(&self.hooks).extend(hooks);
        on
    }

    /// A device that somebody asked for. Of one that is gone meanwhile nothing is left but a word.
    fn attach_asked_for(&mut self, interface: &InterfaceToWatch) {
        let InterfaceToWatch { index, name, .. } = interface;
        let is_there = || nix::net::if_::if_nametoindex(name.as_str()).is_ok_and(|now| now == *index);
        let outcome = if self.attached.contains_key(index) || is_there() && self.attach(*index, name) {
            Outcome::Covered
        } else if is_there() {
            Outcome::Refused
        } else {
            lock(&self.hooks).retain(|hook| hook.attached || hook.interface.as_deref() != Some(name.as_str()));
            Outcome::Gone
        };
        lock(&self.outcomes).push((*index, outcome));
    }

    fn follow(&mut self, change: Change) {
        match change {
            Change::Gone { index } => {
                // Its links went with it; a device may come back under the same name.
                if let Some(Attached { name, links }) = self.attached.remove(&index) {
                    attach::detach(&mut self.ebpf, links);
                    let _ = self.exits.remove(&index);
                    let mut hooks = lock(&self.hooks);
                    if !self.config.interfaces.iter().any(|interface| interface.name == name) {
                        // A pod's: its name does not come back, and pods come and go without end.
                        hooks.retain(|hook| hook.interface.as_deref() != Some(name.as_str()));
                        return;
                    }
                    for hook in hooks.iter_mut().filter(|hook| hook.interface.as_deref() == Some(name.as_str())) {
                        hook.attached = false;
                        hook.reason = Some("the device is gone".to_owned());
                    }
                }
            }
            Change::Present { index, name } => {
                let listed = self.config.interfaces.iter().find(|interface| interface.name == name);
                let wanted = listed.is_some()
                    || match self.config.follow {
                        Follow::Listed => false,
                        Follow::Cilium => name.starts_with("lxc") || name.starts_with("cilium_"),
                        Follow::All => true,
                    };
                if !wanted || self.attached.contains_key(&index) {
                    return;
                }
                if listed.is_some_and(|InterfaceToWatch { exit, .. }| *exit)
                    && let Err(error) = self.exits.insert(index, 1, 0)
                {
                    tracing::warn!(%error, interface = name, "its transmissions are not seen");
                }
                lock(&self.hooks).retain(|hook| hook.attached || hook.interface.as_deref() != Some(name.as_str()));
                self.attach(index, &name);
            }
            Change::Overrun => match nix::net::if_::if_nameindex() {
                Ok(interfaces) => {
                    let present: Vec<_> = interfaces
                        .iter()
                        .map(|interface| (interface.index(), interface.name().to_string_lossy().into_owned()))
                        .collect();
                    let gone: Vec<u32> = self
                        .attached
                        .keys()
                        .filter(|&index| !present.iter().any(|(i, _)| i == index))
                        .copied()
                        .collect();
                    gone.into_iter().for_each(|index| self.follow(Change::Gone { index }));
                    present.into_iter().for_each(|(index, name)| self.follow(Change::Present { index, name }));
                }
                Err(error) => tracing::warn!(%error, "link events were lost, and devices cannot be listed"),
            },
        }
    }
}

impl Requests {
    fn take(&self) -> Vec<InterfaceToWatch> {
        let mut bytes = [0; 64];
        while nix::unistd::read(&self.woken, &mut bytes).is_ok_and(|read| read == bytes.len()) {}
        self.queue.try_iter().collect()
    }
}

/// Waits for link events at most as long as `patience`. True: the tracer is being closed.
fn wait(stop: &OwnedFd, requests: Option<&Requests>, links: Option<&Links>, patience: Duration) -> bool {
    let mut fds = vec![PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
    fds.extend(requests.map(|requests| PollFd::new(requests.woken.as_fd(), PollFlags::POLLIN)));
    fds.extend(links.map(|links| PollFd::new(links.as_fd(), PollFlags::POLLIN)));
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) => fds[0].any().unwrap_or(true),
        Err(nix::Error::EINTR) => false,
        Err(error) => {
            tracing::warn!(%error, "new devices are no longer followed");
            true
        }
    }
}
