//! Times to the answer, before and after: told as changed only where chance does not explain it and a user would care.

use std::{collections::BTreeMap, net::SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    rank_sum::{Stratum, p_value},
    ways::Path,
};
use crate::{
    ended::Ended,
    facts::Transport,
    query::{Query, RttPercentiles},
    report::Report,
};

/// Its name, in every output.
const TEST: &str = "stratified Wilcoxon rank-sum test, exact, two-sided";
/// One in twenty comparisons of the same thing twice is below it; of those only a difference that matters is told. A
/// check puts few questions, five from three pods: less could not be reached.
const ALPHA: f64 = 0.05;
/// Microseconds. What is less, nobody notices.
const LEAST_SHIFT: u64 = 1_000;

/// How long answers took on one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    pub path: Path,
    pub address: SocketAddr,
    pub before: Times,
    pub after: Times,
    pub test: String,
    /// Two-sided.
    pub p: f64,
    pub alpha: f64,
    pub judged: Judged,
    /// Of pods: the node's own answers, which come past Cilium and all of a pod's devices, changed as much. Then it is
    /// the server, its upstream or the machine's load, and not the pods' way.
    #[serde(default)]
    pub node_too: bool,
}

/// Of the answered queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Times {
    pub answered: usize,
    pub p50_us: u64,
    pub max_us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Judged {
    /// Chance does explain it, or the difference is too small to matter.
    WithinNoise,
    /// By at least 1 ms and half as much again in the median, and p below alpha.
    Slower,
    /// The reverse.
    Faster,
    /// So few answers could not show a difference however large.
    TooFew,
}

/// Every way that both reports have answers of.
pub(super) fn compare(before: &Report, after: &Report) -> Vec<Latency> {
    let (old, new) = (by_way(before), by_way(after));
    let both = old.into_iter().filter_map(|(way, old)| Some((way, old, new.get(&way)?)));
    let mut all: Vec<Latency> = both.filter_map(|((path, address), old, new)| one(path, address, &old, new)).collect();
    // By the medians alone: the node asks too few questions for a test, and nothing is judged by this.
    let of_the_node: Vec<_> = all.iter().filter(|l| l.path == Path::Node).map(|l| (l.address, l.shift_us())).collect();
    for pods in all.iter_mut().filter(|l| l.path == Path::Pods && l.moved()) {
        let explains =
            |node: i128| node.signum() == pods.shift_us().signum() && node.abs() * 2 >= pods.shift_us().abs();
        pods.node_too = of_the_node.iter().any(|&(address, shift)| address == pods.address && explains(shift));
    }
    all
}

impl Latency {
    /// The median moved by an amount that matters.
    const fn moved(&self) -> bool {
        let (old, new) = (self.before.p50_us, self.after.p50_us);
        matters(old, new) || matters(new, old)
    }

    /// By how much it moved, in microseconds.
    fn shift_us(&self) -> i128 {
        i128::from(self.after.p50_us) - i128::from(self.before.p50_us)
    }
}

/// A question: only the same one is compared.
type Question = (Transport, String, String);

/// Times of the answered queries.
fn by_way(report: &Report) -> BTreeMap<(Path, SocketAddr), BTreeMap<Question, Vec<u64>>> {
    let mut ways: BTreeMap<_, BTreeMap<Question, Vec<u64>>> = BTreeMap::new();
    let is_target = |query: &&Query| report.targets.iter().any(|target| *target == query.address.to_string());
    for query in report.queries.iter().filter(is_target) {
        if let (Ended::Answered, Some(rtt)) = (query.ended, query.rtt_us) {
            let question = (query.transport, query.qname.clone(), query.qtype.clone());
            let way = ways.entry((Path::of(query.vantage_kind), query.address)).or_default();
            way.entry(question).or_default().push(rtt);
        }
    }
    ways
}

fn one(
    path: Path,
    address: SocketAddr,
    old: &BTreeMap<Question, Vec<u64>>,
    new: &BTreeMap<Question, Vec<u64>>,
) -> Option<Latency> {
    let strata: Vec<Stratum> = old
        .iter()
        .filter_map(|(question, before)| Some(Stratum { before: before.clone(), after: new.get(question)?.clone() }))
        .collect();
    let (p, least) = p_value(&strata)?;
    let before = times(strata.iter().flat_map(|stratum| &stratum.before))?;
    let after = times(strata.iter().flat_map(|stratum| &stratum.after))?;
    let judged = if least >= ALPHA { Judged::TooFew } else { Judged::WithinNoise };
    let mut latency =
        Latency { path, address, before, after, test: TEST.to_owned(), p, alpha: ALPHA, judged, node_too: false };
    if least < ALPHA && p < ALPHA {
        latency.judged = match (latency.moved(), latency.shift_us() > 0) {
            (false, _) => Judged::WithinNoise,
            (true, true) => Judged::Slower,
            (true, false) => Judged::Faster,
        };
    }
    Some(latency)
}

fn times<'a>(all: impl Iterator<Item = &'a u64>) -> Option<Times> {
    let all: Vec<u64> = all.copied().collect();
    let answered = all.len();
    RttPercentiles::of(all).map(|of| Times { answered, p50_us: of.p50, max_us: of.max })
}

/// At least 1 ms and half as much again.
const fn matters(from: u64, to: u64) -> bool {
    to >= from.saturating_add(LEAST_SHIFT) && to >= from.saturating_add(from / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{diff::tests::timed, report::examples};

    #[test]
    fn slower_faster_and_noise() {
        let fast = timed(&[400, 420, 440]);
        let slow = timed(&[9_400, 9_420, 9_440]);
        let wobbly = timed(&[430, 410, 450]);
        let a_little = timed(&[500, 520, 540]);
        for (before, after, expected) in [
            (&fast, &slow, Judged::Slower),
            (&slow, &fast, Judged::Faster),
            (&fast, &wobbly, Judged::WithinNoise),
            // Beyond chance, and not worth a word.
            (&fast, &a_little, Judged::WithinNoise),
            (&timed(&[400]), &timed(&[90_000]), Judged::TooFew),
        ] {
            let compared = compare(before, after);
            assert_eq!(compared.len(), 1, "{compared:?}");
            assert_eq!(compared[0].judged, expected, "{compared:?}");
        }
    }

    #[test]
    fn a_node_that_slowed_as_well_is_seen() {
        let with_the_node = |pods: &[u64], node: u64| {
            let mut report = timed(pods);
            let asked = Query {
                vantage_kind: crate::query::VantageKind::Node,
                rtt_us: Some(node),
                ..report.queries[0].clone()
            };
            report.queries.push(asked);
            report
        };
        let before = with_the_node(&[400, 420, 440], 380);
        for (node, too) in [(9_300, true), (390, false)] {
            let compared = compare(&before, &with_the_node(&[9_400, 9_420, 9_440], node));
            let pods = compared.iter().find(|l| l.path == Path::Pods).expect("pods answered both times");
            assert_eq!((pods.judged, pods.node_too), (Judged::Slower, too), "{compared:?}");
        }
    }

    #[test]
    fn what_was_not_answered_has_no_time() {
        assert_eq!(compare(&examples::leak(), &examples::healthy()).iter().filter(|l| l.path == Path::Pods).count(), 0);
    }
}
