//! HDP105 address-elsewhere: the address is on another device than lo.

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code, remedy},
    facts::InterfaceAddress,
    predict::{cilium, node},
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::AddressElsewhere, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The address is not on lo but on another device of the node.

For node-local-dns that is normal: it makes a dummy device. The kernel does not mind. Cilium does:
from 1.15.8 on, and in 1.16, it learns addresses of its own devices and of lo only (1.16.0 not even
of lo, HDP206), so an address on a dummy is unknown to it whatever its scope; 1.17 and later learn
it. That was the first report of cilium issue 36761. An address on an external device may also
collide with another machine's on that network.

By hand: `ip addr | grep -B2 ADDRESS` names the device.

Fix: where Cilium does not know it (HDP201, HDP202), put the address on lo too, with scope global
(Cilium 1.15.8, 1.16.1 and later), or upgrade to 1.17 or later, or use bpf.hostLegacyRouting.

Versions: Cilium 1.15.8 to 1.15.x and 1.16.x do not learn it; 1.17 and later do.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let facts = case.facts;
    let mut findings = Vec::new();
    for &address in &case.targets.addresses {
        let held = node::holders(facts, address).unwrap_or_default();
        // On lo as well, but hidden there by its scope: then the other device matters all the same.
        let visible = |at: &&InterfaceAddress| at.interface == "lo" && at.scope <= cilium::scope_max(facts);
        let elsewhere = held.iter().any(|at| at.interface != "lo");
        if !elsewhere || held.iter().any(visible) {
            continue;
        }
        let ignored = cilium::is_here(facts) == Some(true)
            && cilium::version(facts)
                .is_some_and(|version| others(&held).all(|at| !cilium::learns(facts, &version, &at.interface)));
        let hurts = ignored && !case.is_delivered_anyway(address);
        let on = others(&held).map(|at| at.interface.as_str()).collect::<Vec<_>>().join(", ");
        let not_on_lo = if held.iter().any(|at| at.interface == "lo") { "" } else { ", not on lo" };
        let title = if ignored {
            format!("{address} is on {on}{not_on_lo}: this Cilium does not learn addresses from there.")
        } else {
            format!("{address} is on {on}{not_on_lo}.")
        };
        let severity = if hurts { Severity::Warn } else { Severity::Info };
        let finding =
            Finding::new(Code::AddressElsewhere, severity, title).evidences(held.iter().map(|at| node::describe(at)));
        findings.push(if hurts { finding.remedies(remedy::unknown_address(case, address)) } else { finding });
    }
    findings
}

fn others<'a>(held: &[&'a InterfaceAddress]) -> impl Iterator<Item = &'a InterfaceAddress> {
    held.iter().copied().filter(|at| at.interface != "lo")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{HOST_DNS, Scene, address, known};

    #[test]
    fn a_dummy_beside_a_hidden_address_on_lo() {
        let both = |scope| {
            Scene::new().facts(|f| {
                f.network.addresses = known(vec![address("lo", HOST_DNS, scope), address("nodelocaldns", HOST_DNS, 0)]);
                f.cilium.version = known("1.16.5".into());
            })
        };
        assert!(both(254).finding("HDP105").unwrap().title.contains("is on nodelocaldns: this Cilium"));
        assert_eq!(both(0).finding("HDP105"), None, "Cilium takes it from lo");
    }

    #[test]
    fn depends_on_the_release() {
        assert_eq!(Scene::new().finding("HDP105"), None);
        for (version, expected) in [("1.16.5", Severity::Warn), ("1.17.0", Severity::Info)] {
            let scene = Scene::new().facts(|f| {
                f.network.addresses = known(vec![address("nodelocaldns", HOST_DNS, 0)]);
                f.cilium.version = known(version.into());
            });
            assert_eq!(scene.finding("HDP105").unwrap().severity, expected, "{version}");
        }
    }
}
