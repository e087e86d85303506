//! Attaches the programs, cheapest cover first. A hook that cannot be had is a line of the report, not an error.

use std::{fs::File, path::Path};

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, LinkOrder, Program, ProgramError,
        SchedClassifier, TcAttachType,
        tc::{SchedClassifierLinkId, TcAttachOptions},
    },
};

use super::{Hook, btf, clsact, load};

/// A direction of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Ingress,
    Egress,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Ingress => "hostdns_ingress",
            Self::Egress => "hostdns_egress",
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    pub(crate) const fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }
}

/// How device programs are attached; found out by trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceMode {
    Tcx,
    Clsact,
}

/// Boot clock, nanoseconds: what `bpf_ktime_get_boot_ns` says.
#[must_use]
pub fn boot_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call.
    if unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) } != 0 {
        return 0;
    }
    let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// The line of the report for an attempt to attach.
pub(crate) fn hook(name: &str, interface: Option<&str>, result: Result<Option<String>, String>) -> Hook {
    let attached = result.is_ok();
    let reason = result.unwrap_or_else(Some);
    if let (false, Some(reason)) = (attached, &reason) {
        tracing::debug!(hook = name, interface, reason, "not attached");
    }
    let interface = interface.map(str::to_owned);
    Hook { name: name.to_owned(), interface, attached, reason, since_ns: if attached { boot_ns() } else { 0 } }
}

/// Both socket hooks, at the root of cgroup v2. Whoever gathers facts looks for it; without it they are not attached.
pub(crate) fn sockets(ebpf: &mut Ebpf, root: Option<&Path>, netns_known: bool) -> Vec<Hook> {
    let mut attach = |name: &str, side: CgroupSkbAttachType| -> Result<Option<String>, String> {
        let root = root.ok_or(
            "the root of cgroup v2 is not known (--cgroup-root names it); sockets' own view of packets is missing",
        )?;
        let file = File::open(root).map_err(|error| format!("cannot open cgroup v2 at {}: {error}", root.display()))?;
        let program: &mut CgroupSkb = program(ebpf, name)?;
        // aya 0.14 passes a mode other than Single on as a flag that links do not take; links coexist anyway.
        program
            .load()
            .and_then(|()| program.attach(file, side, CgroupAttachMode::Single))
            .map_err(|error| format!("{}; sockets' own view of packets is missing", load::short(&error)))?;
        Ok((!netns_known).then(|| "this kernel does not tell the socket's namespace (Linux 6.15 does)".to_owned()))
    };
    let egress = attach("hostdns_sockout", CgroupSkbAttachType::Egress);
    let ingress = attach("hostdns_sockin", CgroupSkbAttachType::Ingress);
    vec![hook("cgroup_skb egress", None, egress), hook("cgroup_skb ingress", None, ingress)]
}

/// Both tracepoints.
pub(crate) fn tracepoints(ebpf: &mut Ebpf, kernel: Result<(), &btf::Error>, btf: Result<Btf, String>) -> Vec<Hook> {
    let mut attach = |name: &str, tracepoint: &str| -> Result<Option<String>, String> {
        kernel.map_err(ToString::to_string)?;
        let btf = btf.as_ref().map_err(Clone::clone)?;
        let program: &mut BtfTracePoint = program(ebpf, name)?;
        program.load(tracepoint, btf).and_then(|()| program.attach().map(drop)).map_err(|error| load::short(&error))?;
        Ok(None)
    };
    let drops = attach("hostdns_drop", "kfree_skb")
        .map_err(|why| format!("{why}; where a packet dies is not seen, only that it was not seen again"));
    let transmits = attach("hostdns_xmit", "net_dev_start_xmit")
        .map_err(|why| format!("{why}; as whom a packet leaves is unknown"));
    vec![hook("tp_btf kfree_skb", None, drops), hook("tp_btf net_dev_start_xmit", None, transmits)]
}

/// Hands both device programs to the kernel.
pub(crate) fn load_device_programs(ebpf: &mut Ebpf) -> Result<(), String> {
    for side in Side::BOTH {
        let program: &mut SchedClassifier = program(ebpf, side.program())?;
        program.load().map_err(|error| load::short(&error))?;
    }
    Ok(())
}

/// One device, both directions, in the calling thread's namespace. The first attempt decides `mode`.
pub(crate) fn device(
    ebpf: &mut Ebpf,
    name: &str,
    mode: &mut Option<DeviceMode>,
    clsact: &mut clsact::Clsact,
) -> (Vec<Hook>, Vec<Link>) {
    let (mut hooks, mut links) = (Vec::new(), Vec::new());
    for side in Side::BOTH {
        let label = |mode| match mode {
            Some(DeviceMode::Clsact) => format!("clsact {}", side.as_str()),
            _ => format!("tcx {}", side.as_str()),
        };
        let result = device_side(ebpf, name, side, mode, clsact, &mut links);
        hooks.push(hook(&label(*mode), Some(name), result));
    }
    (hooks, links)
}

/// A program on a device.
pub(crate) type Link = (Side, SchedClassifierLinkId);

/// Closes links; those of a device that is gone hold nothing any more but a descriptor.
pub(crate) fn detach(ebpf: &mut Ebpf, links: Vec<Link>) {
    for (side, link) in links {
        let detached = program(ebpf, side.program())
            .and_then(|program: &mut SchedClassifier| program.detach(link).map_err(|error| load::short(&error)));
        if let Err(error) = detached {
            tracing::debug!(error, "a link could not be closed");
        }
    }
}

fn device_side(
    ebpf: &mut Ebpf,
    name: &str,
    side: Side,
    mode: &mut Option<DeviceMode>,
    clsact: &mut clsact::Clsact,
    links: &mut Vec<Link>,
) -> Result<Option<String>, String> {
    let program: &mut SchedClassifier = program(ebpf, side.program())?;
    if *mode != Some(DeviceMode::Clsact) {
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        match program.attach_with_options(name, side.attach_type(), options) {
            Ok(link) => {
                links.push((side, link));
                *mode = Some(DeviceMode::Tcx);
                return Ok(None);
            }
            Err(error) if mode.is_none() && tcx_is_missing(&error) => *mode = Some(DeviceMode::Clsact),
            Err(error) => return Err(format!("{}; packets on it are not seen", load::short(&error))),
        }
    }
    clsact.attach(program, name, side).map_err(|error| format!("{error}; packets on it are not seen"))?;
    Ok(Some("this kernel has no tcx (Linux 6.6 does): a clsact filter at priority 1".to_owned()))
}

/// Before Linux 6.6 the attach type is unknown: EINVAL. With CONFIG_NET_XGRESS off: EINVAL or EOPNOTSUPP.
fn tcx_is_missing(error: &ProgramError) -> bool {
    let ProgramError::SyscallError(error) = error else { return false };
    matches!(error.io_error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| format!("the eBPF object has no program {name}; build again"))?
        .try_into()
        .map_err(|error: ProgramError| error.to_string())
}
