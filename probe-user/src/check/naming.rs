//! What the hooks do not tell of a packet, and Cilium's maps do: why it was dropped, and as whom it left.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    checks::code::Code,
    ended::Direction,
    facts::{self, DropCount, Facts, Sources},
    predict::predict,
    target::Targets,
    trace::{CiliumReason, PacketTrace, cilium_reasons},
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
    let dropped: Vec<&mut PacketTrace> = traces.iter_mut().filter(|trace| by_cilium(trace)).collect();
    let counters = Counters { before, after, host_firewall: facts.cilium.host_firewall.get() == Some(&true) };
    let all = counters.candidates(&dropped);
    let one = match all.as_slice() {
        [] => None,
        [only] => Some(only.clone()),
        // On a busy node others' drops count as many.
        several if predict(facts, targets).cause == Some(Code::UnknownAddressDropped.id()) => {
            several.iter().find(|reason| reason.code == cilium_reasons::NO_FIB).cloned()
        }
        _ => None,
    };
    if !all.is_empty() {
        return name(dropped, one.as_ref());
    }
    // No reason for all of them: what dies at one device on the way to one address dies of one.
    let mut alike: BTreeMap<(String, SocketAddr), Vec<&mut PacketTrace>> = BTreeMap::new();
    for trace in dropped {
        let place = trace.drop.as_ref().map(|drop| drop.r#where.clone()).unwrap_or_default();
        alike.entry((place, trace.flow.dst)).or_default().push(trace);
    }
    for dropped in alike.into_values() {
        let mut reasons = counters.candidates(&dropped);
        let reason = reasons.pop().filter(|_| reasons.is_empty());
        name(dropped, reason.as_ref());
    }
}

fn name(dropped: Vec<&mut PacketTrace>, reason: Option<&CiliumReason>) {
    for drop in dropped.into_iter().filter_map(|trace| trace.drop.as_mut()) {
        drop.cilium_reason = reason.cloned();
    }
}

/// Cilium's drop counters before and after the queries.
struct Counters<'a> {
    before: &'a [DropCount],
    after: &'a [DropCount],
    host_firewall: bool,
}

impl Counters<'_> {
    /// Reasons that may explain all of these drops.
    fn candidates(&self, dropped: &[&mut PacketTrace]) -> Vec<CiliumReason> {
        // A pod's program counts what the pod sends as egress; a host policy's drops count as the host's ingress.
        let is_request =
            |trace: &&mut PacketTrace| trace.drop.as_ref().is_some_and(|drop| drop.direction == Direction::Request);
        let by_the_pods_program = !self.host_firewall && dropped.iter().all(is_request);
        let counted = |counts: &[DropCount]| -> Vec<DropCount> {
            let may_be = |count: &&DropCount| !by_the_pods_program || count.direction == cilium_reasons::EGRESS;
            counts.iter().filter(may_be).copied().collect()
        };
        cilium_reasons::candidates(&counted(self.before), &counted(self.after), dropped.len() as u64)
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

    #[test]
    fn two_places_may_have_two_reasons() {
        let mut scene = Scene::new().facts(hide).coredns(Fate::Dropped("TC_INGRESS", Direction::Request, None));
        scene = scene.coredns(Fate::Dropped("TC_INGRESS", Direction::Request, None));
        scene = scene.coredns(Fate::Dropped("TC_INGRESS", Direction::Request, None));
        for trace in &mut scene.traces[2..] {
            trace.drop.as_mut().unwrap().r#where = "lxc2 on the node".into();
        }
        scene.facts.cilium.drops_before = known(vec![count(133, 2, 4), count(169, 2, 4)]);
        scene.facts.cilium.drops_after = known(vec![count(133, 2, 6), count(169, 2, 8)]);
        ciliums_reason(&mut scene.traces, &scene.facts, &scene.targets);
        let code = |trace: &PacketTrace| Some(trace.drop.as_ref()?.cilium_reason.as_ref()?.code);
        let codes: Vec<_> = scene.traces.iter().map(code).collect();
        // Four die at lxc2, of which only 169 has as many; the two at lxc1 may have died of either.
        assert_eq!(codes, [None, None, Some(169), Some(169), Some(169), Some(169)]);
    }
}
