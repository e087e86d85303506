//! From facts to what the correlation must know, and to what is worth hooking, in which order.

use crate::{
    facts::{Facts, Link},
    target::Targets,
    trace::event::{Device, DeviceRole, Topology},
};

impl Topology {
    /// The node as the facts show it. Nothing is covered yet: that is for the tracer to say.
    #[must_use]
    pub fn from_facts(facts: &Facts, targets: &Targets) -> Self {
        let links = facts.network.links.get().map_or(&[][..], Vec::as_slice);
        let pods = facts.pods.get().map_or(&[][..], Vec::as_slice);
        let devices = links
            .iter()
            .map(|link| Device {
                index: link.index,
                name: link.name.clone(),
                role: role(link, links, facts),
                stacked_on: below(link),
                covered_since_ns: None,
                pod: pods
                    .iter()
                    .find(|pod| pod.interface.as_deref() == Some(link.name.as_str()))
                    .map(|pod| pod.name.clone()),
            })
            .collect();
        Self {
            node: facts.network.netns.get().map_or(0, |netns| netns.cookie),
            pods: pods
                .iter()
                .filter(|pod| !pod.host_network && pod.netns.cookie != 0)
                .map(|pod| (pod.netns.cookie, pod.name.clone()))
                .collect(),
            devices,
            servers: facts.listeners.get().map_or(&[][..], Vec::as_slice).iter().map(|l| (l.cookie, l.local)).collect(),
            targets: targets.sockets().collect(),
            ..Self::default()
        }
    }

    /// Devices worth a hook on every check, most telling first: where a packet leaves, where the asking pods enter,
    /// where replies come back.
    #[must_use]
    pub fn worth_watching(&self, vantage_interfaces: &[&str]) -> Vec<&Device> {
        let mut devices: Vec<&Device> = self
            .devices
            .iter()
            .filter(|device| match device.role {
                DeviceRole::Pod => vantage_interfaces.contains(&device.name.as_str()),
                DeviceRole::Other => false,
                _ => true,
            })
            .collect();
        devices.sort_by_key(|device| match device.role {
            DeviceRole::External => 0,
            DeviceRole::Pod => 1,
            DeviceRole::CiliumHost => 2,
            DeviceRole::Tunnel | DeviceRole::Encryption => 3,
            DeviceRole::CiliumNet => 4,
            DeviceRole::Loopback => 5,
            DeviceRole::Other => 6,
        });
        devices
    }
}

/// The device a VLAN, a macvlan or the like sits on, in this namespace.
fn below(link: &Link) -> Option<u32> {
    match (link.kind.as_deref(), link.peer_nsid) {
        (Some("veth" | "netkit"), _) | (_, Some(_)) => None,
        _ => link.peer_index.filter(|&index| index != 0 && index != link.index),
    }
}

fn role(link: &Link, links: &[Link], facts: &Facts) -> DeviceRole {
    match (link.name.as_str(), link.kind.as_deref()) {
        ("lo", _) => return DeviceRole::Loopback,
        ("cilium_host", _) => return DeviceRole::CiliumHost,
        ("cilium_net", _) => return DeviceRole::CiliumNet,
        (_, Some("vxlan" | "geneve" | "ipip" | "sit" | "ip6tnl")) => return DeviceRole::Tunnel,
        (_, Some("wireguard")) => return DeviceRole::Encryption,
        _ => {}
    }
    if is_external(link, facts) || carries_an_external(link, links, facts) {
        return DeviceRole::External;
    }
    let is_a_pods = link.name.starts_with("lxc")
        || facts.pods.get().is_some_and(|pods| pods.iter().any(|pod| pod.interface.as_deref() == Some(&link.name)));
    if is_a_pods || (matches!(link.kind.as_deref(), Some("veth" | "netkit")) && link.peer_nsid.is_some()) {
        return DeviceRole::Pod;
    }
    // Hardware that is neither Cilium's nor routed over: a packet that leaves there has left all the same.
    if link.kind.is_none() { DeviceRole::External } else { DeviceRole::Other }
}

/// Cilium works on it, or the default route leaves through it.
fn is_external(link: &Link, facts: &Facts) -> bool {
    let ciliums = facts.cilium.devices.get().is_some_and(|devices| devices.contains(&link.name));
    let default_route = facts.network.routes.get().is_some_and(|routes| {
        routes.iter().any(|route| {
            matches!(route.destination.as_str(), "0.0.0.0/0" | "::/0" | "default")
                && route.interface.as_deref() == Some(&link.name)
        })
    });
    ciliums || default_route
}

/// A port of an external bond, or the device below an external VLAN.
fn carries_an_external(link: &Link, links: &[Link], facts: &Facts) -> bool {
    let is_port = link
        .master
        .and_then(|master| links.iter().find(|other| other.index == master))
        .is_some_and(|master| is_external(master, facts));
    is_port
        || links.iter().any(|other| {
            below(other) == Some(link.index) && (is_external(other, facts) || other.kind.as_deref() == Some("vlan"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Fact;

    fn link(index: u32, name: &str, kind: Option<&str>, peer: Option<(u32, Option<i32>)>) -> Link {
        Link {
            index,
            name: name.into(),
            kind: kind.map(Into::into),
            mac: None,
            up: true,
            peer_index: peer.map(|(index, _)| index),
            peer_nsid: peer.and_then(|(_, nsid)| nsid),
            master: None,
            layer3: false,
        }
    }

    fn roles(facts: &Facts) -> Vec<(String, DeviceRole)> {
        Topology::from_facts(facts, &Targets::default()).devices.into_iter().map(|d| (d.name, d.role)).collect()
    }

    #[test]
    fn devices_have_the_roles_a_cilium_node_gives_them() {
        let mut facts = Facts::default();
        facts.cilium.devices = Fact::known(vec!["eth0".into()], "agent");
        facts.network.links = Fact::known(
            vec![
                link(1, "lo", None, None),
                link(2, "eth0", Some("veth"), Some((2, Some(0)))),
                link(3, "cilium_net", Some("veth"), Some((4, None))),
                link(4, "cilium_host", Some("veth"), Some((3, None))),
                link(5, "cilium_vxlan", Some("vxlan"), None),
                link(6, "lxc014991a937be", Some("veth"), Some((5, Some(1)))),
                link(7, "cilium_wg0", Some("wireguard"), None),
                link(8, "nodelocaldns", Some("dummy"), None),
            ],
            "netlink",
        );
        use DeviceRole::{CiliumHost, CiliumNet, Encryption, External, Loopback, Other, Pod, Tunnel};
        let expected = [Loopback, External, CiliumNet, CiliumHost, Tunnel, Pod, Encryption, Other];
        let found: Vec<_> = roles(&facts).into_iter().map(|(_, role)| role).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_vlan_its_bond_and_the_ports_below_all_lead_outside() {
        let mut facts = Facts::default();
        facts.cilium.devices = Fact::known(vec!["bond0.100".into()], "agent");
        let mut port = link(2, "enp1s0", None, None);
        port.master = Some(4);
        facts.network.links = Fact::known(
            vec![port, link(4, "bond0", Some("bond"), None), link(5, "bond0.100", Some("vlan"), Some((4, None)))],
            "netlink",
        );
        assert!(roles(&facts).iter().all(|(_, role)| *role == DeviceRole::External), "{:?}", roles(&facts));
    }

    #[test]
    fn exits_are_hooked_before_pods_and_pods_before_the_rest() {
        let mut facts = Facts::default();
        facts.cilium.devices = Fact::known(vec!["eth0".into()], "agent");
        facts.network.links = Fact::known(
            vec![
                link(1, "lo", None, None),
                link(4, "cilium_host", Some("veth"), Some((3, None))),
                link(6, "lxcaa", Some("veth"), Some((5, Some(1)))),
                link(7, "lxcbb", Some("veth"), Some((5, Some(2)))),
                link(2, "eth0", Some("veth"), Some((2, Some(0)))),
            ],
            "netlink",
        );
        let topology = Topology::from_facts(&facts, &Targets::default());
        let names: Vec<_> = topology.worth_watching(&["lxcbb"]).iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["eth0", "lxcbb", "cilium_host", "lo"]);
    }
}
