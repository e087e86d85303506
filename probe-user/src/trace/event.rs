//! One record off the kernel, decoded: what the correlation works on.

use std::{net::SocketAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Flow, HookKind};

/// A sighting of one packet at one hook. As JSON it is for recorded streams only: no output shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Boot clock, nanoseconds.
    pub time_ns: u64,
    pub hook: HookKind,
    /// `SO_NETNS_COOKIE` of the namespace it was seen in; 0: not known.
    pub netns: u64,
    /// Device it was seen on; 0: none.
    pub ifindex: u32,
    /// Kernel address of the `sk_buff`: the packet's identity while it lives. Addresses are recycled.
    pub skb: u64,
    /// Device by which it came into this namespace, at a socket's ingress and a device's egress; 0: none, or not known.
    pub came_by: u32,
    /// Socket that sent or receives it (cgroup_skb hooks); 0: not known.
    pub socket: u64,
    /// Addresses and ports as they are in the packet at this hook; none where only `skb` names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<Flow>,
    /// The DNS message inside, as far as it was captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsHead>,
    /// Flags of the TCP header (FIN 1, SYN 2, RST 4, PSH 8, ACK 16); 0 for UDP.
    pub tcp_flags: u8,
    /// Sequence and acknowledgement number of a TCP segment; 0: none, or not known.
    pub sequence: [u32; 2],
    /// TTL or hop limit.
    pub ttl: u8,
    /// `enum skb_drop_reason` by name (drops only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<String>,
    /// This is an ICMP error that quotes the flow above; type and code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_error: Option<(u8, u8)>,
    /// What was captured of the bytes behind the UDP or TCP header: some 190 at most. None also where an earlier
    /// sighting of the same packet had them.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex")]
    pub payload: Option<Arc<[u8]>>,
    /// How many bytes there were; 0: not known.
    pub payload_len: u32,
}

#[cfg(test)]
impl Event {
    /// Of nothing in particular, for tests to say what matters.
    pub(crate) fn bare(hook: HookKind, time_ns: u64) -> Self {
        Self {
            time_ns,
            hook,
            netns: 0,
            ifindex: 0,
            skb: 0,
            came_by: 0,
            socket: 0,
            flow: None,
            dns: None,
            tcp_flags: 0,
            sequence: [0; 2],
            ttl: 0,
            drop_reason: None,
            icmp_error: None,
            payload: None,
            payload_len: 0,
        }
    }
}

/// A packet's bytes as text, two digits each.
mod hex {
    use std::{fmt::Write as _, sync::Arc};

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &Option<Arc<[u8]>>, serializer: S) -> Result<S::Ok, S::Error> {
        let text = bytes.iter().flat_map(|bytes| bytes.iter()).fold(String::new(), |mut text, byte| {
            // Writing into a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        });
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<[u8]>>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let byte = |pair: &[u8]| {
            let pair = str::from_utf8(pair).ok().filter(|pair| pair.len() == 2);
            pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())
        };
        let bytes: Option<Arc<[u8]>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes.map(Some).ok_or_else(|| D::Error::custom(format!("not hexadecimal bytes: {text}")))
    }
}

/// The head of a DNS message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsHead {
    pub id: u16,
    /// The flags word, host byte order: QR is bit 15, TC bit 9, rcode the low four.
    pub flags: u16,
    /// The first question's name in presentation form, escaped; none where it was cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qname: Option<String>,
    /// The first question's type; none where it was cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qtype: Option<u16>,
}

impl DnsHead {
    #[must_use]
    pub const fn is_response(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    #[must_use]
    pub const fn truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    #[must_use]
    pub const fn rcode(&self) -> u8 {
        (self.flags & 0xf) as u8
    }
}

/// What the correlation must know of the node to tell a delivery from a leak: plain data, gathered before.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Topology {
    /// Netns cookie of the node.
    pub node: u64,
    /// Netns cookies of the pods, with their names.
    pub pods: Vec<(u64, String)>,
    /// Devices of the node's namespace.
    pub devices: Vec<Device>,
    /// Cookies of the node's own DNS sockets (sock_diag), with their local addresses.
    pub servers: Vec<(u64, SocketAddr)>,
    /// Cookies of the sockets that ask, with the netns cookie they live in: they place a socket event where the kernel
    /// cannot tell its namespace.
    pub clients: Vec<(u64, u64)>,
    /// Addresses and port under test.
    pub targets: Vec<SocketAddr>,
    /// Clients in namespaces that nobody has named count too, if their packets are seen in the node's.
    pub strangers: bool,
    /// Attached hooks whose silence means something.
    pub cover: Cover,
}

impl Topology {
    #[must_use]
    pub fn device(&self, index: u32) -> Option<&Device> {
        self.devices.iter().find(|device| device.index == index)
    }

    /// The namespace an event belongs to, by what the kernel said or, failing that, by its socket.
    #[must_use]
    pub fn netns_of(&self, event: &Event) -> Option<u64> {
        if event.netns != 0 {
            return Some(event.netns);
        }
        if self.is_server(event.socket) {
            return Some(self.node);
        }
        self.clients.iter().find(|&&(socket, _)| socket == event.socket && socket != 0).map(|&(_, netns)| netns)
    }

    /// This is a socket of the node's own DNS server.
    #[must_use]
    pub fn is_server(&self, socket: u64) -> bool {
        socket != 0 && self.servers.iter().any(|&(cookie, _)| cookie == socket)
    }

    /// `node`, the pod's name, or what is known of a namespace without one.
    #[must_use]
    pub fn netns_name(&self, netns: u64) -> String {
        if netns == self.node {
            return "node".to_owned();
        }
        if netns == 0 {
            return "unknown namespace".to_owned();
        }
        self.pods
            .iter()
            .find(|&&(cookie, _)| cookie == netns)
            .map_or_else(|| format!("netns cookie {netns}"), |(_, name)| name.clone())
    }

    /// Events of other namespaces are none of ours: addresses repeat between them.
    #[must_use]
    pub fn is_ours(&self, netns: u64) -> bool {
        netns == self.node || self.pods.iter().any(|&(cookie, _)| cookie == netns)
    }
}

/// Which hooks were in place for the whole window. Without them, absence is no evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cover {
    /// Both cgroup_skb hooks.
    pub sockets: bool,
    /// tp_btf kfree_skb.
    pub drops: bool,
    /// tp_btf net_dev_start_xmit.
    pub transmit: bool,
    /// Every device through which a packet can leave the node.
    pub exits: bool,
    /// No event of the window was lost.
    pub complete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub index: u32,
    pub name: String,
    pub role: DeviceRole,
    /// Lower device or master chain: a leak seen on a VLAN, its bond and the port below is one leak.
    pub stacked_on: Option<u32>,
    /// Boot clock from which our hooks on it were in place; none: not covered.
    pub covered_since_ns: Option<u64>,
    /// The pod behind it.
    pub pod: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceRole {
    Loopback,
    /// A packet that leaves here has left the node.
    External,
    Tunnel,
    Encryption,
    CiliumHost,
    CiliumNet,
    Pod,
    Other,
}

impl DeviceRole {
    #[must_use]
    pub const fn leaves_the_node(self) -> bool {
        matches!(self, Self::External | Self::Tunnel | Self::Encryption)
    }
}
