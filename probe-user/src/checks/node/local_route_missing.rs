//! HDP106 local-route-missing: the address is there, its local route is not.

use crate::{
    checks::{Case, Check, Finding, Remedy, code::Code, symptom},
    predict::node,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::LocalRouteMissing, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The address is on the node, but the local routing table has no route to it.

The kernel adds a route of type local for every address and takes it away when the device goes
down, or when somebody flushes the table. Without it the node does not take packets to the address
for its own and sends them to the default gateway.

By hand: `ip route show table local | grep ADDRESS` shows nothing while `ip addr` shows the
address.

Fix: bring the device up (`ip link set DEVICE up`), or remove the address and add it again. Then
look for what flushed the table: `ip route show table local`, `ip rule`.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let facts = case.facts;
    let mut findings = Vec::new();
    for &address in &case.targets.addresses {
        let held = node::holders(facts, address).unwrap_or_default();
        if held.is_empty() || node::has_local_route(facts, address) != Some(false) {
            continue;
        }
        let hit: Vec<_> = symptom::rooted(case, Code::LocalRouteMissing)
            .into_iter()
            .filter(|outcome| outcome.query.address.ip() == address)
            .collect();
        let fix = Remedy::new("Bring the device up, or add the address again.")
            .step(format!("ip link set {} up", held[0].interface))
            .step("ip route show table local");
        findings.push(
            Finding::new(
                Code::LocalRouteMissing,
                symptom::severity(case, &hit),
                format!("{address} has no route in the local table: the node sends packets to it away."),
            )
            .evidences(held.iter().map(|at| node::describe(at)))
            .evidence(format!("no local route to {address} ({})", facts.network.routes.source()))
            .evidences(symptom::evidence(&hit))
            .remedies([fix]),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::{
            Severity,
            testing::{Fate, Scene, default_route, known},
        },
        facts::Fact,
    };

    #[test]
    fn needs_the_address_and_the_table() {
        let scene = Scene::new().facts(|f| f.network.routes = known(vec![default_route()])).coredns(Fate::Leaked);
        assert_eq!(scene.finding("HDP106").unwrap().severity, Severity::Fail);
        assert_eq!(scene.facts(|f| f.network.routes = Fact::default()).finding("HDP106"), None);
    }
}
