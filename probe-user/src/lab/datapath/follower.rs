//! Keeps the maps current with the node's addresses, by events.

use std::{collections::BTreeSet, net::IpAddr, os::fd::AsFd, os::unix::net::UnixStream, thread::JoinHandle};

use netlink_sys::Socket;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Error, addresses, tables::Tables};
use crate::lab::spec::DatapathConfig;

/// A thread in the node's network namespace; ends when this is dropped.
#[derive(Debug)]
pub(super) struct Follower {
    /// Closing it is the signal to end.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Fills the maps, then follows. The thread inherits the caller's namespaces.
    pub(super) fn start(config: &DatapathConfig, tables: Tables) -> Result<Self, Error> {
        let failed = |what| move |source| Error::Netlink { what, source };
        // Subscribed before the first dump: nothing falls in between.
        let events = addresses::subscribe()?;
        let mut state = State { config: config.clone(), tables, hosts: BTreeSet::new() };
        state.sync()?;
        let (stop, stopped) = UnixStream::pair().map_err(failed("making the stop signal"))?;
        let thread = std::thread::Builder::new()
            .name("lab-addresses".into())
            .spawn(move || follow(&mut state, &events, &stopped))
            .map_err(failed("starting the thread that follows addresses"))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic there has already been printed.
            let _panicked = thread.join();
        }
    }
}

struct State {
    config: DatapathConfig,
    tables: Tables,
    /// What the maps hold as the host's addresses.
    hosts: BTreeSet<IpAddr>,
}

impl State {
    fn sync(&mut self) -> Result<(), Error> {
        let wanted = addresses::known_to_cilium(&self.config, &addresses::dump()?);
        for gone in self.hosts.difference(&wanted) {
            self.tables.remove_host(*gone)?;
        }
        for new in wanted.difference(&self.hosts) {
            self.tables.add_host(*new)?;
        }
        self.hosts = wanted;
        Ok(())
    }
}

fn follow(state: &mut State, events: &Socket, stopped: &UnixStream) {
    loop {
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLIN), PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::Error::EINTR) => continue,
            Err(error) => {
                tracing::warn!("the lab stopped following the node's addresses: {error}");
                return;
            }
        }
        if fds[1].any().unwrap_or(true) {
            return;
        }
        if let Err(error) = addresses::drain(events).and_then(|()| state.sync()) {
            tracing::warn!("the lab's maps may be behind the node's addresses: {error}");
        }
    }
}
