//! JUDGE: checks as data. Judging takes what was gathered, asked and followed, and returns findings; it opens nothing.

pub mod code;
pub mod remedy;
mod symptom;
#[cfg(test)]
pub(crate) mod testing;

mod cilium;
mod coredns;
mod measured;
mod node;
mod probe;

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use code::Code;

use crate::{
    facts::Facts,
    predict::{predict, predict_on_host},
    query::{Query, VantageKind},
    report::{Prediction, Status},
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
    /// Of a pod's query.
    pub prediction: &'a Prediction,
    /// Of a query from the node's own network.
    pub prediction_on_host: &'a Prediction,
}

impl<'a> Case<'a> {
    /// What configuration says of queries from there.
    #[must_use]
    pub const fn prediction_for(&self, kind: VantageKind) -> &'a Prediction {
        if kind.is_pod() { self.prediction } else { self.prediction_on_host }
    }

    /// What configuration says of this very query.
    #[must_use]
    pub fn prediction_of(&self, query: &Query) -> Cow<'a, Prediction> {
        self.prediction_to(query.vantage_kind, query.address)
    }

    /// What it says of queries from there to one of the targets: with several, the prediction is that of the worst.
    #[must_use]
    pub fn prediction_to(&self, kind: VantageKind, target: SocketAddr) -> Cow<'a, Prediction> {
        if self.targets.addresses.len() <= 1 {
            return Cow::Borrowed(self.prediction_for(kind));
        }
        let one = Targets { addresses: vec![target.ip()], port: target.port() };
        let predict = if kind.is_pod() { predict } else { predict_on_host };
        Cow::Owned(predict(self.facts, &one))
    }

    /// That Cilium does not know this address does no harm: pods' packets to it go to the node all the same.
    #[must_use]
    pub fn is_delivered_anyway(&self, address: IpAddr) -> bool {
        let target = SocketAddr::new(address, self.targets.port);
        remedy::is_legacy(self) || self.prediction_to(VantageKind::Pod, target).status == Status::Pass
    }
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
    #[schemars(regex(pattern = r"^HDP[0-9]{3}$"))]
    pub code: String,
    /// `unknown-address-leaks`.
    pub slug: String,
    pub severity: Severity,
    /// One sentence.
    pub title: String,
    /// Why, in a few sentences for a person; what it rests on is `evidence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub story: Option<String>,
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
    /// The same in another form: take one of them, never both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<Variant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caution: Option<String>,
}

/// Another form of a remedy's patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Variant {
    /// Where it is the form to use: "Talos 1.12 and later, as a document".
    pub title: String,
    pub patch: String,
}

/// One check: its code, its whole story for `explain`, and its rule.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    pub code: Code,
    /// First line: what it means, in one sentence. Then why; `By hand:`, how to see it without this tool; `Fix:`; and
    /// `Versions:`, which ones it is about. Markdown, for docs/findings.md.
    pub explain: &'static str,
    pub run: fn(&Case<'_>) -> Vec<Finding>,
}

/// Every check there is.
pub const REGISTRY: &[Check] = &[
    probe::missing_privilege::CHECK,
    probe::no_btf::CHECK,
    probe::hook_unavailable::CHECK,
    probe::cgroup_root_not_found::CHECK,
    probe::events_lost::CHECK,
    probe::source_unreachable::CHECK,
    probe::unknown_map_layout::CHECK,
    probe::namespace_unreachable::CHECK,
    probe::out_of_time::CHECK,
    probe::talos_resources_differ::CHECK,
    probe::sources_disagree::CHECK,
    node::address_absent::CHECK,
    node::address_scope_hidden::CHECK,
    node::nobody_listens::CHECK,
    node::listener_incomplete::CHECK,
    node::address_elsewhere::CHECK,
    node::local_route_missing::CHECK,
    node::rp_filter_strict::CHECK,
    node::node_firewall_blocks::CHECK,
    cilium::unknown_address_leaks::CHECK,
    cilium::unknown_address_dropped::CHECK,
    cilium::settings_not_applied::CHECK,
    cilium::legacy_fallback::CHECK,
    cilium::workaround_redundant::CHECK,
    cilium::workaround_ignored::CHECK,
    cilium::regression_range::CHECK,
    cilium::ip_masq_agent_no_help::CHECK,
    cilium::snat_entry::CHECK,
    cilium::scope_and_map_disagree::CHECK,
    cilium::local_redirect_policy::CHECK,
    cilium::datapath_not_observable::CHECK,
    cilium::policy_drop::CHECK,
    cilium::agent_unhealthy::CHECK,
    coredns::not_on_this_node::CHECK,
    coredns::bypasses_host_dns::CHECK,
    coredns::corefile_unreadable::CHECK,
    coredns::on_host_network::CHECK,
    coredns::no_vantage::CHECK,
    measured::query_dropped::CHECK,
    measured::query_leaked::CHECK,
    measured::reply_lost::CHECK,
    measured::reply_dropped::CHECK,
    measured::port_unreachable::CHECK,
    measured::unanswered::CHECK,
    measured::upstream_failing::CHECK,
    measured::one_transport_broken::CHECK,
    measured::one_family_broken::CHECK,
    measured::slow::CHECK,
    measured::answers_differ::CHECK,
    measured::truncated_without_tcp::CHECK,
    measured::prediction_disagrees::CHECK,
    measured::query_lost::CHECK,
    measured::malformed_answer::CHECK,
];

/// Runs every check; the worst findings first, then by code.
#[must_use]
pub fn run(case: &Case<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = REGISTRY.iter().flat_map(|check| (check.run)(case)).collect();
    findings.sort_by(|a, b| (a.severity, &a.code).cmp(&(b.severity, &b.code)));
    findings
}

impl Finding {
    #[must_use]
    pub fn new(code: Code, severity: Severity, title: impl Into<String>) -> Self {
        Self {
            code: code.id(),
            slug: code.slug().into(),
            severity,
            title: title.into(),
            story: None,
            evidence: Vec::new(),
            remedies: Vec::new(),
        }
    }

    #[must_use]
    pub fn story(mut self, story: impl Into<String>) -> Self {
        self.story = Some(story.into());
        self
    }

    #[must_use]
    pub fn evidence(mut self, line: impl Into<String>) -> Self {
        self.evidence.push(line.into());
        self
    }

    #[must_use]
    pub fn evidences(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(lines);
        self
    }

    #[must_use]
    pub fn remedies(mut self, remedies: impl IntoIterator<Item = Remedy>) -> Self {
        self.remedies.extend(remedies);
        self
    }
}

impl Remedy {
    #[must_use]
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), steps: Vec::new(), patch: None, variants: Vec::new(), caution: None }
    }

    #[must_use]
    pub fn step(mut self, step: impl Into<String>) -> Self {
        self.steps.push(step.into());
        self
    }

    #[must_use]
    pub fn patch(mut self, patch: impl Into<String>) -> Self {
        self.patch = Some(patch.into());
        self
    }

    #[must_use]
    pub fn variant(mut self, title: impl Into<String>, patch: impl Into<String>) -> Self {
        self.variants.push(Variant { title: title.into(), patch: patch.into() });
        self
    }

    #[must_use]
    pub fn caution(mut self, caution: impl Into<String>) -> Self {
        self.caution = Some(caution.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::Scene, *};

    #[test]
    fn every_code_has_one_check_in_order() {
        let codes: Vec<Code> = REGISTRY.iter().map(|check| check.code).collect();
        assert_eq!(codes, Code::ALL);
    }

    #[test]
    fn explanations_start_with_one_sentence_and_go_on() {
        for Check { code, explain, .. } in REGISTRY {
            let (first, rest) = explain.split_once("\n\n").unwrap_or_else(|| panic!("{code}: one paragraph"));
            assert!(first.ends_with('.') && !first.contains('\n'), "{code}: {first}");
            for part in ["By hand: ", "Fix", "Versions: "] {
                let there = rest.split("\n\n").filter(|paragraph| paragraph.starts_with(part)).count();
                assert_eq!(there, 1, "{code}: paragraphs that begin with {part:?}");
            }
            assert!(explain.lines().all(|line| line.chars().count() <= 100), "{code} has a line over 100 columns");
        }
    }

    #[test]
    fn nothing_gathered_is_no_failure() {
        let mut scene = Scene::new().facts(|facts| *facts = Facts::default());
        scene.hooks.clear();
        for finding in scene.findings() {
            assert_ne!(finding.severity, Severity::Fail, "{finding:?}");
        }
    }

    #[test]
    fn findings_are_sorted() {
        let scene = Scene::new().facts(testing::hide).coredns(testing::Fate::Leaked);
        let findings = scene.findings();
        assert!(findings.len() > 2);
        assert!(findings.is_sorted_by_key(|finding| (finding.severity, finding.code.clone())));
    }
}
