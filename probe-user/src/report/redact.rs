//! A report that can be shown to strangers: names and addresses are replaced, the same one always by the same, so that
//! the story can still be followed. Kept are the well-known addresses (loopback, link-local IPv4 as host DNS has, Talos'
//! IPv6 host DNS), interfaces, the questions that the probe asks by default, releases and times.

mod addresses;
mod names;

use serde_json::Value;

use self::{addresses::Addresses, names::Names};
use super::Report;

/// Replaces the names and addresses of a report.
///
/// # Errors
/// What comes out is no report: a bug here, and nothing that may be shown.
pub fn redact(report: &Report) -> Result<Report, serde_json::Error> {
    let mut value = serde_json::to_value(report)?;
    let mut redactor = Redactor { names: Names::of(report), addresses: Addresses::default() };
    redactor.walk(&mut value, None);
    serde_json::from_value(value)
}

struct Redactor {
    names: Names,
    addresses: Addresses,
}

/// Members that hold a word of this tool's own: a pod may be called `udp`, and the transport stays what it is.
const OWN_WORDS: &[&str] = &[
    "schema",
    "version",
    "taken_at",
    "status",
    "ended",
    "direction",
    "severity",
    "code",
    "slug",
    "cause",
    "transport",
    "vantage_kind",
    "hook",
    "kind",
    "role",
    "qtype",
    "rcode",
    "patch",
];

impl Redactor {
    fn walk(&mut self, value: &mut Value, member: Option<&str>) {
        match value {
            Value::String(text) => *text = self.text(text, member),
            Value::Array(all) => all.iter_mut().for_each(|one| self.walk(one, member)),
            Value::Object(members) => {
                let old = std::mem::take(members);
                for (key, mut value) in old {
                    self.walk(&mut value, Some(&key));
                    // Maps by address: the key is one.
                    members.insert(self.addresses.replace(&key), value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn text(&mut self, text: &str, member: Option<&str>) -> String {
        if member == Some("answers") {
            return self.answer(text);
        }
        let named = if member.is_some_and(|member| OWN_WORDS.contains(&member)) && member != Some("patch") {
            text.to_owned()
        } else {
            self.names.replace(text)
        };
        self.addresses.replace(&named)
    }

    /// Text of a record: an address, or what may be anything.
    fn answer(&mut self, text: &str) -> String {
        let replaced = self.addresses.replace(text);
        if replaced == text && text.parse::<std::net::IpAddr>().is_err() {
            return "redacted".to_owned();
        }
        replaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Options, examples, markdown, text};

    fn rendered(report: &Report) -> String {
        let options = Options { verbose: true, ..Options::default() };
        let json = serde_json::to_string_pretty(report).expect("JSON");
        format!(
            "{}{}{json}",
            examples::rendered(text::render, report, &options),
            examples::rendered(markdown::render, report, &options)
        )
    }

    #[test]
    fn nothing_of_the_examples_remains_and_the_story_does() {
        for (name, report) in examples::all() {
            let redacted = redact(&report).expect(name);
            let text = rendered(&redacted);
            for secret in ["cp-1", "coredns-7c9d", "10.244.", "192.168.77."] {
                assert!(!text.contains(secret), "{name}: {secret} in\n{text}");
            }
            assert!(text.contains("169.254.116.108"), "{name}: the address under test is well known");
            assert_eq!(redacted.verdict.status, report.verdict.status);
            assert_eq!(redacted.queries.len(), report.queries.len());
        }
    }

    #[test]
    fn the_same_is_always_the_same() {
        let report = redact(&examples::leak()).expect("a report");
        let source = report.queries.iter().find(|query| query.vantage_kind.is_pod()).and_then(|query| query.source);
        let source = source.expect("the example has one").ip().to_string();
        let text = rendered(&report);
        assert!(text.matches(&source).count() > 3, "{source} is the pod's everywhere:\n{text}");
        assert_eq!(report.node.name, "node-1");
        assert!(report.verdict.summary.contains("node-1"), "{}", report.verdict.summary);
    }

    #[test]
    fn twice_is_a_report_still_and_once_is_stable() {
        let once = redact(&examples::leak()).expect("a report");
        assert_eq!(once, redact(&examples::leak()).expect("a report"));
        redact(&once).expect("still a report");
    }

    #[test]
    fn a_pod_may_be_called_like_a_word_of_ours() {
        let mut report = examples::leak();
        for query in &mut report.queries {
            query.vantage = "udp".into();
        }
        report.facts.pods = crate::facts::Fact::known(Vec::new(), "pass");
        report.node.name = "fail".into();
        let redacted = redact(&report).expect("still a report");
        assert_eq!(redacted.verdict.status, report.verdict.status);
        assert!(redacted.queries.iter().all(|query| query.vantage != "udp"), "{:?}", redacted.queries[0]);
    }
}
