//! HDP409 one-family-broken: one of IPv4 and IPv6 works and the other does not.

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

Fix: the one of the root, which names the address. Where pods have no address of a family nothing
needs to be done: they ask the other.

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

/// Pods that have no address of a target's family: they cannot send there, and that decides nothing.
fn unasked(case: &Case<'_>, pods: &[Outcome<'_>]) -> Option<Finding> {
    let mut unsent = pods.iter().filter(|outcome| vantage::lacks_family(case, outcome)).peekable();
    let to = unsent.peek()?.query.address;
    let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
    let title = format!("Pods here have no {family} address: nothing was asked of {to} from them.");
    let notes = unsent.filter_map(|o| Some(format!("{} {}", o.query.label(), o.query.note.as_ref()?)));
    Some(Finding::new(Code::OneFamilyBroken, Severity::Info, title).evidences(notes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{Fate, Scene, known, pod},
        facts::{Pod, PodRole, Transport},
        query::VantageKind,
        target::HOST_DNS_V6,
        verdict::judge,
    };

    /// CoreDNS is answered over IPv4; over IPv6 it could send nothing, as its sockets left it.
    fn without_route(addresses: &[&str]) -> Scene {
        let mut scene = Scene::new().facts(|f| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            f.pods = known(vec![Pod { addresses, ..pod("coredns-1", PodRole::Coredns) }]);
        });
        scene.targets.addresses.push(HOST_DNS_V6);
        let v6 = (HOST_DNS_V6, 53).into();
        scene = scene.coredns(Fate::Answered);
        for transport in [Transport::Udp, Transport::Tcp] {
            scene = scene.asks_at(VantageKind::Coredns, v6, transport, Fate::Silent);
            let unsent = scene.queries.last_mut().unwrap();
            unsent.source = (transport == Transport::Tcp).then(|| "[::]:40000".parse().unwrap());
            (unsent.id, unsent.ended, unsent.note) = (0, Ended::Unknown, Some("network unreachable".into()));
        }
        scene
    }

    #[test]
    fn a_family_that_pods_do_not_have_decides_nothing() {
        let scene = without_route(&["10.0.0.5", "fe80::1"]);
        let finding = scene.finding("HDP409").unwrap();
        assert_eq!((finding.severity, finding.evidence.len()), (Severity::Info, 2));
        assert!(finding.title.contains("no IPv6 address") && finding.evidence[0].ends_with("network unreachable"));
        assert_eq!(judge(&scene.case(), &scene.findings()).status, Status::Pass);
    }

    #[test]
    fn a_missing_route_is_no_missing_family() {
        for addresses in [&["10.0.0.5", "fd00::5"][..], &[]] {
            let scene = without_route(addresses);
            assert_eq!(scene.finding("HDP409"), None, "{addresses:?}");
            assert_eq!(judge(&scene.case(), &scene.findings()).status, Status::Unknown, "{addresses:?}");
        }
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
