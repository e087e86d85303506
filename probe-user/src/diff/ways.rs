//! How queries ended, way by way: from where, to which address, over which transport. Pods have other names after an
//! upgrade, so it is the kind of path that is compared.

use std::{collections::BTreeMap, net::SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ended::Ended,
    facts::Transport,
    query::{Query, VantageKind},
    report::{Report, view::packet},
};

/// Which path a query takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// A pod's: through its device and Cilium.
    Pods,
    /// The node's own.
    Node,
}

impl Path {
    pub(super) const fn of(kind: VantageKind) -> Self {
        if kind.is_pod() { Self::Pods } else { Self::Node }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Node => "the node",
        }
    }
}

/// One way, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Way {
    pub path: Path,
    pub address: SocketAddr,
    pub transport: Transport,
    pub before: Tally,
    pub after: Tally,
}

/// How the queries of one way ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tally {
    pub asked: usize,
    pub answered: usize,
    /// Ends other than an answer, each once.
    pub others: Vec<Ended>,
}

impl Tally {
    fn add(&mut self, ended: Ended) {
        self.asked += 1;
        if ended == Ended::Answered {
            self.answered += 1;
        } else if !self.others.contains(&ended) {
            self.others.push(ended);
            self.others.sort_unstable();
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.asked > 0 && self.answered == self.asked
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} answered", self.answered, self.asked)?;
        let others: Vec<String> = self.others.iter().map(|ended| packet::word(*ended)).collect();
        if others.is_empty() { Ok(()) } else { write!(f, " ({})", others.join(", ")) }
    }
}

impl Way {
    /// Everything was answered, and not everything is any more; and the failure is no "cannot be told".
    pub(super) fn broke(&self) -> bool {
        self.before.is_whole() && self.after.others.iter().any(|ended| *ended != Ended::Unknown)
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, address, transport, before, after } = self;
        write!(f, "from {} to {address} over {transport}: {before}, now {after}", path.as_str())
    }
}

type Key = (Path, SocketAddr, Transport);

fn tallies(report: &Report) -> BTreeMap<Key, Tally> {
    let mut tallies: BTreeMap<Key, Tally> = BTreeMap::new();
    let is_target = |query: &&Query| report.targets.iter().any(|target| *target == query.address.to_string());
    for query in report.queries.iter().filter(is_target) {
        let key = (Path::of(query.vantage_kind), query.address, query.transport);
        tallies.entry(key).or_default().add(query.ended);
    }
    tallies
}

/// The ways of both whose queries end otherwise.
pub(super) fn changed(before: &Report, after: &Report) -> Vec<Way> {
    let new = tallies(after);
    tallies(before)
        .into_iter()
        .filter_map(|(key, before)| {
            let after = new.get(&key)?.clone();
            let ((path, address, transport), same) =
                (key, before.is_whole() == after.is_whole() && before.others == after.others);
            (!same).then_some(Way { path, address, transport, before, after })
        })
        .collect()
}

/// Ways that only one of them has.
pub(super) fn incomparable(before: &Report, after: &Report) -> Vec<String> {
    let (old, new) = (tallies(before), tallies(after));
    let paths = |tallies: &BTreeMap<Key, Tally>, path| tallies.keys().any(|(one, _, _)| *one == path);
    [Path::Pods, Path::Node]
        .into_iter()
        .filter_map(|path| match (paths(&old, path), paths(&new, path)) {
            (true, false) => Some(format!("nothing was asked from {} the second time", path.as_str())),
            (false, true) => Some(format!("nothing was asked from {} the first time", path.as_str())),
            _ => None,
        })
        .collect()
}
