//! Loss and percentiles of questions that were asked more than once.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Query;
use crate::{ended::Ended, facts::Transport};

/// What became of one question over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    pub vantage: String,
    pub address: SocketAddr,
    pub transport: Transport,
    pub qname: String,
    pub qtype: String,
    pub asked: u32,
    pub answered: u32,
    /// Of those asked, in percent.
    pub loss_percent: f64,
    /// Of the answered ones; none: nothing was answered.
    pub rtt_us: Option<RttPercentiles>,
}

/// Times to the answer in microseconds, by nearest rank: each is a time that was really measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RttPercentiles {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub max: u64,
}

impl RttPercentiles {
    /// None of an empty list.
    #[must_use]
    pub fn of(mut rtts: Vec<u64>) -> Option<Self> {
        rtts.sort_unstable();
        let max = *rtts.last()?;
        let at = |percent: usize| {
            let rank = (rtts.len() * percent).div_ceil(100).max(1);
            rtts.get(rank - 1).copied().unwrap_or(max)
        };
        Some(Self { p50: at(50), p90: at(90), p99: at(99), max })
    }
}

/// One line per question, in the order in which they were first asked.
#[must_use]
pub fn summarize(queries: &[Query]) -> Vec<Summary> {
    let mut groups: Vec<(&Query, Vec<&Query>)> = Vec::new();
    for query in queries {
        match groups.iter_mut().find(|(first, _)| same_question(first, query)) {
            Some((_, group)) => group.push(query),
            None => groups.push((query, vec![query])),
        }
    }
    groups.into_iter().map(|(first, group)| summary(first, &group)).collect()
}

fn same_question(left: &Query, right: &Query) -> bool {
    left.vantage == right.vantage
        && left.vantage_kind == right.vantage_kind
        && left.address == right.address
        && left.transport == right.transport
        && left.qname == right.qname
        && left.qtype == right.qtype
}

fn summary(first: &Query, group: &[&Query]) -> Summary {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let answered: Vec<&&Query> = group.iter().filter(|query| query.ended == Ended::Answered).collect();
    let asked = count(group.len());
    let lost = asked - count(answered.len());
    Summary {
        vantage: first.vantage.clone(),
        address: first.address,
        transport: first.transport,
        qname: first.qname.clone(),
        qtype: first.qtype.clone(),
        asked,
        answered: count(answered.len()),
        loss_percent: if asked == 0 { 0.0 } else { 100.0 * f64::from(lost) / f64::from(asked) },
        rtt_us: RttPercentiles::of(answered.iter().filter_map(|query| query.rtt_us).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::VantageKind;

    fn query(vantage: &str, transport: Transport, rtt_us: Option<u64>) -> Query {
        Query {
            vantage: vantage.into(),
            vantage_kind: VantageKind::Pod,
            address: "169.254.116.108:53".parse().unwrap(),
            transport,
            qname: "example.com".into(),
            qtype: "A".into(),
            source: None,
            id: 1,
            ended: if rtt_us.is_some() { Ended::Answered } else { Ended::Unknown },
            rcode: None,
            truncated: false,
            answers: Vec::new(),
            rtt_us,
            note: None,
            traces: Vec::new(),
        }
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let all = RttPercentiles::of((1..=100).rev().collect()).unwrap();
        assert_eq!(all, RttPercentiles { p50: 50, p90: 90, p99: 99, max: 100 });
        let one = RttPercentiles::of(vec![7]).unwrap();
        assert_eq!(one, RttPercentiles { p50: 7, p90: 7, p99: 7, max: 7 });
        let two = RttPercentiles::of(vec![9, 3]).unwrap();
        assert_eq!(two, RttPercentiles { p50: 3, p90: 9, p99: 9, max: 9 });
        assert_eq!(RttPercentiles::of(Vec::new()), None);
    }

    #[test]
    fn questions_are_kept_apart_and_in_order() {
        let queries = [
            query("b", Transport::Udp, Some(10)),
            query("a", Transport::Udp, Some(20)),
            query("b", Transport::Tcp, None),
            query("b", Transport::Udp, None),
            query("b", Transport::Udp, Some(30)),
            query("b", Transport::Udp, None),
        ];
        let summaries = summarize(&queries);
        let seen: Vec<_> = summaries.iter().map(|s| (s.vantage.as_str(), s.transport, s.asked, s.answered)).collect();
        assert_eq!(seen, [("b", Transport::Udp, 4, 2), ("a", Transport::Udp, 1, 1), ("b", Transport::Tcp, 1, 0)]);
        assert!((summaries[0].loss_percent - 50.0).abs() < f64::EPSILON);
        assert_eq!(summaries[0].rtt_us.unwrap().max, 30);
        assert_eq!(summaries[2].rtt_us, None);
    }
}
