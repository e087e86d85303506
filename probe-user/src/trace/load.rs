//! Loads the programs: what the kernel can do is asked, never guessed from its version.

use std::net::IpAddr;

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{HashMap, Map, MapData, MapError},
    programs::{ProgramError, ProgramType},
    sys::{BpfHelper, is_helper_supported},
};
use hostdns_probe_ebpf::MAX_TARGETS;

use super::{btf, tracer::Others};
use crate::target::Targets;

/// Why nothing can be traced at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot load the eBPF programs: {}; they need CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_ADMIN (run as \
         root, or as a privileged container)", chain(.0)
    )]
    Load(#[source] EbpfError),
    #[error("this binary was built without its eBPF programs; run `cargo xtask setup` and build again")]
    BuiltWithout,
    #[error("the eBPF object has no {0}: it was built from other sources than this program; build again")]
    Missing(&'static str),
    #[error("cannot use the eBPF map {name}: {source}")]
    Map { name: &'static str, source: MapError },
    #[error("{0} target addresses of one family; at most {MAX_TARGETS} can be traced: name fewer")]
    TooManyTargets(usize),
    #[error("cannot work in this network namespace: {0}")]
    Netns(#[from] crate::netns::Error),
    #[error("cannot make the reader: {0}")]
    Reader(#[source] std::io::Error),
    #[error("a thread of the tracer ended early; the log says why")]
    Thread,
}

/// An error with its causes: what the kernel said stands at the end, the verifier's log with it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// The eBPF object, with what is known of the kernel it was loaded into.
pub(crate) struct Loaded {
    pub(crate) ebpf: Ebpf,
    /// Why the tracepoints cannot be used, or what they need.
    pub(crate) kernel: Result<btf::Kernel, btf::Error>,
    /// cgroup_skb programs know their namespace.
    pub(crate) socket_netns: bool,
}

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probe"));

/// Creates the maps; each program is handed to the kernel when it is attached.
pub(crate) fn load(
    targets: &Targets,
    others: &Others,
    own_netns: u64,
    kernel: Result<btf::Kernel, btf::Error>,
) -> Result<Loaded, Error> {
    if cfg!(hostdns_no_ebpf) {
        return Err(Error::BuiltWithout);
    }
    let (mut v4, mut v6) = ([0_u32; MAX_TARGETS], [0_u64; 2 * MAX_TARGETS]);
    let (mut v4_len, mut v6_len) = (0, 0);
    for address in &targets.addresses {
        match address {
            IpAddr::V4(address) => {
                let slot = v4.get_mut(v4_len).ok_or(Error::TooManyTargets(targets.addresses.len()))?;
                *slot = u32::from_ne_bytes(address.octets());
                v4_len += 1;
            }
            IpAddr::V6(address) => {
                let slots = v6.chunks_exact_mut(2).nth(v6_len).ok_or(Error::TooManyTargets(targets.addresses.len()))?;
                let octets = address.octets();
                for (slot, half) in slots.iter_mut().zip(octets.chunks_exact(8)) {
                    *slot = half.try_into().map_or(0, u64::from_ne_bytes);
                }
                v6_len += 1;
            }
        }
    }
    let offsets = kernel.as_ref().map(|kernel| kernel.offsets).unwrap_or_default();
    // Linux 6.15 gave it to cgroup_skb; what cannot be asked is taken for absent.
    let socket_netns = is_helper_supported(ProgramType::CgroupSkb, BpfHelper::BPF_FUNC_get_netns_cookie)
        .inspect_err(|error| tracing::debug!(%error, "cannot ask for bpf_get_netns_cookie in cgroup_skb"))
        .unwrap_or(false);
    // aya-log's levels: 2 is warn. Nothing below it is compiled in; without a listener it need not run.
    let log_level = if log_enabled() { 2_u8 } else { 0 };
    let have_cookie = u8::from(socket_netns);
    let (once, strangers) = (u8::from(others.once), u8::from(others.strangers));
    // A quarter is kept for what belongs to queries that were let in.
    let room = if others.once { u64::from(others.ring_bytes) / 4 * 3 } else { 0 };
    tracing::debug!("the kernel's helpers asked for");
    let ebpf = EbpfLoader::new()
        // No CO-RE relocations in these programs: reading the kernel's BTF once, ourselves, is enough.
        .btf(None)
        .override_global("TARGETS_V4", &v4[..], true)
        .override_global("TARGETS_V6", &v6[..], true)
        .override_global("TARGET_PORT", &targets.port, true)
        .override_global("OWN_NETNS", &own_netns, true)
        .override_global("HAVE_NETNS_COOKIE", &have_cookie, true)
        .override_global("SKB_DEV", &offsets.skb_dev, true)
        .override_global("SKB_LEN", &offsets.skb_len, true)
        .override_global("DEV_IFINDEX", &offsets.dev_ifindex, true)
        .override_global("DEV_NET", &offsets.dev_net, true)
        .override_global("NET_COOKIE", &offsets.net_cookie, true)
        .override_global("ADMITTED", &others.admitted, true)
        .override_global("ADMITTED_COSTLY", &others.admitted_costly, true)
        .override_global("ONCE", &once, true)
        .override_global("SAMPLE", &others.sample, true)
        .override_global("STRANGERS", &strangers, true)
        .override_global("ROOM", &room, true)
        .map_max_entries("OTHER_EVENTS", others.ring_bytes)
        .override_global("AYA_LOG_LEVEL", &log_level, false)
        .load(OBJECT)
        .map_err(Error::Load)?;
    Ok(Loaded { ebpf, kernel, socket_netns })
}

fn log_enabled() -> bool {
    tracing::enabled!(tracing::Level::WARN)
}

/// Takes a map out of the object.
pub(crate) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, Error> {
    ebpf.take_map(name).ok_or(Error::Missing(name))
}

/// Takes a hash map out of the object.
pub(crate) fn take_hash<K: aya::Pod, V: aya::Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<HashMap<MapData, K, V>, Error> {
    HashMap::try_from(take(ebpf, name)?).map_err(|source| Error::Map { name, source })
}

/// A short reason for the report; the verifier's log goes to the debug log.
pub(crate) fn short(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        tracing::debug!(%verifier_log, "the verifier refused a program");
        return format!("the kernel refused the program: {io_error} (-vv shows the verifier's log)");
    }
    chain(error)
}
