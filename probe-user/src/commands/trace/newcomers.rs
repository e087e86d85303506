//! Pods that came after the trace began. The first packet of one shows its namespace at its socket, and then, in the
//! node's, the device it came in by: no list of pods or devices is asked for, so a pod may live for a second.

use std::collections::HashMap;

use crate::trace::{
    Flow, HookKind,
    event::{Event, Topology},
};

/// Packets between their socket and the node, at most. A packet is there for microseconds.
const MAX_PACKETS: usize = 1024;

/// How long a packet may take from its socket to the node: a neighbour lookup can hold it for a second.
const ON_ITS_WAY_NS: u64 = 2_000_000_000;

#[derive(Debug)]
struct Packet {
    /// The namespace that sent it.
    netns: u64,
    time_ns: u64,
    flow: Option<Flow>,
}

impl Packet {
    /// Addresses are recycled, and what was sent in another node's pod does not arrive here.
    fn is(&self, event: &Event) -> bool {
        let agree = self.flow.is_none() || event.flow.is_none() || self.flow == event.flow;
        agree && event.time_ns.saturating_sub(self.time_ns) < ON_ITS_WAY_NS
    }
}

#[derive(Debug, Default)]
pub(super) struct Newcomers {
    /// Packets on their way, by their address in the kernel.
    packets: HashMap<u64, Packet>,
    /// Device on the node's side.
    devices: HashMap<u64, u32>,
}

impl Newcomers {
    /// A namespace whose device is not known sends something.
    pub(super) fn sends(&mut self, event: &Event) {
        if event.hook != HookKind::SocketOut || event.netns == 0 || event.skb == 0 {
            return;
        }
        if self.packets.len() >= MAX_PACKETS {
            self.packets.clear();
        }
        let packet = Packet { netns: event.netns, time_ns: event.time_ns, flow: event.flow };
        self.packets.insert(event.skb, packet);
    }

    /// A namespace that is known sends something: at that address is no newcomer's packet any more.
    pub(super) fn known_sends(&mut self, event: &Event) {
        if event.hook == HookKind::SocketOut {
            self.packets.remove(&event.skb);
        }
    }

    /// The namespace and its device, where this event, in the node's namespace, joins them.
    pub(super) fn arrives(&mut self, event: &Event, topology: &Topology) -> Option<(u64, u32)> {
        if self.packets.is_empty() || event.netns != topology.node {
            return None;
        }
        let device = if event.hook == HookKind::Drop { event.ifindex } else { event.came_by };
        if device == 0 {
            return None;
        }
        let Packet { netns, .. } = self.packets.remove(&event.skb).filter(|packet| packet.is(event))?;
        self.devices.insert(netns, device);
        Some((netns, device))
    }

    pub(super) fn device(&self, netns: u64) -> Option<u32> {
        self.devices.get(&netns).copied()
    }

    /// Forgets those whose device is gone.
    pub(super) fn keep(&mut self, is_there: impl Fn(u32) -> bool) {
        self.devices.retain(|_, &mut device| is_there(device));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::event::Cover;

    fn event(hook: HookKind, netns: u64, skb: u64, came_by: u32) -> Event {
        Event { netns, ifindex: 9, skb, came_by, ..Event::bare(hook, 0) }
    }

    #[test]
    fn a_packet_joins_its_namespace_to_its_device() {
        let topology = Topology { node: 1, cover: Cover::default(), ..Topology::default() };
        let mut newcomers = Newcomers::default();
        newcomers.sends(&event(HookKind::SocketOut, 7, 100, 0));
        newcomers.sends(&event(HookKind::SocketOut, 8, 200, 0));
        assert_eq!(newcomers.arrives(&event(HookKind::SocketIn, 1, 300, 5), &topology), None, "another packet");
        assert_eq!(newcomers.arrives(&event(HookKind::SocketIn, 2, 100, 5), &topology), None, "another node");
        assert_eq!(newcomers.arrives(&event(HookKind::SocketIn, 1, 100, 5), &topology), Some((7, 5)));
        assert_eq!(newcomers.arrives(&event(HookKind::Drop, 1, 200, 0), &topology), Some((8, 9)));
        assert_eq!((newcomers.device(7), newcomers.device(8)), (Some(5), Some(9)));
        newcomers.keep(|device| device == 5);
        assert_eq!((newcomers.device(7), newcomers.device(8)), (Some(5), None));
    }

    #[test]
    fn another_packet_at_the_same_address_joins_nothing() {
        let topology = Topology { node: 1, ..Topology::default() };
        let from = |port: u16| Flow {
            src: ([10, 0, 0, 1], port).into(),
            dst: ([169, 254, 116, 108], 53).into(),
            transport: crate::facts::Transport::Udp,
        };
        let sent = Event { flow: Some(from(1)), ..event(HookKind::SocketOut, 7, 100, 0) };
        let other = Event { flow: Some(from(2)), ..event(HookKind::SocketIn, 1, 100, 5) };
        let late = Event { flow: sent.flow, time_ns: ON_ITS_WAY_NS, ..other.clone() };
        for event in [other, late] {
            let mut newcomers = Newcomers::default();
            newcomers.sends(&sent);
            assert_eq!(newcomers.arrives(&event, &topology), None);
        }
        let mut newcomers = Newcomers::default();
        newcomers.sends(&sent);
        newcomers.known_sends(&event(HookKind::SocketOut, 8, 100, 0));
        assert_eq!(newcomers.arrives(&event(HookKind::SocketIn, 1, 100, 5), &topology), None);
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let mut newcomers = Newcomers::default();
        for skb in 1..=3 * MAX_PACKETS as u64 {
            newcomers.sends(&event(HookKind::SocketOut, skb, skb, 0));
        }
        assert!(newcomers.packets.len() <= MAX_PACKETS);
    }
}
