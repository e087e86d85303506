//! The facts that are not known.

use serde_json::Value;

use crate::facts::{self, Facts};

/// One fact that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// Its path in the report: `cilium.skip_fib`.
    pub fact: String,
    pub why: String,
    pub source: String,
}

/// Every fact that is not known, in the report's order.
#[must_use]
pub fn unavailable(facts: &Facts) -> Vec<Unavailable> {
    let of = |(fact, value): (String, Value)| {
        let text = |member: &str| value.get(member)?.as_str().map(str::to_owned);
        Some(Unavailable { fact, why: text("unavailable")?, source: text("source")? })
    };
    facts::every(facts).into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{facts::Fact, target::HOST_DNS_V4};

    #[test]
    fn nothing_gathered_is_everything_unavailable() {
        let all = unavailable(&Facts::default());
        assert!(all.len() > 30, "{}", all.len());
        assert!(all.iter().all(|missing| missing.why == "not looked for"));
    }

    #[test]
    fn known_facts_are_left_out_and_the_path_names_the_rest() {
        let mut facts = Facts::default();
        let before = unavailable(&facts).len();
        facts.cilium.version = Fact::known("1.18.1".into(), "agent");
        facts.cilium.skip_fib = Fact::unavailable("no such directory", "/var/run/cilium/state");
        facts.cilium.lxc.insert(HOST_DNS_V4, Fact::unavailable("map absent", "cilium_lxc"));
        let after = unavailable(&facts);
        assert_eq!(after.len(), before, "one less, one more");
        assert!(after.iter().all(|missing| missing.fact != "cilium.version"));
        assert!(after.contains(&Unavailable {
            fact: "cilium.lxc.169.254.116.108".into(),
            why: "map absent".into(),
            source: "cilium_lxc".into(),
        }));
    }
}
