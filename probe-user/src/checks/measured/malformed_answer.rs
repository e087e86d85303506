//! HDP415 malformed-answer: what came back is not DNS.

use crate::checks::{Case, Check, Finding, code::Code, symptom};

pub(in crate::checks) const CHECK: Check = Check { code: Code::MalformedAnswer, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
Something came back, but it is not a DNS message that answers the question.

The packets get there and back. What listens on the port is not a DNS server, or something on the
way rewrites the payload.

By hand: `dig @ADDRESS example.com` says `malformed` or `mismatch`; `ss -lnup 'sport = :53'` names
the process.

Fix: see who holds the port (the report's listeners name the process), and what a transparent proxy
or a Cilium L7 policy does with port 53.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    symptom::shown(case, Code::MalformedAnswer, "What comes back is not a DNS message.")
}

#[cfg(test)]
mod tests {
    use crate::checks::testing::{Fate, Scene};

    #[test]
    fn is_told_from_an_answer() {
        assert!(Scene::new().coredns(Fate::Malformed).finding("HDP415").is_some());
        assert_eq!(Scene::new().coredns(Fate::Answered).finding("HDP415"), None);
    }
}
