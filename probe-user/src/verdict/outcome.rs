//! What became of one query: what the asking socket saw and what the traces saw, as one.

use crate::{
    checks::Case,
    ended::{Direction, Ended},
    query::{OUT_OF_TIME, Query},
    report::Status,
    trace::{CiliumReason, Drop, EventCounts, Hook, PacketTrace},
};

/// One query's end, with the trace that tells it.
#[derive(Clone, Debug)]
pub struct Outcome<'a> {
    pub query: &'a Query,
    pub ended: Ended,
    pub direction: Direction,
    /// The trace that it rests on.
    pub trace: Option<&'a PacketTrace>,
    /// Why it cannot be told, where it cannot.
    pub why: Option<String>,
}

/// What must be known of the window to claim anything from silence.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    pub hooks: &'a [Hook],
    pub events: EventCounts,
    /// Configuration says that the query is delivered to the node itself.
    pub delivery_predicted: bool,
}

impl<'a> Outcome<'a> {
    #[must_use]
    pub fn of(case: &Case<'a>, query: &'a Query) -> Self {
        let traces: Vec<&PacketTrace> = case.traces.iter().filter(|trace| query.traces.contains(&trace.id)).collect();
        let window = Window {
            hooks: case.hooks,
            events: case.events,
            delivery_predicted: case.prediction_of(query).ended == Some(Ended::Answered),
        };
        outcome(query, &traces, window)
    }

    #[must_use]
    pub const fn status(&self) -> Status {
        match self.ended {
            Ended::Answered => Status::Pass,
            Ended::Unknown => Status::Unknown,
            _ => Status::Fail,
        }
    }

    #[must_use]
    pub fn drop(&self) -> Option<&'a Drop> {
        self.trace.and_then(|trace| trace.drop.as_ref())
    }

    /// The kernel's reason, where it was dropped.
    #[must_use]
    pub fn drop_reason(&self) -> Option<&'a str> {
        self.drop().map(|drop| drop.reason.as_str())
    }

    /// Cilium's reason, where it was dropped and Cilium told one.
    #[must_use]
    pub fn cilium_reason(&self) -> Option<&'a CiliumReason> {
        self.drop()?.cilium_reason.as_ref()
    }

    /// "coredns-1, udp to 169.254.116.108:53: leaked through eth0 as 192.0.2.7:40000".
    #[must_use]
    pub fn evidence(&self) -> String {
        let query = self.query;
        let mut line = format!("{} {}", query.label(), self.ended);
        if let Some(trace) = self.trace {
            if let Some(leak) = &trace.leak {
                line += &format!(" through {}", leak.interface);
                if let Some(source) = leak.r#as {
                    line += &format!(" as {source}");
                }
            } else if let Some(drop) = &trace.drop {
                line += &format!(" at {} with kernel reason {} ({})", drop.r#where, drop.reason, drop.direction);
                if let Some(cilium) = &drop.cilium_reason {
                    line += &format!(", Cilium reason {} \"{}\"", cilium.code, cilium.text);
                }
            } else if let Some(lost) = trace.lost.as_ref().filter(|_| self.ended == Ended::Lost) {
                line += &format!(", {} last seen at {}", lost.direction, lost.last_hop);
            }
            line += &format!(" (trace {})", trace.id);
        }
        if let Some(why) = &self.why {
            line += &format!(": {why}");
        } else if let Some(note) = query.note.as_ref().filter(|_| self.trace.is_none()) {
            line += &format!(" ({note})");
        }
        line
    }
}

/// Joins a query with its traces. A leak wins over whatever followed it (an answer from outside, an ICMP error); then
/// any answer proves forwarding; then the first thing that killed a packet. Applied to a query that bears its outcome
/// already, it says the same again.
#[must_use]
pub fn outcome<'a>(query: &'a Query, traces: &[&'a PacketTrace], window: Window<'_>) -> Outcome<'a> {
    let find = |ended: Ended| traces.iter().copied().find(|trace| trace.ended == ended);
    let is = |ended, direction, trace| Outcome { query, ended, direction, trace, why: None };
    let unknown = |why: String, trace| Outcome {
        query,
        ended: Ended::Unknown,
        direction: Direction::None,
        trace,
        why: Some(why),
    };

    if let Some(trace) = find(Ended::Leaked) {
        return is(Ended::Leaked, leak_direction(trace), Some(trace));
    }
    if query.ended == Ended::Leaked {
        // Said while the query was on its way, from a trace that is not at hand any more.
        return is(Ended::Leaked, Direction::Request, None);
    }
    if let Some(trace) = find(Ended::Answered) {
        return match query.ended {
            Ended::Malformed => is(Ended::Malformed, Direction::Reply, Some(trace)),
            _ => is(Ended::Answered, Direction::None, Some(trace)),
        };
    }
    if query.ended == Ended::Answered || (query.rcode.is_some() && query.ended != Ended::Malformed) {
        // Nobody saw whose answer it was. It left the node's own server only if configuration says so too.
        let by_itself = query.address.ip().is_loopback(); // nobody else answers there
        return if window.delivery_predicted || by_itself {
            is(Ended::Answered, Direction::None, None)
        } else {
            unknown("an answer came, but nothing shows that the node's own server gave it".into(), None)
        };
    }
    if let Some(trace) = find(Ended::Dropped) {
        let drop = trace.drop.as_ref();
        let direction = drop.map_or(Direction::None, |drop| drop.direction);
        // How the kernel frees what no socket wants; the ICMP error or the reset follows.
        return if direction != Direction::Reply && drop.is_some_and(|drop| drop.reason == "NO_SOCKET") {
            is(Ended::PortUnreachable, Direction::Request, Some(trace))
        } else {
            is(Ended::Dropped, direction, Some(trace))
        };
    }
    if query.ended == Ended::Dropped {
        // Sending failed: the kernel told the asking socket itself (EPERM).
        return is(Ended::Dropped, Direction::Request, None);
    }
    if query.ended == Ended::PortUnreachable || find(Ended::PortUnreachable).is_some() {
        return is(Ended::PortUnreachable, Direction::Request, find(Ended::PortUnreachable));
    }
    if query.ended == Ended::Malformed || find(Ended::Malformed).is_some() {
        return is(Ended::Malformed, Direction::Reply, find(Ended::Malformed));
    }
    if query.note.as_deref() == Some(OUT_OF_TIME) {
        // It was not waited for: its silence says nothing.
        return unknown(OUT_OF_TIME.to_owned(), None);
    }
    from_silence(query, traces, window).unwrap_or_else(|(why, trace)| unknown(why, trace))
}

/// What rests on absence: said only where nothing was missed. The error says what was.
fn from_silence<'a>(
    query: &'a Query,
    traces: &[&'a PacketTrace],
    window: Window<'_>,
) -> Result<Outcome<'a>, (String, Option<&'a PacketTrace>)> {
    let find = |ended: Ended| traces.iter().copied().find(|trace| trace.ended == ended);
    let Some(trace) = find(Ended::Lost).or_else(|| find(Ended::Unanswered)) else {
        let trace = find(Ended::Unknown);
        let why = trace.and_then(|trace| trace.unknown.clone()).unwrap_or_else(|| {
            let note = query.note.as_deref().unwrap_or("no answer came");
            format!("{note}, and no hook saw the packet")
        });
        return Err((why, trace));
    };
    if window.events.lost > 0 {
        return Err((format!("{} events of this window were lost", window.events.lost), Some(trace)));
    }
    let blind = blind_hooks(window.hooks, trace);
    if !blind.is_empty() {
        return Err((
            format!("it was not seen again, but these hooks were not in place: {}", blind.join(", ")),
            Some(trace),
        ));
    }
    let direction = trace.lost.as_ref().map_or(Direction::None, |lost| lost.direction);
    Ok(Outcome { query, ended: trace.ended, direction, trace: Some(trace), why: None })
}

/// Hooks whose absence could explain a silence. Those that only say more of what is known anyway do not: without
/// `net_dev_start_xmit` the address of a leak is not known, without `kfree_skb` a drop is a loss. Nor do the devices of
/// other pods. Of an unanswered query it is enough to see the server's sockets.
fn blind_hooks(hooks: &[Hook], trace: &PacketTrace) -> Vec<String> {
    let on_the_way = |interface: &str| trace.hops.iter().any(|hop| hop.interface.as_deref() == Some(interface));
    let other_pod = |interface: &String| interface.starts_with("lxc") && !on_the_way(interface);
    hooks
        .iter()
        .filter(|hook| !hook.attached && !["xmit", "transmit", "kfree"].iter().any(|name| hook.name.contains(name)))
        .filter(|hook| !hook.interface.as_ref().is_some_and(other_pod))
        .filter(|hook| trace.ended == Ended::Lost || is_socket_hook(hook))
        .map(|hook| match &hook.interface {
            Some(interface) => format!("{} on {interface}", hook.name),
            None => hook.name.clone(),
        })
        .collect()
}

fn is_socket_hook(hook: &Hook) -> bool {
    hook.name.contains("cgroup") || hook.name.contains("socket")
}

/// The half that left: what the sighting at that device says; a leak without one is a query's.
fn leak_direction(trace: &PacketTrace) -> Direction {
    let interface = trace.leak.as_ref().map(|leak| leak.interface.as_str());
    trace
        .hops
        .iter()
        .rev()
        .find(|hop| hop.interface.is_some() && hop.interface.as_deref() == interface)
        .map(|hop| hop.direction)
        .filter(|direction| *direction != Direction::None)
        .unwrap_or(Direction::Request)
}
