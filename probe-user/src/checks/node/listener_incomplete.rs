//! HDP104 listener-incomplete: one transport or one address has no server.

use std::net::SocketAddr;

use crate::{
    checks::{Case, Check, Finding, Remedy, code::Code, symptom},
    ended::Ended,
    facts::Transport,
    predict::node,
    verdict::{outcome::Outcome, vantage},
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::ListenerIncomplete, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The server listens, but not over both transports or not on every address.

DNS needs UDP and TCP: a truncated answer is asked for again over TCP, and some resolvers use TCP
only. Pods that use the missing half fail while a quick test with the other one looks fine.

By hand: `ss -lnup 'sport = :53'` and `ss -lntp 'sport = :53'`: the address should be in both.

Fix: Talos listens on both; `talosctl -n NODE get dnsresolvecache` shows which of udp- and tcp- is
not running. Another server: bind it to the address over UDP and TCP, and to the IPv6 address if
there is one. A process that took the port first is named in the report's listeners.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let hit = symptom::rooted(case, Code::ListenerIncomplete);
    let (mut there, mut gone) = (Vec::new(), Vec::new());
    for target in case.targets.sockets().filter(|target| !node::is_absent(case.facts, target.ip())) {
        for transport in [Transport::Udp, Transport::Tcp] {
            match node::listens(case.facts, target, transport) {
                Some(true) => there.push((target, transport)),
                Some(false) => gone.push((target, transport)),
                None => {}
            }
        }
    }
    // An answer is better evidence than a list of sockets.
    let all = vantage::all(case);
    gone.retain(|(target, transport)| {
        let answered = |o: &Outcome<'_>| {
            o.query.address == *target && o.query.transport == *transport && o.ended == Ended::Answered
        };
        !all.iter().any(answered)
    });
    if hit.is_empty() && (there.is_empty() || gone.is_empty()) {
        return Vec::new();
    }
    let what = match (gone.first(), hit.first()) {
        (Some((target, transport)), _) => format!("{target} over {transport}"),
        (None, Some(outcome)) => format!("{} over {}", outcome.query.address, outcome.query.transport),
        (None, None) => return Vec::new(),
    };
    let lines = gone.iter().map(|(target, transport)| format!("nobody listens on {target} over {transport}"));
    let others = there.iter().map(|(target, transport)| format!("{target} is listened on over {transport}"));
    let look = Remedy::new("Have the server listen over UDP and TCP on every address it is asked at.")
        .step("talosctl -n NODE get dnsresolvecache   (Talos: udp- and tcp- of each address should be running)");
    let title = format!("The server does not listen on {what}.");
    let finding = Finding::new(Code::ListenerIncomplete, symptom::severity(case, &hit), title)
        .evidences(lines)
        .evidences(others)
        .evidences(symptom::evidence(&hit))
        .remedies([look]);
    vec![Finding { story: story(&there, &gone, case.facts.listeners.source()), ..finding }]
}

/// What there is beside what is missing; nothing where the sockets are not known.
fn story(there: &[(SocketAddr, Transport)], gone: &[(SocketAddr, Transport)], source: &str) -> Option<String> {
    let over = |all: &[(SocketAddr, Transport)]| {
        let each =
            all.iter().map(|(target, transport)| format!("{target} over {}", transport.to_string().to_uppercase()));
        each.collect::<Vec<_>>().join(" and ")
    };
    let missing = match (there, gone) {
        ([], _) | (_, []) => return None,
        ([(on, _)], [(same, transport)]) if on == same => format!("over {}", transport.to_string().to_uppercase()),
        _ => format!("on {}", over(gone)),
    };
    let there = over(there);
    Some(format!("The server listens on {there}, but not {missing} ({source}): there the kernel refuses the queries."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{Fate, Scene, known, listener},
        query::VantageKind,
    };

    #[test]
    fn udp_without_tcp() {
        assert_eq!(Scene::new().finding("HDP104"), None);
        let scene = Scene::new()
            .facts(|f| f.listeners = known(vec![listener("169.254.116.108:53", Transport::Udp)]))
            .asks(VantageKind::Coredns, Transport::Udp, Fate::Answered)
            .asks(VantageKind::Coredns, Transport::Tcp, Fate::Refused);
        let finding = scene.finding("HDP104").unwrap();
        assert!(finding.title.contains("169.254.116.108:53 over tcp"), "{}", finding.title);
        let story = finding.story.unwrap();
        assert!(story.contains("listens on 169.254.116.108:53 over UDP, but not over TCP"), "{story}");
        assert_eq!(scene.finding("HDP103"), None);
    }

    #[test]
    fn nobody_at_all_is_another_code() {
        let scene = Scene::new().facts(|f| f.listeners = known(vec![])).coredns(Fate::Refused);
        assert_eq!(scene.finding("HDP104"), None);
    }
}
