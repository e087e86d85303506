//! What the hooks do not tell of a packet, and Cilium's maps do: why it was dropped, and as whom it left.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    checks::code::Code,
    ended::Direction,
    facts::{self, DropCount, Facts, Sources},
    predict::predict,
    target::Targets,
    trace::{PacketTrace, cilium_reasons},
};

/// Where the hook behind the translation is missing, Cilium's NAT table says as whom a packet left.
pub(super) async fn whom_leaks_pass_for(traces: &mut [PacketTrace], sources: &Sources) {
    let mut unnamed: Vec<&mut PacketTrace> =
        traces.iter_mut().filter(|trace| trace.leak.as_ref().is_some_and(|leak| leak.r#as.is_none())).collect();
    if unnamed.is_empty() {
        return;
    }
    let flows = unnamed.iter().map(|trace| trace.flow).collect();
    for (trace, source) in unnamed.iter_mut().zip(facts::translated_sources(sources, flows).await) {
        if let Some(leak) = trace.leak.as_mut() {
            leak.r#as = source;
        }
    }
}

/// Only a program of Cilium's drops at the tc hooks here, or without any reason inside of a netkit device; its own
/// counters say why. They are the whole node's: where several rose enough, configuration tells them apart, or nobody.
pub(super) fn ciliums_reason(traces: &mut [PacketTrace], facts: &Facts, targets: &Targets) {
    let (Some(before), Some(after)) = (facts.cilium.drops_before.get(), facts.cilium.drops_after.get()) else {
        return;
    };
    let links = facts.network.links.get().map_or(&[][..], Vec::as_slice);
    let is_netkit = |name: &str| links.iter().any(|link| link.name == name && link.kind.as_deref() == Some("netkit"));
    let by_cilium = |trace: &PacketTrace| match trace.drop.as_ref().map(|drop| drop.reason.as_str()) {
        Some("TC_INGRESS" | "TC_EGRESS") => true,
        Some("NOT_SPECIFIED") => trace.hops.last().and_then(|hop| hop.interface.as_deref()).is_some_and(is_netkit),
        _ => false,
    };
    // What dies at one device on the way to one address dies of one reason.
    let mut alike: BTreeMap<(String, SocketAddr, Direction), Vec<&mut PacketTrace>> = BTreeMap::new();
    for trace in traces.iter_mut().filter(|trace| by_cilium(trace)) {
        if let Some(drop) = &trace.drop {
            alike.entry((drop.r#where.clone(), trace.flow.dst, drop.direction)).or_default().push(trace);
        }
    }
    // Where packets died in two places, a counter may be that of the other one.
    let predicted = alike.len() == 1 && predict(facts, targets).cause == Some(Code::UnknownAddressDropped.id());
    for ((_, _, direction), dropped) in alike {
        // A host policy's drops count as the host's ingress.
        let by_the_pods_program = direction == Direction::Request && facts.cilium.host_firewall.get() != Some(&true);
        let counted = |counts: &[DropCount]| -> Vec<DropCount> {
            let may_be = |count: &&DropCount| !by_the_pods_program || count.direction == cilium_reasons::EGRESS;
            counts.iter().filter(may_be).copied().collect()
        };
        let mut reasons = cilium_reasons::candidates(&counted(before), &counted(after), dropped.len() as u64);
        if reasons.len() > 1 {
            reasons.retain(|reason| predicted && reason.code == cilium_reasons::NO_FIB);
        }
        let reason = reasons.pop();
        for drop in dropped.into_iter().filter_map(|trace| trace.drop.as_mut()) {
            drop.cilium_reason.clone_from(&reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{Fate, Scene, hide, known};

    const fn count(reason: u8, direction: u8, packets: u64) -> DropCount {
        DropCount { reason, direction, packets }
    }

    /// Two queries of a pod that a tc program drops, and the counters after them; before, they were all 4.
    fn named(change: impl FnOnce(&mut Facts), direction: Direction, after: &[DropCount]) -> Option<u8> {
        let mut scene = Scene::new().facts(hide).facts(change);
        scene = scene.coredns(Fate::Dropped("TC_INGRESS", direction, None));
        let before = after.iter().map(|now| DropCount { packets: 4, ..*now }).collect();
        (scene.facts.cilium.drops_before, scene.facts.cilium.drops_after) = (known(before), known(after.to_vec()));
        ciliums_reason(&mut scene.traces, &scene.facts, &scene.targets);
        let mut codes = scene
            .traces
            .iter()
            .map(|trace| trace.drop.as_ref().and_then(|drop| drop.cilium_reason.as_ref()).map(|reason| reason.code));
        let first = codes.next().unwrap();
        assert!(codes.all(|code| code == first));
        first
    }

    fn two_devices(facts: &mut Facts) {
        facts.cilium.devices = known(vec!["eth0".into(), "eth1".into()]);
    }

    #[test]
    fn the_counter_that_rose_names_the_reason() {
        assert_eq!(named(|_| {}, Direction::Request, &[count(169, 2, 6), count(139, 2, 90)]), Some(169));
        assert_eq!(named(|_| {}, Direction::Request, &[count(169, 2, 5)]), None, "one of two is somebody else's");
        assert_eq!(named(|_| {}, Direction::Request, &[count(133, 1, 90), count(169, 2, 6)]), Some(169), "ingress");
        assert_eq!(named(|_| {}, Direction::Reply, &[count(196, 1, 6)]), Some(196));
        let firewall = |f: &mut Facts| f.cilium.host_firewall = known(true);
        assert_eq!(named(firewall, Direction::Request, &[count(133, 1, 6)]), Some(133), "a host policy's");
    }

    #[test]
    fn on_a_busy_node_configuration_tells_them_apart() {
        let busy = [count(133, 2, 400), count(169, 2, 6)];
        assert_eq!(named(two_devices, Direction::Request, &busy), Some(169));
        assert_eq!(named(|_| {}, Direction::Request, &busy), None, "it predicts a leak: either may be it");
    }
}
