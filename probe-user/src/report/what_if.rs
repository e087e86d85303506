//! What the model predicts after a change, beside what it predicts now.

use std::io::{self, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Options, Prediction, Status, escape};
use crate::{
    facts::Facts,
    predict::{
        Deciding, predict_for,
        what_if::{self, Change},
    },
    target::Targets,
};

/// Name of the schema; v1 only grows.
pub const SCHEMA: &str = "hostdns-probe/what-if/v1";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhatIf {
    #[schemars(extend("const" = SCHEMA))]
    pub schema: String,
    pub node: String,
    /// `address:port`.
    pub targets: Vec<String>,
    pub changes: Vec<Changed>,
    /// As the node is.
    pub now: Prediction,
    /// With the changes made, in their order.
    pub then: Prediction,
    /// Where CoreDNS asks from the node's own network: what the other pods get, which do not decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_pods: Option<NowAndThen>,
}

/// One way's predictions, before and after the changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NowAndThen {
    pub now: Prediction,
    pub then: Prediction,
}

/// One change, in the words of `--what-if`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    pub key: String,
    /// None: not known.
    pub before: Option<String>,
    pub after: String,
}

impl WhatIf {
    /// Predicts both, for those who decide. Nothing is asked, and nothing is changed.
    #[must_use]
    pub fn of(node: &str, facts: &Facts, targets: &Targets, deciding: Deciding, changes: &[Change]) -> Self {
        let changed = |change: &Change| Changed {
            key: change.key().to_owned(),
            before: what_if::now(facts, targets, change),
            after: change.value(),
        };
        Self {
            schema: SCHEMA.to_owned(),
            node: node.to_owned(),
            targets: targets.sockets().map(|target| target.to_string()).collect(),
            changes: changes.iter().map(changed).collect(),
            now: predict_for(facts, targets, deciding),
            then: what_if::after(facts, targets, deciding, changes),
            other_pods: (deciding == Deciding::Node).then(|| NowAndThen {
                now: predict_for(facts, targets, Deciding::Pods),
                then: what_if::after(facts, targets, Deciding::Pods, changes),
            }),
        }
    }
}

/// # Errors
/// `out` cannot be written.
pub fn render(what_if: &WhatIf, _options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let line = |text: &str| escape::line(text).into_owned();
    writeln!(
        out,
        "Predicted from configuration for {} on {}; no packet was sent.",
        line(&what_if.targets.join(", ")),
        line(&what_if.node)
    )?;
    prediction("Now", &what_if.now, out)?;
    writeln!(out, "\nWith")?;
    for Changed { key, before, after } in &what_if.changes {
        let named = |before: &String| if before.is_empty() { "nothing".to_owned() } else { before.clone() };
        let before = before.as_ref().map(|before| format!("   (now {})", named(before))).unwrap_or_default();
        writeln!(out, "  {}", line(&format!("{key}={after}{before}")))?;
    }
    prediction("Then", &what_if.then, out)?;
    if let Some(pods) = &what_if.other_pods {
        prediction("Other pods, now", &pods.now, out)?;
        prediction("Other pods, then", &pods.then, out)?;
    }
    // "answered" is no promise: a node may fail, and its prediction be a pass.
    writeln!(out, "\nOf network policies, firewalls and upstreams the model knows nothing: `hostdns-probe check` asks.")
}

fn prediction(title: &str, prediction: &Prediction, out: &mut dyn Write) -> io::Result<()> {
    let status = prediction.status.as_str().to_uppercase();
    let ended =
        prediction.ended.map(|ended| format!("  queries: {}", super::view::packet::word(ended))).unwrap_or_default();
    let cause = prediction.cause.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
    let steps = if prediction.status == Status::Unknown {
        prediction.because.iter().rev().take(1).collect()
    } else {
        Vec::from_iter(&prediction.because)
    };
    writeln!(out, "\n{title}: {}", escape::line(&format!("{status}{ended}{cause}")))?;
    steps.into_iter().try_for_each(|step| writeln!(out, "  - {}", escape::line(step)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{facts, hide};

    #[test]
    fn pods_beside_a_coredns_on_the_host_network_are_told_of() {
        let mut facts = facts();
        hide(&mut facts);
        let changes = ["lo-scope=global".parse().expect("a change")];
        let of = |deciding| WhatIf::of("n1", &facts, &Targets::default(), deciding, &changes);
        let pods = of(Deciding::Node).other_pods.expect("they do not decide");
        assert_eq!((pods.now.status, pods.then.status), (Status::Fail, Status::Pass));
        assert_eq!(of(Deciding::Pods).other_pods, None);
        let mut out = Vec::new();
        render(&of(Deciding::Node), &Options::default(), &mut out).expect("memory");
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(text.contains("Other pods, now: FAIL  queries: leaked (HDP201)"), "{text}");
        assert!(text.contains("Other pods, then: PASS"), "{text}");
    }

    #[test]
    fn what_was_empty_is_said_to_have_been() {
        let mut facts = facts();
        facts.cilium.exclude_local_addresses = crate::checks::testing::known(Vec::new());
        let changes = ["exclude-local-address=169.254.116.108".parse().expect("a change")];
        let what_if = WhatIf::of("n1", &facts, &Targets::default(), Deciding::Pods, &changes);
        let mut out = Vec::new();
        render(&what_if, &Options::default(), &mut out).expect("memory");
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(text.contains("exclude-local-address=169.254.116.108   (now nothing)"), "{text}");
    }

    #[test]
    fn both_predictions_side_by_side() {
        let mut facts = facts();
        hide(&mut facts);
        let changes = ["cilium-version=1.19.0-pre.0", "devices=2"].map(|text| text.parse().expect(text));
        let what_if = WhatIf::of("n1", &facts, &Targets::default(), Deciding::Pods, &changes);
        let mut out = Vec::new();
        render(&what_if, &Options::default(), &mut out).expect("memory");
        insta::assert_snapshot!(String::from_utf8(out).expect("UTF-8"));
        let json = serde_json::to_value(&what_if).expect("JSON");
        assert_eq!(serde_json::from_value::<WhatIf>(json).expect("it comes back"), what_if);
    }
}
