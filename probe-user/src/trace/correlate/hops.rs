//! Sightings with their interfaces and namespaces named, and what changed since the last one.

use std::net::SocketAddr;

use super::{
    ending::leaves,
    transaction::{Sighting, Transaction},
};
use crate::{
    ended::Direction,
    trace::{Flow, HookKind, Hop, event::Topology},
};

pub(super) fn name(transaction: &Transaction, topology: &Topology) -> Vec<Hop> {
    let started_ns = transaction.sightings.first().map_or(0, |s| s.event.time_ns);
    let mut last_flow: [Option<Flow>; 2] = [None, None];
    transaction
        .sightings
        .iter()
        .map(|s| {
            let known = &mut last_flow[usize::from(s.direction == Direction::Reply)];
            let flow = s.event.flow.filter(|_| s.event.icmp_error.is_none()).or(*known).unwrap_or_else(|| {
                let asked = Flow {
                    src: transaction.key.client,
                    dst: transaction.key.server,
                    transport: transaction.key.transport,
                };
                if s.direction == Direction::Reply { asked.reversed() } else { asked }
            });
            let before = known.replace(flow).filter(|_| !begins(s, topology));
            let note = note(s, before, flow, topology);
            Hop {
                t_us: s.event.time_ns.saturating_sub(started_ns) / 1000,
                hook: s.event.hook,
                interface: topology
                    .device(s.event.ifindex)
                    .filter(|_| s.netns == topology.node && !at_socket(s.event.hook))
                    .map(|device| device.name.clone()),
                netns: topology.netns_name(s.netns),
                direction: s.direction,
                src: flow.src,
                dst: flow.dst,
                note,
            }
        })
        .collect()
}

const fn at_socket(hook: HookKind) -> bool {
    matches!(hook, HookKind::SocketIn | HookKind::SocketOut)
}

/// A packet that leaves its socket, or comes in from outside: translated it can only be afterwards. Over TCP the one
/// before it was another packet.
fn begins(s: &Sighting, topology: &Topology) -> bool {
    let outside = || topology.device(s.event.ifindex).is_some_and(|device| device.role.leaves_the_node());
    match s.event.hook {
        HookKind::SocketOut => true,
        HookKind::Ingress => s.netns == topology.node && outside(),
        _ => false,
    }
}

fn note(s: &Sighting, before: Option<Flow>, now: Flow, topology: &Topology) -> Option<String> {
    let mut notes = Vec::new();
    if let Some((kind, code)) = s.event.icmp_error {
        notes.push(icmp(kind, code));
    }
    if let Some(before) = before.filter(|_| s.event.icmp_error.is_none()) {
        let translated = |was: SocketAddr, is: SocketAddr, what: &str| (was != is).then(|| what.to_owned());
        let masqueraded = if s.direction == Direction::Request { "masqueraded" } else { "source translated" };
        notes.extend(translated(before.src, now.src, masqueraded));
        notes.extend(translated(before.dst, now.dst, "destination translated"));
    }
    let here = s.netns == topology.node;
    let device = topology.device(s.event.ifindex).filter(|_| here);
    match (s.event.hook, s.direction) {
        (HookKind::Transmit, Direction::Request) => {
            notes.extend(device.filter(|d| d.role.leaves_the_node()).map(|d| leaves(d.role).to_owned()));
        }
        (HookKind::SocketIn, Direction::Request) if here && topology.is_server(s.event.socket) => {
            notes.push("the node's DNS socket".to_owned());
        }
        (HookKind::Drop, _) => {
            notes.push(format!("dropped: {}", s.event.drop_reason.as_deref().unwrap_or("unknown reason")));
        }
        _ => {}
    }
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// RFC 792 and 4443, the errors a DNS client meets. The two families number theirs apart: type 3 is "destination
/// unreachable" in IPv4, type 1 in IPv6.
fn icmp(kind: u8, code: u8) -> String {
    match (kind, code) {
        (3, 3) | (1, 4) => "ICMP port unreachable".into(),
        (3, 1) | (1, 3) => "ICMP host unreachable".into(),
        (3, 0) | (1, 0) => "ICMP network unreachable".into(),
        (3, 9 | 10 | 13) | (1, 1) => "ICMP administratively prohibited".into(),
        (11, 0) => "ICMP time exceeded".into(),
        (kind, code) => format!("ICMP error type {kind} code {code}"),
    }
}
