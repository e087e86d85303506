//! Which packets belong to which question.

use crate::{
    query::{Ask, Query, Vantage},
    trace::{PacketTrace, event::Topology},
};

/// Writes the ids of each question's traces into it, keeps the traces that belong to one, and numbers them anew.
pub(super) fn link(queries: &mut [Query], traces: &mut Vec<PacketTrace>, asks: &[Ask], topology: &Topology) {
    let owner = |trace: &PacketTrace| {
        queries.iter().zip(asks).position(|(query, ask)| belongs(trace, query, &ask.vantage, topology))
    };
    let mut owned: Vec<(usize, PacketTrace)> =
        traces.drain(..).filter_map(|trace| owner(&trace).map(|index| (index, trace))).collect();
    for ((index, trace), id) in owned.iter_mut().zip(1..) {
        trace.id = id;
        let query = &mut queries[*index];
        query.traces.push(id);
        // A TCP socket whose connect was cut short never said which address it had; its packets did.
        query.source = query.source.map(|known| if known.ip().is_unspecified() { trace.flow.src } else { known });
    }
    *traces = owned.into_iter().map(|(_, trace)| trace).collect();
}

/// The same ends, seen in the namespace that asked. Ports repeat between namespaces, so the namespace has a say.
fn belongs(trace: &PacketTrace, query: &Query, vantage: &Vantage, topology: &Topology) -> bool {
    let Some(source) = query.source else { return false };
    let flow = trace.flow;
    flow.transport == query.transport
        && flow.dst == query.address
        && flow.src.port() == source.port()
        && (source.ip().is_unspecified() || source.ip() == flow.src.ip())
        && is_from(trace, vantage, topology)
}

pub(super) fn is_from(trace: &PacketTrace, vantage: &Vantage, topology: &Topology) -> bool {
    use crate::trace::HookKind::SocketOut;
    let asked_in = topology.netns_name(vantage.netns.cookie);
    // Where the socket hook did not see it leave, its ends alone have to do.
    trace.hops.iter().find(|hop| hop.hook == SocketOut).is_none_or(|hop| {
        vantage.netns.cookie == 0 || hop.netns == asked_in || hop.direction != crate::ended::Direction::Request
    })
}
