//! Cilium's agent as far as the probe asks it: `GET /v1/healthz` and `GET /v1/config` on a unix socket, answered as the
//! version of the lab would. The bodies start from recorded ones (`agent/*.json`), trimmed; [`answers`] fills them in.

mod answers;
mod http;
pub(super) mod settings;

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    thread::JoinHandle,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{UnlinkatFlags, unlinkat},
};

use crate::lab::spec::DatapathConfig;

/// Why the agent's API could not be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on the agent's socket {path}: {source}; its directory must exist and hold no such socket")]
    Listen { path: PathBuf, source: io::Error },
    #[error("cannot start the agent's thread: {0}")]
    Thread(io::Error),
    #[error("a recorded body of the agent does not parse: {0}; rebuild from a clean tree")]
    Template(#[from] serde_json::Error),
}

/// The API, served as long as this lives.
#[derive(Debug)]
pub struct Agent {
    /// Closing it is the signal to end.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
    /// The socket's directory and name: its path may mean something else where this is dropped.
    directory: OwnedFd,
    name: OsString,
}

impl Agent {
    /// Listens on `config.agent_socket`, in the calling thread's mount namespace. The directory is made if need be.
    ///
    /// # Errors
    /// The socket cannot be bound.
    pub fn serve(config: &DatapathConfig) -> Result<Self, Error> {
        let path = &config.agent_socket;
        let failed = |source| Error::Listen { path: path.clone(), source };
        let bodies = http::Bodies { healthz: answers::healthz(config)?, config: answers::config(config)? };
        let parent = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(parent).map_err(failed)?;
        let directory = File::open(parent).map_err(failed)?.into();
        let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?.to_owned();
        let listener = UnixListener::bind(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let (stop, stopped) = UnixStream::pair().map_err(Error::Thread)?;
        let mut agent = Self { stop: Some(stop), thread: None, directory, name };
        agent.thread = Some(
            std::thread::Builder::new()
                .name("lab-agent".into())
                .spawn(move || accept(&listener, &stopped, &bodies))
                .map_err(Error::Thread)?,
        );
        Ok(agent)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic there has already been printed.
            let _panicked = thread.join();
        }
        // Already gone is as good.
        let _gone = unlinkat(&self.directory, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir);
    }
}

/// Answers one connection after the other: the probe has one at a time, and each is over within
/// [`http::TIMEOUT`].
fn accept(listener: &UnixListener, stopped: &UnixStream, bodies: &http::Bodies) {
    loop {
        let mut fds =
            [PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::Error::EINTR) => continue,
            Err(error) => {
                tracing::warn!("the lab's agent stopped listening: {error}");
                return;
            }
        }
        if fds[1].any().unwrap_or(true) {
            return;
        }
        match listener.accept() {
            Ok((stream, _)) => {
                if let Err(error) = http::answer(&stream, bodies) {
                    tracing::debug!("the lab's agent could not answer: {error}");
                }
            }
            Err(error) => tracing::debug!("the lab's agent could not accept: {error}"),
        }
    }
}
