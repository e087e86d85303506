//! The table of queries: who asked, over UDP and TCP, and what became of it.

use super::{duration, packet};
use crate::{
    ended::Ended,
    facts::Transport,
    query::{Query, VantageKind},
    report::{Report, Status},
    trace::PacketTrace,
};

/// One vantage's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub vantage: String,
    pub udp: Cell,
    pub tcp: Cell,
    pub note: Option<&'static str>,
}

/// What became of the queries over one transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    pub text: String,
    /// Every query was answered (or none was put).
    pub answered: bool,
}

/// One row for each vantage and, where several addresses were asked, each address; in the order of asking.
#[must_use]
pub fn table(report: &Report) -> Vec<Row> {
    let several = several_addresses(&report.queries);
    let mut warned = false;
    let mut keys: Vec<_> = Vec::new();
    for query in &report.queries {
        let key = (query.vantage.as_str(), query.address);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.into_iter()
        .map(|(vantage, address)| {
            let asked: Vec<_> =
                report.queries.iter().filter(|q| q.vantage == vantage && q.address == address).collect();
            let (udp, tcp) = (cell(report, &asked, Transport::Udp), cell(report, &asked, Transport::Tcp));
            let on_node = asked.iter().all(|query| query.vantage_kind >= VantageKind::Node);
            let loopback = asked.iter().all(|query| query.vantage_kind == VantageKind::NodeLoopback);
            // Its own 127.0.0.53 is another address: that says nothing of the one under test, not even for the node.
            let misleading =
                on_node && !loopback && report.verdict.status == Status::Fail && udp.answered && tcp.answered;
            // Once is enough.
            let note = misleading && !warned;
            warned |= misleading;
            Row {
                vantage: if several && !loopback {
                    format!("{vantage} → {}", address.ip())
                } else {
                    vantage.to_owned()
                },
                udp,
                tcp,
                note: note.then_some("(the node itself is fine: its test says nothing about pods)"),
            }
        })
        .collect()
}

/// The node's question to its own 127.0.0.53 does not count: its vantage names the address already.
fn several_addresses(queries: &[Query]) -> bool {
    let mut targets = queries.iter().filter(|query| query.vantage_kind != VantageKind::NodeLoopback).map(|q| q.address);
    let first = targets.next();
    targets.any(|address| Some(address) != first)
}

/// How a query ended, with what its packets say where its socket saw nothing: a leak wins over whatever followed, and
/// a timeout is only the absence of a story.
#[must_use]
pub fn fate(report: &Report, query: &Query) -> Ended {
    let of_query = |trace: &&PacketTrace| query.traces.contains(&trace.id);
    let ends: Vec<_> = report.traces.iter().filter(of_query).map(|trace| trace.ended).collect();
    if ends.contains(&Ended::Leaked) {
        return Ended::Leaked;
    }
    if !matches!(query.ended, Ended::Unanswered | Ended::Unknown) {
        return query.ended;
    }
    let told = [Ended::Dropped, Ended::PortUnreachable, Ended::Lost, Ended::Unanswered];
    told.into_iter().find(|ended| ends.contains(ended)).unwrap_or(query.ended)
}

fn cell(report: &Report, asked: &[&Query], transport: Transport) -> Cell {
    let asked: Vec<_> = asked.iter().filter(|query| query.transport == transport).collect();
    let fates = asked.iter().map(|query| fate(report, query));
    let failed: Vec<_> = fates.filter(|ended| *ended != Ended::Answered).collect();
    let text = match (asked.as_slice(), failed.as_slice()) {
        ([], _) => "-".to_owned(),
        (_, []) => {
            let rcode = asked.iter().filter_map(|query| query.rcode.as_deref()).find(|rcode| *rcode != "NOERROR");
            let words = ["answered", rcode.unwrap_or_default(), &median(&asked)].map(str::to_owned);
            words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
        }
        (_, [first, ..]) if failed.len() == asked.len() => packet::word(*first),
        (_, [first, ..]) => format!("{} {} of {}", packet::word(*first), failed.len(), asked.len()),
    };
    Cell { text, answered: failed.is_empty() }
}

fn median(asked: &[&&Query]) -> String {
    let mut times: Vec<_> = asked.iter().filter_map(|query| query.rtt_us).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().map(duration).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::examples;

    #[test]
    fn one_row_for_each_vantage_in_the_order_of_asking() {
        let rows = table(&examples::leak());
        assert_eq!(
            rows.iter().map(|row| row.vantage.as_str()).collect::<Vec<_>>(),
            ["coredns-7c9d-x2k4p", "lxc_health", "node"]
        );
        assert_eq!(rows[0].udp, Cell { text: "leaked".into(), answered: false });
        assert_eq!(rows[2].udp.text, "answered 0.4 ms");
        assert!(rows[2].note.is_some() && rows[0].note.is_none());
    }

    #[test]
    fn a_healthy_node_beside_healthy_pods_needs_no_warning() {
        assert!(table(&examples::healthy()).iter().all(|row| row.note.is_none()));
    }

    #[test]
    fn a_node_that_is_refused_too_is_not_called_fine() {
        let mut report = examples::leak();
        for query in report.queries.iter_mut().filter(|query| query.vantage_kind == VantageKind::Node) {
            query.ended = Ended::PortUnreachable;
        }
        let loopback = Query {
            vantage: "node@127.0.0.53".into(),
            vantage_kind: VantageKind::NodeLoopback,
            ended: Ended::Answered,
            traces: Vec::new(),
            ..report.queries[0].clone()
        };
        report.queries.push(loopback);
        let rows = table(&report);
        assert!(rows.last().expect("four").udp.answered);
        assert!(rows.iter().all(|row| row.note.is_none()), "{rows:#?}");
    }

    #[test]
    fn mixed_ends_are_counted_and_rcodes_shown() {
        let mut report = examples::leak();
        let second = Query { ended: Ended::Answered, traces: Vec::new(), ..report.queries[0].clone() };
        report.queries.push(second);
        assert_eq!(table(&report)[0].udp.text, "leaked 1 of 2");
        report.traces.clear();
        for query in &mut report.queries {
            (query.ended, query.rcode, query.rtt_us) = (Ended::Answered, Some("SERVFAIL".into()), Some(2_000_000));
        }
        assert_eq!(table(&report)[0].udp.text, "answered SERVFAIL 2.0 s");
    }

    #[test]
    fn packets_tell_what_the_socket_did_not_see() {
        let mut report = examples::leak();
        for seen in [Ended::Unanswered, Ended::Answered, Ended::PortUnreachable] {
            report.queries[0].ended = seen;
            assert_eq!(fate(&report, &report.queries[0]), Ended::Leaked, "{seen}: a leak wins");
        }
        report.queries[0].ended = Ended::Unanswered;
        report.traces[0].ended = Ended::Dropped;
        assert_eq!(fate(&report, &report.queries[0]), Ended::Dropped);
        report.traces[0].ended = Ended::Unknown;
        assert_eq!(fate(&report, &report.queries[0]), Ended::Unanswered);
        report.queries[0].ended = Ended::Answered;
        assert_eq!(fate(&report, &report.queries[0]), Ended::Answered);
    }

    #[test]
    fn several_addresses_are_told_apart() {
        let mut report = examples::leak();
        let mut other = report.queries[0].clone();
        other.address = "[fd54:616c:6f73::204f:5320:444e:531]:53".parse().expect("an address");
        report.queries.push(other);
        let rows = table(&report);
        assert_eq!(rows[0].vantage, "coredns-7c9d-x2k4p → 169.254.116.108");
        assert_eq!(rows[3].vantage, "coredns-7c9d-x2k4p → fd54:616c:6f73:0:204f:5320:444e:531");
        assert_eq!(rows[3].tcp.text, "-");
    }
}
