//! The facts as their own JSON has them, found by walking it, so that a new fact is never forgotten.

use serde_json::Value;

use super::Facts;

/// Every fact by its path in the report (`cilium.skip_fib`), in the report's order.
#[must_use]
pub fn every(facts: &Facts) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    // Facts are plain data with text keys: they always serialise.
    if let Ok(value) = serde_json::to_value(facts) {
        walk(value, "", &mut found);
    }
    found
}

fn walk(value: Value, path: &str, found: &mut Vec<(String, Value)>) {
    let Value::Object(members) = value else {
        return;
    };
    if members.contains_key("known") || members.contains_key("unavailable") {
        found.push((path.to_owned(), Value::Object(members)));
        return;
    }
    for (name, member) in members {
        let path = if path.is_empty() { name } else { format!("{path}.{name}") };
        walk(member, &path, found);
    }
}

/// A fact of which its sources say different things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// Its path in the report.
    pub fact: String,
    /// What counts; none where that is too long for a line.
    pub known: Option<String>,
    pub source: String,
    /// What the others say, each with its source.
    pub others: Vec<String>,
}

/// Every fact of which its sources say different things, in the report's order.
#[must_use]
pub fn disagreements(facts: &Facts) -> Vec<Disagreement> {
    let of = |(fact, value): (String, Value)| {
        let others = value.get("others")?.as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let source = value.get("source")?.as_str()?.to_owned();
        Some(Disagreement { fact, known: value.get("known").and_then(words), source, others })
    };
    every(facts).into_iter().filter_map(of).collect()
}

/// Text, numbers, switches and lists of them, as one would say them.
pub(super) fn words(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Object(_) => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(items) if items.is_empty() => Some("none".into()),
        Value::Array(items) => Some(items.iter().map(words).collect::<Option<Vec<_>>>()?.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Fact, HostRouting};

    #[test]
    fn every_fact_is_found_by_its_path() {
        let all = every(&Facts::default());
        assert!(all.len() > 40, "{}", all.len());
        assert!(all.iter().any(|(path, _)| path == "network.pod_resolv_conf"));
        assert!(all.iter().any(|(path, _)| path == "listeners"));
    }

    #[test]
    fn what_counts_and_what_others_say_is_told_in_words() {
        let mut facts = Facts::default();
        assert_eq!(disagreements(&facts), []);
        facts.cilium.host_routing = Fact::known(HostRouting::Bpf, "agent");
        facts.cilium.devices = Fact::known(vec!["eth0".into(), "eth1".into()], "agent");
        facts.cilium.exclude_local_addresses = Fact::known(Vec::new(), "agent");
        facts.coredns = Fact::known(vec![crate::checks::testing::facts().coredns.get().unwrap()[0].clone()], "/proc");
        assert_eq!(disagreements(&facts), [], "one source each");
        facts.cilium.host_routing.differs("node_config.h: Legacy");
        facts.cilium.devices.differs("pins: eth0");
        facts.cilium.exclude_local_addresses.differs("ConfigMap: 10.0.0.0/8");
        facts.coredns.differs("ConfigMap: forwards to 1.1.1.1");
        let told: Vec<_> = disagreements(&facts).into_iter().map(|one| (one.fact, one.known)).collect();
        let expected = [
            ("cilium.host_routing", Some("BPF")),
            ("cilium.exclude_local_addresses", Some("none")),
            ("cilium.devices", Some("eth0 eth1")),
            ("coredns", None),
        ];
        for (fact, known) in expected {
            assert!(told.contains(&(fact.to_owned(), known.map(str::to_owned))), "{fact}: {told:?}");
        }
    }
}
