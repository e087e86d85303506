//! A query with its answer, told for people and programs: `hostdns-probe/transaction/v1`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Drop, Flow, HookKind, Hop, Leak, Lost, PacketTrace,
    decode::dns,
    event::{DnsHead, Event},
    pods::{Names, PodName, Server},
};
use crate::{
    ended::{Direction, Ended},
    facts::Transport,
};

/// The form of one line of `trace --output json`.
pub const SCHEMA: &str = "hostdns-probe/transaction/v1";

/// A query and its answer, where one came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Transaction {
    /// [`SCHEMA`].
    #[schemars(extend("const" = SCHEMA))]
    pub schema: String,
    /// Counts up within one run.
    pub id: u32,
    /// RFC 3339: when the first hop was seen.
    #[schemars(extend("format" = "date-time"))]
    pub taken_at: String,
    /// The same, nanoseconds of the boot clock.
    pub started_ns: u64,
    /// As the client wrote it.
    pub flow: Flow,
    pub dns_id: Option<u16>,
    /// The first question's name, escaped as in a zone file; none: not seen, or not DNS.
    pub qname: Option<String>,
    pub qtype: Option<String>,
    /// `NOERROR`, `SERVFAIL`, ... of the answer.
    pub rcode: Option<String>,
    /// TC was set in the answer.
    pub truncated: bool,
    /// The transaction over UDP whose truncated answer made the client ask again, over TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<u32>,
    /// How often the client sent it again.
    pub retries: u32,
    pub ended: Ended,
    /// Why it is unknown, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// Why it is no DNS message, where it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub malformed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<Drop>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leak: Option<Leak>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    pub latency: Latency,
    /// `node`, the pod's name, or what is known of the namespace that asked.
    pub netns: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// Whose socket answered on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
    pub hops: Vec<Hop>,
    /// Events lost while it was open; where there are any, what is missing here proves nothing.
    pub events_lost: u64,
    /// It stands for this many queries (`--sample`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled: Option<u32>,
}

/// Where the time went, in microseconds. None: one of the two ends was not seen. Of the last try, where there were
/// several; over TCP from the question on, not from the handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// From the client's first send to its answer, retries included.
    pub total_us: Option<u64>,
    /// From the client's socket to the server's.
    pub to_server_us: Option<u64>,
    /// From the server's socket and back to it.
    pub server_us: Option<u64>,
    /// From the server's socket to the client's.
    pub back_us: Option<u64>,
}

/// What a transaction is told with, besides its own events.
#[derive(Clone, Copy, Debug)]
pub struct Telling<'a> {
    pub names: &'a Names,
    /// Nanoseconds from the boot clock to the Unix epoch's.
    pub boot_to_unix_ns: i128,
    pub events_lost: u64,
    pub sampled: Option<u32>,
}

impl Transaction {
    /// Tells one; `events` are those behind the hops.
    #[must_use]
    pub fn tell(trace: PacketTrace, events: &[Event], telling: Telling<'_>) -> Self {
        let seen: Vec<(&Hop, &Event)> = trace.hops.iter().zip(events).collect();
        let question = seen.iter().filter(|(hop, _)| hop.direction == Direction::Request).find_map(|(_, e)| head(e));
        let named = || seen.iter().filter_map(|(_, e)| head(e)).find(|dns| dns.qname.is_some());
        let reply = answer(&seen);
        let malformed = malformed(&seen, trace.flow.transport);
        let asked_in = seen
            .iter()
            .find(|(hop, _)| hop.direction == Direction::Request && hop.hook == HookKind::SocketOut)
            .map(|(hop, event)| (hop.netns.clone(), event.netns));
        let (netns, cookie) = asked_in.unwrap_or_else(|| ("unknown".to_owned(), 0));
        let interface_pod = || {
            // Its socket was not seen: the device it came through names it as well.
            let device = seen.iter().find(|(hop, _)| hop.hook == HookKind::Ingress)?.0.interface.as_deref()?;
            telling.names.by_interface(device)
        };
        let pod = telling.names.pod(cookie).or_else(|| if cookie == 0 { interface_pod() } else { None }).cloned();
        let server = reply_socket(&seen)
            .and_then(|event| telling.names.server(event.socket, trace.flow.dst, trace.flow.transport))
            .cloned();
        let mut told = Self {
            schema: SCHEMA.to_owned(),
            id: trace.id,
            taken_at: unix(trace.started_ns, telling.boot_to_unix_ns),
            started_ns: trace.started_ns,
            flow: trace.flow,
            dns_id: question.or_else(named).map(|dns| dns.id),
            qname: question.filter(|dns| dns.qname.is_some()).or_else(named).and_then(|dns| dns.qname.clone()),
            qtype: question.filter(|dns| dns.qtype.is_some()).or_else(named).and_then(|dns| dns.qtype).map(qtype),
            rcode: reply.map(|dns| rcode(dns.rcode())),
            truncated: reply.is_some_and(DnsHead::truncated),
            retry_of: None,
            retries: retries(&seen),
            ended: trace.ended,
            unknown: trace.unknown,
            malformed,
            drop: trace.drop,
            leak: trace.leak,
            lost: trace.lost,
            latency: latency(&seen),
            netns,
            pod,
            server,
            hops: Vec::new(),
            events_lost: telling.events_lost,
            sampled: telling.sampled,
        };
        told.settle(&seen);
        drop(seen);
        told.hops = trace.hops;
        told
    }

    /// What the sightings alone cannot say: that it was no DNS, or that nothing was asked.
    fn settle(&mut self, seen: &[(&Hop, &Event)]) {
        let says_little = matches!(self.ended, Ended::Answered | Ended::Unanswered | Ended::Lost | Ended::Unknown);
        if self.malformed.is_some() && says_little {
            (self.ended, self.unknown, self.lost) = (Ended::Malformed, None, None);
        }
        const SYN_ACK: u8 = 0x12;
        let open = seen.iter().any(|(hop, event)| {
            hop.direction == Direction::Reply && event.tcp_flags & SYN_ACK == SYN_ACK && hop.hook == HookKind::SocketIn
        });
        if self.flow.transport == Transport::Tcp && self.dns_id.is_none() && open && self.ended == Ended::Unanswered {
            self.ended = Ended::Unknown;
            self.unknown = Some("a connection on which no question was seen".to_owned());
        }
    }
}

fn head(event: &Event) -> Option<&DnsHead> {
    event.dns.as_ref().filter(|_| event.icmp_error.is_none())
}

/// The answer as it is nearest to the client.
fn answer<'a>(seen: &[(&Hop, &'a Event)]) -> Option<&'a DnsHead> {
    let replies = seen.iter().rev().filter(|(hop, _)| hop.direction == Direction::Reply);
    replies.filter_map(|(_, event)| head(event)).find(|dns| dns.is_response())
}

/// The server's socket on the node: where the query came in, or where the answer went out.
fn reply_socket<'a>(seen: &[(&Hop, &'a Event)]) -> Option<&'a Event> {
    let at_server = |hop: &Hop| {
        hop.netns == "node"
            && matches!(
                (hop.hook, hop.direction),
                (HookKind::SocketIn, Direction::Request) | (HookKind::SocketOut, Direction::Reply)
            )
    };
    seen.iter().find(|(hop, _)| at_server(hop)).map(|&(_, event)| event)
}

fn is_sent(hop: &Hop, event: &Event, transport: Transport) -> bool {
    let asks = match transport {
        Transport::Udp => true,
        Transport::Tcp => event.dns.as_ref().is_some_and(|dns| !dns.is_response()),
    };
    hop.hook == HookKind::SocketOut && hop.direction == Direction::Request && asks
}

fn retries(seen: &[(&Hop, &Event)]) -> u32 {
    let transport = transport(seen);
    let sent = seen.iter().filter(|(hop, event)| is_sent(hop, event, transport)).count();
    u32::try_from(sent.saturating_sub(1)).unwrap_or(u32::MAX)
}

fn transport(seen: &[(&Hop, &Event)]) -> Transport {
    seen.iter().find_map(|(_, event)| event.flow).map_or(Transport::Udp, |flow| flow.transport)
}

fn latency(seen: &[(&Hop, &Event)]) -> Latency {
    let transport = transport(seen);
    let message = |event: &Event| transport == Transport::Udp || event.dns.is_some();
    let at = |found: Option<&(&Hop, &Event)>| found.map(|(_, event)| event.time_ns);
    let arrived = at(seen.iter().find(|(hop, event)| {
        hop.direction == Direction::Reply
            && hop.hook == HookKind::SocketIn
            && head(event).is_some_and(DnsHead::is_response)
    }));
    let before = |time: Option<u64>, event: &Event| time.is_none_or(|time| event.time_ns <= time);
    let first = at(seen.iter().find(|(hop, event)| is_sent(hop, event, transport)));
    let answered = at(seen.iter().rev().find(|(hop, event)| {
        hop.direction == Direction::Reply && hop.hook == HookKind::SocketOut && message(event) && before(arrived, event)
    }));
    let received = at(seen.iter().rev().find(|(hop, event)| {
        hop.direction == Direction::Request
            && hop.hook == HookKind::SocketIn
            && message(event)
            && before(answered.or(arrived), event)
    }));
    let sent = at(seen.iter().rev().find(|(hop, event)| is_sent(hop, event, transport) && before(received, event)));
    let between = |from: Option<u64>, to: Option<u64>| Some(to?.checked_sub(from?)? / 1000);
    Latency {
        total_us: between(first, arrived),
        to_server_us: between(sent, received),
        server_us: between(received, answered),
        back_us: between(answered, arrived),
    }
}

/// Why the query, or what came back, is no DNS message. Only what was captured whole can tell.
fn malformed(seen: &[(&Hop, &Event)], transport: Transport) -> Option<String> {
    if transport == Transport::Tcp {
        return None; // a segment is not a message
    }
    let first = |direction: Direction| {
        let of = |(hop, event): &&(&Hop, &Event)| {
            let tells = event.payload.is_some() || is_empty(event);
            hop.direction == direction && tells && event.icmp_error.is_none()
        };
        seen.iter().find(of).map(|&(_, event)| event)
    };
    if let Some(why) = first(Direction::Request).and_then(|event| not_a_message(event, false)) {
        return Some(format!("the query {why}"));
    }
    first(Direction::Reply).and_then(|event| not_a_message(event, true)).map(|why| format!("the answer {why}"))
}

fn not_a_message(event: &Event, reply: bool) -> Option<String> {
    let Some(payload) = event.payload.as_ref() else { return is_empty(event).then(|| "is empty".to_owned()) };
    let Some(dns) = &event.dns else { return Some(format!("has {} bytes, too few for a header", payload.len())) };
    if dns.is_response() != reply {
        return Some(if reply { "is not marked as one" } else { "is marked as an answer" }.to_owned());
    }
    let opcode = dns.flags >> 11 & 0xf;
    if opcode > 6 {
        return Some(format!("has opcode {opcode}, which does not exist"));
    }
    let whole = event.payload_len != 0 && payload.len() == event.payload_len as usize;
    let asks = payload.get(4..6).is_some_and(|count| count != [0, 0]);
    let missing = dns.qname.is_none() || dns.qtype.is_none();
    (asks && missing && (whole || dns::is_broken(payload))).then(|| "has a broken question".to_owned())
}

/// A UDP packet without any payload, by a hook that would have seen it.
fn is_empty(event: &Event) -> bool {
    matches!(event.hook, HookKind::SocketOut | HookKind::Ingress | HookKind::Egress)
        && event.payload_len == 0
        && event.dns.is_none()
        && event.icmp_error.is_none()
}

fn unix(boot_ns: u64, offset: i128) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(boot_ns) + offset)
        .map_or_else(|_out_of_range| String::new(), |time| format!("{time:.6}"))
}

/// RFC 1035 and its successors; as in RFC 3597 where it has no name here.
#[must_use]
pub fn qtype(number: u16) -> String {
    let name = match number {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        35 => "NAPTR",
        43 => "DS",
        46 => "RRSIG",
        48 => "DNSKEY",
        52 => "TLSA",
        64 => "SVCB",
        65 => "HTTPS",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        257 => "CAA",
        other => return format!("TYPE{other}"),
    };
    name.to_owned()
}

/// The header's four bits (RFC 6895); EDNS' extended ones are not captured.
#[must_use]
pub fn rcode(code: u8) -> String {
    dns::rcode(u16::from(code))
}

#[cfg(test)]
pub(in crate::trace) mod tests;
