//! HDP409 one-family-broken: one of IPv4 and IPv6 works and the other does not.

use std::net::SocketAddr;

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code, symptom},
    ended::Ended,
    report::Status,
    verdict::{outcome::Outcome, vantage},
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::OneFamilyBroken, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
One of IPv4 and IPv6 works and the other does not.

Each address has a life of its own: its scope, its entry in Cilium's map, its listener and its
rules. On Talos (1.14 and later) the IPv6 address has scope global by itself, so Cilium knows it,
while the IPv4 one has scope host. Clients that try both hide the broken one behind a delay of
seconds.

By hand: `dig @IPV4 example.com` and `dig @IPV6 example.com`, from a pod.

Fix: the one of the root, which names the address. Where it says that pods cannot send over a
family, they have no address of it, and nothing needs to be done.

Versions: Talos 1.14 and later has both, with a pod CIDR of each family.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let all = vantage::all(case);
    let mut hit = Vec::new();
    for outcome in &all {
        let of = |v4| {
            let pick =
                move |o: &&Outcome<'_>| o.query.address.is_ipv4() == v4 && o.query.vantage == outcome.query.vantage;
            all.iter().filter(pick)
        };
        let own = outcome.query.address.is_ipv4();
        let fine = of(!own).next().is_some() && of(!own).all(|o| o.ended == Ended::Answered);
        if fine && of(own).all(|o| o.status() == Status::Fail) {
            hit.push(outcome.clone());
        }
    }
    let family = hit.first().map_or("", |o| if o.query.address.is_ipv4() { "IPv4" } else { "IPv6" });
    let title = format!("Only {family} is broken; the other family works.");
    let broken = symptom::finding(case, Code::OneFamilyBroken, &hit, &title);
    broken.into_iter().chain(unasked(case, &vantage::pods(case))).collect()
}

/// An address that pods could not even send to, as they have nothing of its family. It decides nothing.
fn unasked(case: &Case<'_>, pods: &[Outcome<'_>]) -> Option<Finding> {
    let sent = |to: SocketAddr| pods.iter().any(|o| o.query.address == to && vantage::was_sent(o.query));
    let (asked, not): (Vec<_>, Vec<_>) = case.targets.sockets().partition(|to| sent(*to));
    let (Some(not), false) = (not.first(), asked.is_empty()) else { return None };
    let family = if not.is_ipv4() { "IPv4" } else { "IPv6" };
    let title = format!("Pods here cannot send over {family}: nothing was asked of {not} from them.");
    let notes = pods.iter().filter(|o| o.query.address == *not);
    let notes = notes.filter_map(|o| Some(format!("{} {}", o.query.label(), o.query.note.as_ref()?)));
    Some(Finding::new(Code::OneFamilyBroken, Severity::Info, title).evidences(notes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{Fate, Scene},
        facts::Transport,
        query::VantageKind,
        target::HOST_DNS_V6,
        verdict::judge,
    };

    #[test]
    fn a_family_that_pods_do_not_have_decides_nothing() {
        let mut scene = Scene::new();
        scene.targets.addresses.push(HOST_DNS_V6);
        let v6 = (HOST_DNS_V6, 53).into();
        let mut scene = scene.coredns(Fate::Answered).asks_at(VantageKind::Coredns, v6, Transport::Udp, Fate::Silent);
        let unsent = scene.queries.last_mut().unwrap();
        (unsent.source, unsent.id, unsent.note) = (None, 0, Some("network unreachable".into()));
        let finding = scene.finding("HDP409").unwrap();
        assert_eq!(finding.severity, Severity::Info);
        assert!(finding.title.contains("IPv6") && finding.evidence[0].ends_with("network unreachable"), "{finding:?}");
        assert_eq!(judge(&scene.case(), &scene.findings()).status, Status::Pass);
    }

    #[test]
    fn names_the_broken_one() {
        let mut scene = Scene::new();
        scene.targets.addresses.push(HOST_DNS_V6);
        let v6 = (HOST_DNS_V6, 53).into();
        let scene = scene.coredns(Fate::Answered).asks_at(VantageKind::Coredns, v6, Transport::Udp, Fate::Leaked);
        assert!(scene.finding("HDP409").unwrap().title.contains("Only IPv6"));
        assert_eq!(Scene::new().coredns(Fate::Leaked).finding("HDP409"), None);
    }
}
