//! The lab's datapath: attaches our model of Cilium's, keeps its maps as an agent would, and answers for the agent.
//!
//! Everything belongs to the process: links, maps and threads go with it. Pins and the socket are in the lab's own
//! directories and are removed through file descriptors, so it does not matter which namespaces the dropping thread
//! is in.

mod addresses;
mod follower;
mod netkit;
mod programs;
mod settings;
mod state;
mod tables;

use std::{io, path::PathBuf};

pub use settings::effective_host_routing;

use crate::lab::{
    agent::{self, Agent},
    spec::DatapathConfig,
};

/// Why the datapath could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("loading the lab's datapath failed: {0}; it needs CAP_BPF, CAP_NET_ADMIN and BTF in the kernel")]
    Load(#[from] aya::EbpfError),
    #[error("this binary was built without its eBPF programs; run `cargo xtask setup` and build again")]
    BuiltWithout,
    #[error("the lab's eBPF object has no {kind} {name}; rebuild with `cargo xtask build`")]
    Missing { kind: &'static str, name: &'static str },
    /// The source carries the verifier's log.
    #[error("the kernel refused program {name}: {source}")]
    Verifier { name: &'static str, source: aya::programs::ProgramError },
    #[error("cannot attach {name} to {interface}: {source}; tcx needs Linux 6.6 and the device in this namespace")]
    Attach { name: &'static str, interface: String, source: aya::programs::ProgramError },
    #[error("cannot use map {name}: {source}")]
    Map { name: &'static str, source: aya::maps::MapError },
    #[error("cannot pin {path}: {source}; mount a bpffs there, and remove pins of an earlier lab")]
    Pin { path: PathBuf, source: aya::pin::PinError },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("rtnetlink: {what}: {source}")]
    Netlink { what: &'static str, source: io::Error },
    #[error("the node's addresses cannot be read: {0}")]
    Addresses(String),
    #[error("a lab has one or two external devices, not {0}")]
    Devices(usize),
    #[error(transparent)]
    Agent(#[from] agent::Error),
}

/// A node's datapath, attached as long as this lives.
#[derive(Debug)]
pub struct Datapath {
    // In the order of dismantling: first who writes, then what is written to.
    _agent: Agent,
    _follower: follower::Follower,
    _programs: programs::Programs,
}

impl Datapath {
    /// Attaches to the devices of `config`, pins the maps, starts to follow the node's addresses and answers on the
    /// agent's socket. Call it on a thread in the node's network and mount namespaces.
    ///
    /// When it returns, the maps already hold the node's addresses.
    ///
    /// # Errors
    /// A device, the bpffs or a privilege is missing; see [`Error`].
    pub fn attach(config: &DatapathConfig) -> Result<Self, Error> {
        let addresses = addresses::dump()?;
        let mut programs = programs::Programs::load(&settings::abi(config, &addresses)?)?;
        let tables = programs.tables(config)?;
        // The maps are filled before the first packet can ask them.
        let follower = follower::Follower::start(config, tables)?;
        programs.attach(config)?;
        state::write(config)?;
        let agent = Agent::serve(config)?;
        Ok(Self { _agent: agent, _follower: follower, _programs: programs })
    }
}

#[cfg(test)]
pub(crate) use settings::tests::config as tests_config;
