//! The one word for what lies between two reports, and what the exit code follows from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Findings, Latency, Way, latency::Judged};
use crate::{
    checks::{Finding, Severity},
    report::{Report, Status, Verdict, view::packet},
};

/// What became of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Something that worked fails now.
    Regression,
    /// It failed before and fails now, in another way.
    BrokenOtherwise,
    /// It failed before and fails now, as it did.
    StillBroken,
    /// It failed before and works now.
    Fixed,
    /// It works, with new warnings or slower.
    Degraded,
    /// It works as before, and something about the node is not what it was.
    Changed,
    /// Nothing that matters.
    Unchanged,
    /// One of them could not judge.
    Unknown,
}

impl Outcome {
    /// As a person reads it, in capitals.
    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Regression => "REGRESSION",
            Self::BrokenOtherwise => "BROKEN OTHERWISE",
            Self::StillBroken => "STILL BROKEN",
            Self::Fixed => "FIXED",
            Self::Degraded => "DEGRADED",
            Self::Changed => "CHANGED",
            Self::Unchanged => "UNCHANGED",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// The word and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    pub outcome: Outcome,
    pub summary: String,
    pub regressions: Vec<String>,
    pub warnings: Vec<String>,
}

/// Judges. A verdict that could not be reached leaves the whole open, whatever else is new.
#[must_use]
pub fn word(before: &Report, after: &Report, ways: &[Way], latency: &[Latency], findings: &Findings) -> Judgement {
    let (old, new) = (&before.verdict, &after.verdict);
    let regressions = regressions(old, new, ways, findings);
    let warnings = warnings(new, latency, findings);
    let outcome = match (old.status, new.status) {
        _ if !share_a_target(before, after) => Outcome::Unknown,
        (Status::Unknown, _) | (_, Status::Unknown) => Outcome::Unknown,
        (Status::Fail, Status::Pass) => Outcome::Fixed,
        (Status::Fail, Status::Fail) if is_same(old, new) && regressions.is_empty() => Outcome::StillBroken,
        (Status::Fail, Status::Fail) => Outcome::BrokenOtherwise,
        (Status::Pass, _) if !regressions.is_empty() => Outcome::Regression,
        (Status::Pass, Status::Fail) => Outcome::Regression,
        (Status::Pass, Status::Pass) if !warnings.is_empty() => Outcome::Degraded,
        (Status::Pass, Status::Pass) if super::observed::changes(before, after).is_empty() => Outcome::Unchanged,
        (Status::Pass, Status::Pass) => Outcome::Changed,
    };
    let only_slower = worse(findings, Severity::Warn).next().is_none();
    Judgement { outcome, summary: summary(outcome, before, after, only_slower), regressions, warnings }
}

/// What one address did says nothing of another.
fn share_a_target(before: &Report, after: &Report) -> bool {
    before.targets.iter().any(|target| after.targets.contains(target))
}

fn is_same(old: &Verdict, new: &Verdict) -> bool {
    (old.ended, old.direction, &old.cause) == (new.ended, new.direction, &new.cause)
}

fn regressions(old: &Verdict, new: &Verdict, ways: &[Way], findings: &Findings) -> Vec<String> {
    let mut all = Vec::new();
    if old.status == Status::Pass && new.status == Status::Fail {
        all.push(format!("the verdict was pass and is {}", said(new)));
    }
    all.extend(ways.iter().filter(|way| way.broke()).map(|way| format!("queries {way}")));
    // What was fixed may have left something else to see: that is a warning.
    if new.status == Status::Fail || old.status == Status::Pass {
        all.extend(worse(findings, Severity::Fail));
    }
    all
}

fn warnings(new: &Verdict, latency: &[Latency], findings: &Findings) -> Vec<String> {
    let mut all: Vec<String> = worse(findings, Severity::Warn).collect();
    if new.status == Status::Pass {
        let slower = latency.iter().filter(|latency| latency.judged == Judged::Slower);
        all.extend(slower.map(|l| format!("answers {} were slower: {}", super::text::way(l), super::text::maybe(l))));
    }
    all
}

/// `HDP201 unknown-address-leaks is new`.
pub(super) fn is_new(finding: &Finding) -> String {
    format!("{} {} is new", finding.code, finding.slug)
}

/// Findings that are new with this severity, or have risen to it.
fn worse(findings: &Findings, severity: Severity) -> impl Iterator<Item = String> {
    let new = findings.new.iter().filter(move |finding| finding.severity == severity).map(is_new);
    let risen = findings.other_severity.iter().filter(move |one| one.after == severity && one.after < one.before);
    new.chain(risen.map(|one| format!("{} {} is worse than it was", one.code, one.slug)))
}

/// `leaked (HDP201)`.
pub(super) fn said(verdict: &Verdict) -> String {
    let ended = verdict.ended.map_or_else(|| verdict.status.as_str().to_owned(), packet::word);
    let reply = if verdict.direction == crate::ended::Direction::Reply { "reply " } else { "" };
    let cause = verdict.cause.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
    match verdict.status {
        Status::Pass => format!("pass{cause}"),
        Status::Fail => format!("fail: {reply}{ended}{cause}"),
        Status::Unknown => format!("unknown{cause}"),
    }
}

fn summary(outcome: Outcome, before: &Report, after: &Report, only_slower: bool) -> String {
    let (old, new) = (said(&before.verdict), said(&after.verdict));
    let node = &after.node.name;
    match outcome {
        Outcome::Regression if after.verdict.status == Status::Pass => {
            format!("{node} still passes, and something that worked before fails now.")
        }
        Outcome::Regression => format!("It worked before and does not now. {}", after.verdict.summary),
        Outcome::BrokenOtherwise => format!("It failed before ({old}) and fails now in another way ({new})."),
        Outcome::StillBroken => format!("It failed before and fails now, in the same way ({new})."),
        Outcome::Fixed => format!("It failed before ({old}) and works now."),
        Outcome::Degraded if only_slower => {
            "It works, and answers were slower than before: one check cannot tell this change from a busy moment."
                .to_owned()
        }
        Outcome::Degraded => "It works, with warnings that were not there before.".to_owned(),
        Outcome::Changed => "It works as before; the node is not what it was.".to_owned(),
        Outcome::Unchanged => "It works as before, and nothing that matters has changed.".to_owned(),
        Outcome::Unknown if !share_a_target(before, after) => format!(
            "The two are about different addresses ({} and {}): they cannot be compared.",
            before.targets.join(", "),
            after.targets.join(", ")
        ),
        Outcome::Unknown => {
            let which = match (before.verdict.status, after.verdict.status) {
                (Status::Unknown, Status::Unknown) => "Neither report could judge".to_owned(),
                (Status::Unknown, _) => format!("The first report could not judge; the second says {new}"),
                _ => format!("The second report could not judge; the first said {old}"),
            };
            format!("{which}. Whether this is a regression cannot be told.")
        }
    }
}
