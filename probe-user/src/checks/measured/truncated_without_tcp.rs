//! HDP412 truncated-without-tcp: told to come back over TCP, which does not work.

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code},
    facts::Transport,
    report::Status,
    verdict::{outcome::Outcome, vantage},
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::TruncatedWithoutTcp, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
An answer over UDP was truncated, and TCP does not work.

TC in an answer says: ask again over TCP. Where TCP to the server is broken, names with large
answers cannot be resolved at all, while small ones work. It looks random to users.

By hand: `dig +ignore @ADDRESS NAME` shows the flag tc, and `dig +tcp @ADDRESS NAME` times out.

Fix: make TCP port 53 work (HDP104, HDP408, HDP108); the root stands beside it.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let all = vantage::all(case);
    let broken = |o: &Outcome<'_>| {
        let tcp = |t: &&Outcome<'_>| {
            t.query.transport == Transport::Tcp
                && t.query.vantage == o.query.vantage
                && t.query.address == o.query.address
        };
        all.iter().any(|t| tcp(&t) && t.status() == Status::Fail)
    };
    let lines: Vec<String> = all
        .iter()
        .filter(|o| o.query.transport == Transport::Udp && o.query.truncated && broken(o))
        .map(|o| {
            format!("{}: {} {} from {} was truncated", o.query.vantage, o.query.qname, o.query.qtype, o.query.address)
        })
        .collect();
    if lines.is_empty() {
        return Vec::new();
    }
    let title = "An answer was truncated, and TCP, over which to ask again, does not work.";
    vec![Finding::new(Code::TruncatedWithoutTcp, Severity::Warn, title).evidences(lines)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{Fate, Scene},
        query::VantageKind,
    };

    #[test]
    fn needs_both() {
        let scene = |tcp, truncated| {
            let mut scene = Scene::new().asks(VantageKind::Coredns, Transport::Udp, Fate::Answered).asks(
                VantageKind::Coredns,
                Transport::Tcp,
                tcp,
            );
            scene.queries[0].truncated = truncated;
            scene.finding("HDP412").is_some()
        };
        assert!(scene(Fate::Refused, true));
        assert!(!scene(Fate::Answered, true));
        assert!(!scene(Fate::Refused, false));
    }
}
