//! Devices before tcx (Linux 6.6): classic filters on a clsact qdisc. They outlive their process, so a [guardian]
//! removes them, and the next start does where that was killed too.
//!
//! [guardian]: super::guardian

use std::os::{
    fd::OwnedFd,
    linux::net::SocketAddrExt as _,
    unix::net::{SocketAddr, UnixDatagram},
};

use aya::programs::{
    SchedClassifier,
    tc::{NlOptions, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact, qdisc_detach_program},
};

use super::{
    attach::Side,
    guardian::{self, Guardian},
    load,
};

/// Cilium's filters have priority 1 too, and within one priority the newest filter runs first. aya's default would
/// become 49152: behind Cilium's, whose verdict ends the chain, so it would never see a packet.
pub(crate) const PRIORITY: u16 = 1;

/// "HD": the upper half of our handles, where the qdisc was there before us. The lower half tells instances apart.
const ON_FOUND: u16 = 0x4844;

/// "HQ": the same, where the qdisc is one that we made. A clsact qdisc itself can bear no mark (its handle is always
/// ffff:, net/sched/sch_api.c), so the filters tell whoever finds them left over.
const ON_OURS: u16 = 0x4851;

/// Handle of a filter of this instance.
pub(crate) const fn handle(instance: u16, qdisc_is_ours: bool) -> u32 {
    (if qdisc_is_ours { ON_OURS } else { ON_FOUND } as u32) << 16 | instance as u32
}

/// Abstract socket names are per network namespace: whoever holds this one may remove filters that look left over.
const LOCK: &[u8] = b"hostdns-probe-clsact";

/// The clsact side of a tracer; empty until it is needed.
#[derive(Default)]
pub(crate) struct Clsact {
    guardian: Option<Guardian>,
    /// Some: no other instance works in this namespace.
    lock: Option<OwnedFd>,
    /// Device last worked on, and whether its qdisc is ours.
    prepared: Option<(String, bool)>,
}

impl Clsact {
    /// Adds a filter, in the calling thread's namespace.
    pub(crate) fn attach(&mut self, program: &mut SchedClassifier, name: &str, side: Side) -> Result<(), String> {
        let instance = instance();
        if self.guardian.is_none() {
            self.lock = lock();
            let guardian = Guardian::start(instance, self.lock.as_ref())
                .map_err(|error| format!("cannot start the guardian that would remove the clsact filters: {error}"))?;
            self.guardian = Some(guardian);
        }
        let index = nix::net::if_::if_nametoindex(name).map_err(|error| format!("no interface {name}: {error}"))?;
        let ours = match &self.prepared {
            Some((prepared, ours)) if prepared == name => *ours,
            _ => {
                // Made by an instance that was killed, or by one that runs beside us: whoever goes last removes it.
                let made = made_by_us(index);
                if self.lock.is_some() {
                    remove_leftovers(name);
                }
                let ours = add_qdisc(name)? || made;
                self.prepared = Some((name.to_owned(), ours));
                ours
            }
        };
        // The guardian knows before the filter is there: no moment in which a kill would leave it behind.
        if let Some(guardian) = &self.guardian {
            guardian.watch(index, side, ours).map_err(|error| format!("the clsact guardian is gone: {error}"))?;
        }
        let handle = TcHandle::from(handle(instance, ours));
        let options = NlOptions { priority: PRIORITY, handle, classid: None };
        program
            .attach_with_options(name, side.attach_type(), TcAttachOptions::Netlink(options))
            .map(drop)
            .map_err(|error| load::short(&error))
    }
}

/// The low half of the process id; 0 would be no handle of ours.
fn instance() -> u16 {
    u16::try_from(std::process::id() & 0xffff).unwrap_or(1).max(1)
}

/// The device's qdisc bears filters that say so.
fn made_by_us(index: u32) -> bool {
    let mut made = false;
    if let Err(error) = guardian::filters(index, &mut |handle| made |= handle >> 16 == u32::from(ON_OURS)) {
        tracing::debug!(%error, index, "whose qdisc this is stays unknown; it is left alone");
    }
    made
}

fn lock() -> Option<OwnedFd> {
    let address = SocketAddr::from_abstract_name(LOCK).ok()?;
    UnixDatagram::bind_addr(&address).ok().map(Into::into)
}

/// True: it was not there before. It is left alone otherwise.
fn add_qdisc(name: &str) -> Result<bool, String> {
    match qdisc_add_clsact(name) {
        Ok(()) => Ok(true),
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(format!("cannot add a clsact qdisc to {name}: {}", load::chain(&error))),
    }
}

/// Removes filters of a killed instance, known by their programs' names.
pub(crate) fn remove_leftovers(name: &str) {
    for side in Side::BOTH {
        match qdisc_detach_program(name, side.attach_type(), side.program()) {
            Ok(()) => tracing::info!(interface = name, side = side.as_str(), "removed a filter that a killed run left"),
            Err(error) => tracing::trace!(interface = name, %error, "no filter left over"),
        }
    }
}
