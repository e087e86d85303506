//! Two saved reports, and what changed between them that matters: the regression test after an upgrade. Pure; reading
//! and printing are the command's.

mod culprit;
mod latency;
mod markdown;
mod observed;
mod rank_sum;
mod text;
mod ways;
mod word;

pub use latency::Latency;
pub use ways::{Path, Way};
pub use word::{Outcome, word};
pub use {markdown::render as markdown, text::render as text};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    checks::{Finding, Severity},
    report::{Prediction, Report, Verdict},
};

/// Name of the schema; v1 only grows.
pub const SCHEMA: &str = "hostdns-probe/diff/v1";

/// What lies between two reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Diff {
    #[schemars(extend("const" = SCHEMA))]
    pub schema: String,
    pub before: Side,
    pub after: Side,
    pub outcome: Outcome,
    /// One sentence.
    pub summary: String,
    /// What worked before and fails now.
    pub regressions: Vec<String>,
    /// What is worse, and does not make the gate fail unless `--strict` says so.
    pub warnings: Vec<String>,
    /// Versions, settings, addresses and their scopes that are not what they were.
    pub changes: Vec<Changed>,
    /// Changes after which, made alone to the node as it was before, the model predicts what it predicts now.
    pub culprits: Vec<Culprit>,
    /// Ways whose queries end otherwise than before.
    pub ways: Vec<Way>,
    pub latency: Vec<Latency>,
    pub findings: Findings,
    /// What keeps the two from being compared as they should be: other nodes, other targets, other vantages.
    pub caveats: Vec<String>,
}

/// One of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Side {
    /// What it was read from.
    pub name: String,
    pub node: String,
    /// RFC 3339.
    pub taken_at: String,
    /// Version of the probe that took it.
    pub probe: String,
    pub prediction: Prediction,
    pub verdict: Verdict,
}

/// A value that is not what it was. None: it is not known, and `why` says why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// `cilium.version`, `address.169.254.116.108`.
    pub what: String,
    pub before: Option<String>,
    pub after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A change that by the model is what did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Culprit {
    /// The key of `--what-if`; `coredns.network` where CoreDNS has hostNetwork at one time only.
    pub what: String,
    pub before: String,
    pub after: String,
    /// The steps of the prediction that differ from the one before.
    pub because: Vec<String>,
}

/// By code. A finding that is there both times with another severity is in neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Findings {
    pub new: Vec<Finding>,
    pub gone: Vec<Finding>,
    pub other_severity: Vec<OtherSeverity>,
}

/// A finding whose severity changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OtherSeverity {
    pub code: String,
    pub slug: String,
    pub before: Severity,
    pub after: Severity,
}

/// A report and what it was read from.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    pub name: &'a str,
    pub report: &'a Report,
}

/// Compares.
#[must_use]
pub fn diff(before: Named<'_>, after: Named<'_>) -> Diff {
    let (old, new) = (before.report, after.report);
    let caveats = caveats(old, new);
    let ways = ways::changed(old, new);
    let latency = latency::compare(old, new);
    let findings = findings(old, new);
    let judged = word(old, new, &ways, &latency, &findings);
    Diff {
        schema: SCHEMA.to_owned(),
        before: side(before),
        after: side(after),
        outcome: judged.outcome,
        summary: judged.summary,
        regressions: judged.regressions,
        warnings: judged.warnings,
        changes: observed::changes(old, new),
        culprits: culprit::find(old, new),
        ways,
        latency,
        findings,
        caveats,
    }
}

fn side(named: Named<'_>) -> Side {
    let Named { name, report } = named;
    Side {
        name: name.to_owned(),
        node: report.node.name.clone(),
        taken_at: report.taken_at.clone(),
        probe: report.tool.version.clone(),
        prediction: report.prediction.clone(),
        verdict: report.verdict.clone(),
    }
}

fn findings(before: &Report, after: &Report) -> Findings {
    let has = |report: &Report, code: &str| report.findings.iter().any(|finding| finding.code == code);
    let only = |of: &Report, not: &Report| {
        of.findings.iter().filter(|finding| !has(not, &finding.code)).cloned().collect::<Vec<_>>()
    };
    let worst = |report: &Report, code: &str| {
        report.findings.iter().filter(|finding| finding.code == code).map(|finding| finding.severity).min()
    };
    let mut other_severity: Vec<OtherSeverity> = Vec::new();
    for finding in &after.findings {
        let (then, now) = (worst(before, &finding.code), worst(after, &finding.code));
        if let (Some(before), Some(after)) = (then, now)
            && before != after
            && !other_severity.iter().any(|told| told.code == finding.code)
        {
            let (code, slug) = (finding.code.clone(), finding.slug.clone());
            other_severity.push(OtherSeverity { code, slug, before, after });
        }
    }
    Findings { new: only(after, before), gone: only(before, after), other_severity }
}

fn caveats(before: &Report, after: &Report) -> Vec<String> {
    let mut caveats = Vec::new();
    if before.node.name != after.node.name {
        caveats.push(format!("these are two nodes, {} and {}", before.node.name, after.node.name));
    }
    if before.targets != after.targets {
        let (old, new) = (before.targets.join(", "), after.targets.join(", "));
        caveats.push(format!("what was asked differs: {old} before, {new} after"));
    }
    let time = |report: &Report| report.taken_at.parse::<jiff::Timestamp>().ok();
    if let (Some(old), Some(new)) = (time(before), time(after))
        && new < old
    {
        caveats.push("the second report was taken before the first: are they in the right order?".to_owned());
    }
    if before.tool.version != after.tool.version {
        let (old, new) = (&before.tool.version, &after.tool.version);
        caveats
            .push(format!("hostdns-probe itself changed, {old} to {new}: findings may be new because it finds more"));
    }
    caveats.extend(ways::incomparable(before, after));
    caveats
}

#[cfg(test)]
mod tests;
