//! REPORT: one type, one file per output format.

pub mod escape;
#[cfg(test)]
pub(crate) mod examples;
pub mod json;
pub mod junit;
pub mod markdown;
pub mod oneline;
pub mod redact;
pub mod saved;
pub mod text;
pub mod view;
pub mod what_if;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    checks::Finding,
    ended::{Direction, Ended},
    facts::Facts,
    query::Query,
    target::{DNS_PORT, Targets},
    trace::{EventCounts, Hook, PacketTrace},
};

/// Name of the schema; v1 only grows.
pub const SCHEMA: &str = "hostdns-probe/report/v1";

/// How a form for people should look; the forms for programs do not care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Columns.
    pub width: usize,
    /// ANSI colours.
    pub color: bool,
    /// Everything instead of a page.
    pub verbose: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { width: 100, color: false, verbose: false }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    #[schemars(extend("const" = SCHEMA))]
    pub schema: String,
    pub tool: Tool,
    /// RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub taken_at: String,
    pub duration_ms: u64,
    pub node: Node,
    /// `address:port`.
    pub targets: Vec<String>,
    pub facts: Facts,
    pub hooks: Vec<Hook>,
    pub queries: Vec<Query>,
    pub traces: Vec<PacketTrace>,
    pub events: EventCounts,
    pub findings: Vec<Finding>,
    pub prediction: Prediction,
    pub verdict: Verdict,
}

impl Report {
    /// What was under test. A saved report is somebody's text: what is no address in it is left out.
    #[must_use]
    pub fn target_sockets(&self) -> Targets {
        let sockets: Vec<std::net::SocketAddr> = self.targets.iter().filter_map(|target| target.parse().ok()).collect();
        let port = sockets.first().map_or(DNS_PORT, std::net::SocketAddr::port);
        Targets { addresses: sockets.iter().map(std::net::SocketAddr::ip).collect(), port }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    pub name: String,
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    pub name: String,
    pub kernel: String,
    pub lockdown: String,
    pub os: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pass,
    Fail,
    #[default]
    Unknown,
}

impl Status {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }
}

/// What the configuration alone says should happen to the queries that decide: a pod's, or those of CoreDNS with
/// hostNetwork.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Prediction {
    pub status: Status,
    pub ended: Option<Ended>,
    pub direction: Direction,
    /// Finding code.
    pub cause: Option<String>,
    /// The facts it follows from, in order; or why nothing can be said.
    pub because: Vec<String>,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    pub status: Status,
    pub ended: Option<Ended>,
    pub direction: Direction,
    /// Finding code of the root where one explains the symptom, else of the symptom.
    pub cause: Option<String>,
    /// One sentence.
    pub summary: String,
}
