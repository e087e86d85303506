//! Loading the eBPF object, attaching its programs where Cilium has them, pinning its maps.

use std::{
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, LpmTrie, Map, MapError, lpm_trie::Key},
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{NlOptions, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
    },
};
use hostdns_probe_ebpf::datapath_abi::Config;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{
    Error, netkit,
    tables::{Ipcache, Lxc, Tables, endpoint_key},
};
use crate::lab::spec::{CiliumVersion, DatapathConfig};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/datapath"));

/// All of Cilium's names; each is loaded once, whether or not a device needs it.
const PROGRAMS: [&str; 8] = [
    "cil_from_container",
    "cil_to_container",
    "cil_from_netdev",
    "cil_to_netdev",
    "cil_from_host",
    "cil_to_host",
    "cil_from_overlay",
    "cil_to_overlay",
];

/// 169.254.0.0/16, what ip-masq-agent exempts unless told `masqLinkLocal`.
const LINK_LOCAL: ([u8; 4], u32) = ([169, 254, 0, 0], 16);

/// The loaded object with its links.
#[derive(Debug)]
pub(super) struct Programs {
    ebpf: Ebpf,
    pins: Pins,
    /// Links into netkit devices.
    netkit: Vec<OwnedFd>,
}

/// Pinned maps, removed by descriptor of their directory: the dropping thread may be in another mount namespace, where
/// the same path is somebody else's.
#[derive(Debug, Default)]
struct Pins {
    directory: Option<OwnedFd>,
    names: Vec<&'static str>,
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Some(directory) = &self.directory {
            for name in &self.names {
                // Somebody else was faster; gone is gone.
                let _gone = unlinkat(directory, *name, UnlinkatFlags::NoRemoveDir);
            }
        }
    }
}

impl Programs {
    pub(super) fn load(config: &Config) -> Result<Self, Error> {
        if cfg!(hostdns_no_ebpf) {
            return Err(Error::BuiltWithout);
        }
        let mut ebpf = EbpfLoader::new().override_global("CONFIG", config, true).load(OBJECT)?;
        for name in PROGRAMS {
            program(&mut ebpf, name)?.load().map_err(|source| Error::Verifier { name, source })?;
        }
        Ok(Self { ebpf, pins: Pins::default(), netkit: Vec::new() })
    }

    /// Pins the maps of this version and fills those that userspace writes.
    pub(super) fn tables(&mut self, config: &DatapathConfig) -> Result<Tables, Error> {
        let cilium = &config.cilium;
        let globals = config.bpf_root.join("tc/globals");
        std::fs::create_dir_all(&globals).map_err(|source| Error::Write { path: globals.clone(), source })?;
        let directory = File::open(&globals).map_err(|source| Error::Write { path: globals.clone(), source })?;
        self.pins.directory = Some(directory.into());

        let new_layout = cilium.version >= CiliumVersion::V1_18_1;
        let (ipcache, unused) =
            if new_layout { ("cilium_ipcache_v2", "cilium_ipcache") } else { ("cilium_ipcache", "cilium_ipcache_v2") };
        drop(self.take(unused)?);
        let mut pinned = vec!["cilium_lxc", ipcache, "cilium_metrics", "cilium_snat_v4_external"];
        if cilium.ip_masq_agent {
            pinned.push("cilium_ipmasq_v4");
        }
        for name in pinned {
            self.pin(&globals, name)?;
        }

        if cilium.ip_masq_agent {
            let name = "cilium_ipmasq_v4";
            let mut exempt: LpmTrie<_, [u8; 4], u8> = self.typed(name)?;
            let (prefix, length) = LINK_LOCAL;
            exempt.insert(&Key::new(length, prefix), 1, 0).map_err(|source| Error::Map { name, source })?;
        }
        if cilium.policy_denies {
            let name = "lab_policy_deny";
            let mut denied: HashMap<_, _, u8> = self.typed(name)?;
            for ip in &config.host_dns {
                denied.insert(endpoint_key(*ip), 1, 0).map_err(|source| Error::Map { name, source })?;
            }
        }
        let lxc: Lxc = self.typed("cilium_lxc")?;
        let ipcache = if new_layout { Ipcache::V2(self.typed(ipcache)?) } else { Ipcache::V1(self.typed(ipcache)?) };
        Tables::fill(lxc, ipcache, config)
    }

    fn take(&mut self, name: &'static str) -> Result<Map, Error> {
        self.ebpf.take_map(name).ok_or(Error::Missing { kind: "map", name })
    }

    fn typed<M: TryFrom<Map, Error = MapError>>(&mut self, name: &'static str) -> Result<M, Error> {
        self.take(name)?.try_into().map_err(|source| Error::Map { name, source })
    }

    fn pin(&mut self, globals: &Path, name: &'static str) -> Result<(), Error> {
        let path: PathBuf = globals.join(name);
        let map = self.ebpf.map(name).ok_or(Error::Missing { kind: "map", name })?;
        map.pin(&path).map_err(|source| Error::Pin { path, source })?;
        self.pins.names.push(name);
        Ok(())
    }

    /// Where Cilium has its programs with tcx, in the order that it attaches them: last in the chain. On a kernel
    /// without tcx (before 6.6), as Cilium does there.
    pub(super) fn attach(&mut self, config: &DatapathConfig) -> Result<(), Error> {
        use TcAttachType::{Egress, Ingress};
        let host = config.cilium_host.name.as_str();
        let mut hooks = vec![
            ("cil_to_host", host, Ingress),
            ("cil_from_host", host, Egress),
            ("cil_to_host", config.cilium_net.name.as_str(), Ingress),
        ];
        for device in &config.external {
            hooks.extend([("cil_from_netdev", device.name.as_str(), Ingress), ("cil_to_netdev", &device.name, Egress)]);
        }
        if let Some(device) = &config.overlay {
            hooks.extend([
                ("cil_from_overlay", device.name.as_str(), Ingress),
                ("cil_to_overlay", &device.name, Egress),
            ]);
        }
        for endpoint in &config.endpoints {
            let device = endpoint.device.name.as_str();
            let mut pod = vec![("cil_from_container", Ingress)];
            if config.cilium.endpoint_routes {
                pod.push(("cil_to_container", Egress));
            }
            if config.cilium.netkit {
                for (name, side) in pod {
                    let program = program(&mut self.ebpf, name)?;
                    let link = netkit::attach(program, endpoint.device.index, side)
                        .map_err(|source| Error::Attach { name, interface: device.to_owned(), source })?;
                    self.netkit.push(link);
                }
            } else {
                hooks.extend(pod.into_iter().map(|(name, side)| (name, device, side)));
            }
        }
        // For tests of what a kernel without tcx would have, as with the probe's own hooks.
        let mut tcx = std::env::var_os("HOSTDNS_PROBE_FORCE_CLSACT").is_none_or(|value| value != "1");
        for (name, interface, side) in hooks {
            let program = program(&mut self.ebpf, name)?;
            let failed = |source| Error::Attach { name, interface: interface.to_owned(), source };
            if tcx {
                match program.attach_with_options(interface, side, TcAttachOptions::TcxOrder(LinkOrder::default())) {
                    Ok(_link) => continue,
                    Err(error) if tcx_is_missing(&error) => tcx = false,
                    Err(error) => return Err(failed(error)),
                }
            }
            attach_filter(program, interface, side).map_err(failed)?;
        }
        Ok(())
    }
}

/// The kernel does not know the attach type.
fn tcx_is_missing(error: &ProgramError) -> bool {
    let ProgramError::SyscallError(error) = error else { return false };
    matches!(error.io_error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// Cilium without tcx: a clsact filter with its defaults, priority 1 (`--tc-filter-priority`) and handle 1
/// (pkg/datapath/loader/tc.go, `attachTCProgram`).
fn attach_filter(program: &mut SchedClassifier, interface: &str, side: TcAttachType) -> Result<(), ProgramError> {
    match qdisc_add_clsact(interface) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        other => other?,
    }
    let options = NlOptions { priority: 1, handle: TcHandle::new(0, 1), classid: None };
    let link = program.attach_with_options(interface, side, TcAttachOptions::Netlink(options))?;
    // Dropped, it would remove a filter of this name and number in whichever namespace the dropping thread is. The
    // real one goes with its device; there is no descriptor in the link.
    std::mem::forget(program.take_link(link)?);
    Ok(())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, Error> {
    ebpf.program_mut(name)
        .ok_or(Error::Missing { kind: "program", name })?
        .try_into()
        .map_err(|source| Error::Verifier { name, source })
}
