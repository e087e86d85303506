//! How a transaction ended, from its sightings alone.

use super::{Horizon, transaction::Sighting};
use crate::{
    ended::{Direction, Ended},
    facts::Transport,
    trace::{
        Drop, HookKind, Leak, Lost,
        event::{DeviceRole, Topology},
    },
};

/// On one node a packet is at its next hook within microseconds. After this much silence it is not on its way.
const SILENCE_NS: u64 = 400_000_000;

pub(super) struct Ending {
    pub(super) ended: Ended,
    pub(super) unknown: Option<String>,
    pub(super) drop: Option<Drop>,
    pub(super) leak: Option<Leak>,
    pub(super) lost: Option<Lost>,
}

impl Ending {
    const fn of(ended: Ended) -> Self {
        Self { ended, unknown: None, drop: None, leak: None, lost: None }
    }

    fn unknown(why: impl Into<String>) -> Self {
        Self { unknown: Some(why.into()), ..Self::of(Ended::Unknown) }
    }
}

/// Evidence first: a leak wins over whatever follows it, an answer over a drop that a retry overcame. Only then
/// silence, and only where it means something.
pub(super) fn ending(sightings: &[Sighting], topology: &Topology, horizon: Horizon) -> Ending {
    if let Some(leak) = leak(sightings, topology) {
        return Ending { leak: Some(leak), ..Ending::of(Ended::Leaked) };
    }
    if sightings.iter().any(is_answer_at_socket) {
        return if was_at_the_server(sightings, topology) {
            Ending::of(Ended::Answered)
        } else {
            Ending::unknown("answered, but it was not seen at the node's own DNS socket")
        };
    }
    let accepted = sightings.iter().any(is_handshakes_answer);
    if sightings.iter().any(|s| is_refusal(s, accepted, topology)) {
        return Ending::of(Ended::PortUnreachable);
    }
    let sockets = topology.cover.sockets;
    let died =
        (0..sightings.len()).rev().find(|&at| is_death(sightings, at) && (sockets || was_on_its_way(sightings, at)));
    if let Some(drop) = died.map(|at| &sightings[at]) {
        return Ending { drop: Some(describe_drop(drop, topology)), ..Ending::of(Ended::Dropped) };
    }
    silence(sightings, topology, horizon)
}

/// The request seen on its way out of the node. Where the transmit hook is in place it is the proof: a program behind
/// ours can still drop what we saw at the head of the egress chain.
fn leak(sightings: &[Sighting], topology: &Topology) -> Option<Leak> {
    let exit = |s: &&Sighting| {
        s.direction == Direction::Request
            && s.netns == topology.node
            && topology.device(s.event.ifindex).is_some_and(|device| device.role.leaves_the_node())
    };
    let transmit = sightings.iter().filter(exit).find(|s| s.event.hook == HookKind::Transmit);
    let passed_egress = |&at: &usize| {
        let s = &sightings[at];
        exit(&s) && s.event.hook == HookKind::Egress && !is_freed(sightings, at)
    };
    let proof = match transmit {
        Some(transmit) => transmit,
        None if topology.cover.transmit => return None,
        None => &sightings[(0..sightings.len()).find(passed_egress)?],
    };
    let first = sightings.iter().find(exit).unwrap_or(proof);
    Some(Leak {
        interface: topology
            .device(first.event.ifindex)
            .map_or_else(|| format!("ifindex {}", first.event.ifindex), |device| device.name.clone()),
        r#as: transmit.and_then(|s| s.event.flow).map(|flow| flow.src),
    })
}

/// The packet seen at `at` was dropped later on. A socket that sends puts a new packet at an address: of TCP the copies
/// that it sends again are at the same one time after time.
fn is_freed(sightings: &[Sighting], at: usize) -> bool {
    let skb = sightings[at].event.skb;
    let mut later = sightings[at + 1..].iter().filter(|s| s.event.skb == skb).map(|s| s.event.hook);
    later.find(|hook| matches!(hook, HookKind::Drop | HookKind::SocketOut)) == Some(HookKind::Drop)
}

fn is_answer_at_socket(s: &Sighting) -> bool {
    s.direction == Direction::Reply
        && s.event.hook == HookKind::SocketIn
        && s.event.icmp_error.is_none()
        && s.event.dns.as_ref().is_some_and(crate::trace::event::DnsHead::is_response)
}

/// An answer is the node's own where it was seen at its server's socket, on its way in or out; somebody outside, or a proxy
/// on the way, answers under the same address. Only the sockets' hooks can tell.
fn was_at_the_server(sightings: &[Sighting], topology: &Topology) -> bool {
    let left = |s: &Sighting| {
        s.direction == Direction::Reply && s.event.hook == HookKind::SocketOut && is_servers_socket(s, topology)
    };
    !topology.cover.sockets
        || topology.servers.is_empty()
        || sightings.iter().any(|s| reached_server(s, topology) || left(s))
}

/// Somebody took the connection: a reset after that is no refusal to listen.
fn is_handshakes_answer(s: &Sighting) -> bool {
    const SYN_ACK: u8 = 2 | 16;
    s.direction == Direction::Reply && s.event.tcp_flags & SYN_ACK == SYN_ACK
}

/// Nobody listens: an ICMP port unreachable (RFC 792, 4443) about the query, a TCP reset from the node, or the kernel's own
/// word. One about the answer says that whoever asked is gone.
fn is_refusal(s: &Sighting, accepted: bool, topology: &Topology) -> bool {
    const RST: u8 = 4;
    let reset =
        !accepted && s.direction == Direction::Reply && s.event.tcp_flags & RST != 0 && s.netns == topology.node;
    let about_the_query = s.event.flow.is_none_or(|quoted| topology.targets.contains(&quoted.dst));
    let no_socket = s.event.hook == HookKind::Drop
        && s.direction == Direction::Request
        && s.netns == topology.node
        && s.event.drop_reason.as_deref() == Some("NO_SOCKET");
    reset || no_socket || (about_the_query && matches!(s.event.icmp_error, Some((3, 3) | (1, 4))))
}

/// The packet died on its way. One that had reached its socket did not, unless the socket refused it: a datagram that
/// waits there goes when the socket is closed, and TCP frees as it sees fit (a SYN that comes again while its handshake is
/// under way, old data, what follows an end), which says nothing of the way there.
fn is_death(sightings: &[Sighting], at: usize) -> bool {
    let s = &sightings[at];
    if s.event.hook != HookKind::Drop {
        return false;
    }
    let before = sightings[..at].iter().rev().find(|other| other.event.skb == s.event.skb);
    if before.is_none_or(|before| before.event.hook != HookKind::SocketIn) {
        return true;
    }
    let reason = s.event.drop_reason.as_deref();
    if is_tcp(s) {
        reason.is_some_and(is_refused_segment)
    } else {
        // A refusal has its reason. Some kernels give none for what is purged (seen on 6.18).
        !matches!(reason, Some("QUEUE_PURGE" | "NOT_SPECIFIED"))
    }
}

/// Where the sockets' hooks are not in place: nothing shows that the packet freed at `at` had arrived. What goes with a
/// socket's queue had; and so had the query, if an answer to it was seen before.
fn was_on_its_way(sightings: &[Sighting], at: usize) -> bool {
    let freed = &sightings[at];
    let with_its_socket = freed.event.drop_reason.as_deref() == Some("QUEUE_PURGE");
    let answered = freed.direction == Direction::Request && sightings[..at].iter().any(is_part_of_an_answer);
    !with_its_socket && !answered
}

/// What TCP says of a segment that its socket would have taken (include/net/dropreason-core.h): a filter said no, there
/// was no room, or it was damaged or not signed as it should be.
fn is_refused_segment(reason: &str) -> bool {
    matches!(reason, "SOCKET_FILTER" | "SOCKET_RCVBUFF" | "SOCKET_BACKLOG" | "PROTO_MEM" | "TCP_CSUM")
        || ["TCP_MD5", "TCP_AO", "TCP_AUTH"].iter().any(|signature| reason.starts_with(signature))
}

fn describe_drop(s: &Sighting, topology: &Topology) -> Drop {
    let netns = topology.netns_name(s.netns);
    let place = if s.netns == topology.node { "the node".to_owned() } else { netns };
    let device = topology.device(s.event.ifindex).filter(|_| s.netns == topology.node);
    Drop {
        reason: s.event.drop_reason.clone().unwrap_or_else(|| "unknown reason".to_owned()),
        r#where: device.map_or_else(|| place.clone(), |device| format!("{} on {place}", device.name)),
        direction: s.direction,
        cilium_reason: None,
    }
}

/// Nothing says how it ended: what the silence itself is worth.
fn silence(sightings: &[Sighting], topology: &Topology, horizon: Horizon) -> Ending {
    let Some(last) = sightings.last() else { return Ending::unknown("never seen") };
    if !horizon.last && horizon.now_ns.saturating_sub(last.event.time_ns) < SILENCE_NS {
        return Ending::unknown("still on its way");
    }
    if !topology.cover.complete {
        return Ending::unknown("events were lost, so that silence proves nothing");
    }
    if !topology.cover.sockets {
        return Ending::unknown("the socket hooks are not in place, so that silence proves nothing");
    }
    // The newest part of an answer, unless it is already where it belongs (over TCP, the handshake's).
    // What was freed without having died is where it was seen before.
    let reply = sightings.iter().rev().find(|s| is_part_of_an_answer(s) && s.event.hook != HookKind::Drop);
    if let Some(reply) = reply.filter(|s| s.event.hook != HookKind::SocketIn) {
        return lost(reply, Direction::Reply, topology);
    }
    if sightings.iter().any(|s| reached_server(s, topology)) {
        return if horizon.last {
            Ending::of(Ended::Unanswered)
        } else {
            Ending::unknown("at the server, which has not answered yet")
        };
    }
    if !topology.cover.exits {
        return Ending::unknown("a device through which packets can leave is not hooked");
    }
    sightings
        .iter()
        .rev()
        .find(|s| s.direction == Direction::Request)
        .map_or_else(|| Ending::unknown("only a reply was seen"), |s| lost(s, Direction::Request, topology))
}

/// Over TCP a bare ACK is no answer under way: the server may still be thinking. The handshake's is.
fn is_part_of_an_answer(s: &Sighting) -> bool {
    const SYN: u8 = 2;
    const PSH: u8 = 8;
    s.direction == Direction::Reply
        && s.event.icmp_error.is_none()
        && (!is_tcp(s) || s.event.tcp_flags & (SYN | PSH) != 0)
}

/// The query is at the node's own DNS socket.
fn reached_server(s: &Sighting, topology: &Topology) -> bool {
    s.direction == Direction::Request
        && s.event.hook == HookKind::SocketIn
        && (is_servers_socket(s, topology) || (topology.servers.is_empty() && s.netns == topology.node))
}

/// Seen at the node's own DNS socket, which sock_diag named; an address alone would not do. A connection's own socket is
/// the listener's child and was born after sock_diag was asked.
fn is_servers_socket(s: &Sighting, topology: &Topology) -> bool {
    s.netns == topology.node && (topology.is_server(s.event.socket) || is_tcp(s))
}

fn is_tcp(s: &Sighting) -> bool {
    s.event.flow.is_some_and(|flow| flow.transport == Transport::Tcp)
}

fn lost(s: &Sighting, direction: Direction, topology: &Topology) -> Ending {
    let device = topology.device(s.event.ifindex).filter(|_| s.netns == topology.node);
    let last_hop = match (s.event.hook, device) {
        (HookKind::SocketOut | HookKind::SocketIn, _) | (_, None) => {
            format!("{} {}", topology.netns_name(s.netns), s.event.hook.as_str())
        }
        (hook, Some(device)) => format!("{} {}", device.name, hook.as_str()),
    };
    Ending { lost: Some(Lost { last_hop, direction }), ..Ending::of(Ended::Lost) }
}

/// What a device is to a packet, in words, for the notes beside a hop.
pub(super) const fn leaves(role: DeviceRole) -> &'static str {
    match role {
        DeviceRole::Tunnel => "left the node through the tunnel",
        DeviceRole::Encryption => "left the node encrypted",
        _ => "left the node",
    }
}
