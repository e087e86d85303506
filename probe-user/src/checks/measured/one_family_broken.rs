//! HDP409 one-family-broken: one of IPv4 and IPv6 works and the other does not.

use crate::{
    checks::{Case, Check, Finding, code::Code, symptom},
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

Fix: the one of the root, which names the address.

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
    symptom::finding(case, Code::OneFamilyBroken, &hit, &title).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Fate, Scene},
        facts::Transport,
        query::VantageKind,
        target::HOST_DNS_V6,
    };

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
