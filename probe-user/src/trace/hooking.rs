//! From the facts to what the tracer shall hook, and from what it did hook to which silence means something.

use glob::Pattern;

use super::{
    Hook,
    event::{Cover, Device, Topology},
    tracer::{Follow, InterfaceToWatch, Others, TraceConfig},
};
use crate::{facts::Facts, target::Targets};

/// What to hook, and the wishes that no device fulfils. `asking` are the devices of the pods that matter;
/// `interfaces` and `all` are the user's wishes for more.
#[must_use]
pub fn config(
    facts: &Facts,
    targets: &Targets,
    topology: &Topology,
    asking: &[&str],
    interfaces: &[Pattern],
    all: bool,
) -> (TraceConfig, Vec<Hook>) {
    let worth = topology.worth_watching(asking);
    let wished = |name: &str| all || interfaces.iter().any(|glob| glob.matches(name));
    let more = topology
        .devices
        .iter()
        .filter(|device| wished(&device.name) && !worth.iter().any(|known| known.index == device.index));
    let list = worth.iter().map(|device| watch(device, facts, true)).chain(more.map(|d| watch(d, facts, false)));
    let absent = interfaces
        .iter()
        .filter(|glob| !topology.devices.iter().any(|device| glob.matches(&device.name)))
        .map(|glob| unattached("tcx", Some(glob.as_str()), "the node has no such interface (--interface)".to_owned()))
        .collect();
    let config = TraceConfig {
        targets: targets.clone(),
        cgroup_root: facts.kernel.cgroup_root.get().cloned(),
        interfaces: list.collect(),
        own_netns: topology.node,
        pod_netns: topology.pods.iter().map(|&(cookie, _)| cookie).collect(),
        btf: None,
        follow: if all { Follow::All } else { Follow::Listed },
        others: Others::default(),
        force_clsact: false,
    };
    (config, absent)
}

/// A device as the tracer wants it named.
#[must_use]
pub fn watch(device: &Device, facts: &Facts, needed: bool) -> InterfaceToWatch {
    let links = facts.network.links.get().map_or(&[][..], Vec::as_slice);
    InterfaceToWatch {
        index: device.index,
        name: device.name.clone(),
        layer3: links.iter().any(|link| link.index == device.index && link.layer3),
        exit: device.role.leaves_the_node(),
        needed,
    }
}

/// A hook that could not be had.
#[must_use]
pub fn unattached(name: &str, interface: Option<&str>, reason: String) -> Hook {
    Hook {
        name: name.to_owned(),
        interface: interface.map(ToOwned::to_owned),
        attached: false,
        reason: Some(reason),
        since_ns: 0,
    }
}

/// Which silence means something: hooks that were in place before the first sighting, nothing lost.
#[must_use]
pub fn cover(hooks: &[Hook], topology: &Topology, complete: bool) -> Cover {
    let on = |name: &str| hooks.iter().any(|hook| hook.attached && hook.name.starts_with(name));
    let exits = topology.devices.iter().filter(|device| device.role.leaves_the_node()).all(|device| {
        hooks.iter().any(|hook| {
            hook.attached && hook.interface.as_deref() == Some(&device.name) && hook.name.contains("egress")
        })
    });
    Cover {
        sockets: on("cgroup_skb egress") && on("cgroup_skb ingress"),
        drops: on("tp_btf kfree_skb"),
        transmit: on("tp_btf net_dev_start_xmit"),
        exits,
        complete,
    }
}
