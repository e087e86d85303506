//! JUDGE: checks as data. Judging takes what was gathered, asked and followed, and returns findings; it opens nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    facts::Facts,
    query::Query,
    report::Prediction,
    target::Targets,
    trace::{EventCounts, Hook, PacketTrace},
};

/// Everything a check may look at.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    pub targets: &'a Targets,
    pub facts: &'a Facts,
    pub hooks: &'a [Hook],
    pub queries: &'a [Query],
    pub traces: &'a [PacketTrace],
    pub events: EventCounts,
    pub prediction: &'a Prediction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Fail,
    Warn,
    Info,
}

/// What a check found, with the evidence and what would help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// `HDP201`.
    pub code: String,
    /// `unknown-address-leaks`.
    pub slug: String,
    pub severity: Severity,
    /// One sentence.
    pub title: String,
    pub evidence: Vec<String>,
    pub remedies: Vec<Remedy>,
}

/// A way out that would work on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Remedy {
    pub title: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    /// Text to paste: a Talos machine configuration, Helm values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caution: Option<String>,
}
