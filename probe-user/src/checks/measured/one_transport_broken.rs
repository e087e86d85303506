//! HDP408 one-transport-broken: UDP works and TCP does not, or the other way round.

use crate::{
    checks::{Case, Check, Finding, code::Code, symptom},
    ended::Ended,
    facts::Transport,
    report::Status,
    verdict::{outcome::Outcome, vantage},
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::OneTransportBroken, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
One of UDP and TCP works and the other does not.

The same address, the same vantage, another transport, another end. A server that listens on one
only (HDP104), a firewall or a network policy with a rule for one protocol are the usual reasons.
It hides well: dig uses UDP, so a broken TCP shows only with large answers, and with resolvers that
prefer TCP.

By hand: `dig +notcp @ADDRESS example.com` and `dig +tcp @ADDRESS example.com`, from a pod.

Fix: the one of the root, if one is named; else compare the two traces in the report, and look for
rules that name a protocol.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let all = vantage::all(case);
    let mut hit = Vec::new();
    for outcome in &all {
        let same = |other: &&Outcome<'_>| {
            other.query.vantage == outcome.query.vantage && other.query.address == outcome.query.address
        };
        let of = |transport| all.iter().filter(same).filter(move |other| other.query.transport == transport);
        let other = if outcome.query.transport == Transport::Udp { Transport::Tcp } else { Transport::Udp };
        let broken = of(outcome.query.transport).all(|o| o.status() == Status::Fail);
        let fine = of(other).next().is_some() && of(other).all(|o| o.ended == Ended::Answered);
        if broken && fine {
            hit.push(outcome.clone());
        }
    }
    let transport = hit.first().map_or("", |o| if o.query.transport == Transport::Udp { "UDP" } else { "TCP" });
    let title = format!("Only {transport} is broken; the other transport works.");
    symptom::finding(case, Code::OneTransportBroken, &hit, &title).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{Fate, Scene},
        query::VantageKind,
    };

    #[test]
    fn names_the_broken_one() {
        let scene = Scene::new().asks(VantageKind::Coredns, Transport::Udp, Fate::Answered).asks(
            VantageKind::Coredns,
            Transport::Tcp,
            Fate::Refused,
        );
        assert!(scene.finding("HDP408").unwrap().title.contains("Only TCP"));
        assert_eq!(Scene::new().coredns(Fate::Leaked).finding("HDP408"), None);
        assert_eq!(Scene::new().coredns(Fate::Answered).finding("HDP408"), None);
    }
}
