//! HDP213 policy-drop: a network policy forbids it.

use crate::{
    checks::{Case, Check, Finding, Remedy, code::Code, remedy, symptom},
    predict::cilium,
    query::VantageKind,
    verdict::outcome::Outcome,
};

/// `DROP_POLICY_DENY` (cilium pkg/monitor/api/drop.go).
const DENIED_BY_RULE: u8 = 181;

pub(in crate::checks) const CHECK: Check = Check { code: Code::PolicyDrop, explain: EXPLAIN, run };

const EXPLAIN: &str = r#"A network policy drops the pods' queries.

Cilium dropped the packet with reason 133 (policy denied), 181 (denied by a deny rule) or 189
(authentication required). This has nothing to do with masquerading. It often comes right after the
usual workaround: once Cilium knows the address as the node's, its identity is "host" instead of
"world", so a policy that allowed world or 169.254.0.0/16 no longer covers it: CIDR rules do not
match the host, unless policy-cidr-match-mode says so.

By hand: `hubble observe --verdict DROPPED --port 53`, or `cilium-dbg monitor -t drop`, in the pod
of this node's agent.

Fix: allow egress on UDP and TCP port 53 to the entity host where Cilium knows the address, else to
the address as a CIDR; `cilium-dbg bpf endpoint list` in the agent's pod says which.
`hubble observe --verdict DROPPED` names the policy.

Versions: any.
"#;

fn run(case: &Case<'_>) -> Vec<Finding> {
    let hit = symptom::rooted(case, Code::PolicyDrop);
    let Some(first) = hit.first() else {
        return Vec::new();
    };
    let target = first.query.address;
    let known = cilium::knows(case.facts, target.ip()).ok();
    let is_host = matches!(known, Some((true, _)));
    let reason = first.cilium_reason();
    let dropped = reason.map_or_else(
        || "Cilium drops the packet for a network policy, as its counters say.".to_owned(),
        |reason| format!("Cilium drops the packet with reason {}, {}.", reason.code, reason.text),
    );
    let address = target.ip();
    let identity = match &known {
        Some((true, _)) => format!(
            " To it {address} is the host: egress rules allow that with the entity host, not with the entity world or a \
             CIDR."
        ),
        Some((false, _)) => {
            format!(" To it {address} is world: egress rules allow that with its CIDR, not with the entity host.")
        }
        None => String::new(),
    };
    let why = known.map(|(_, how)| how);
    symptom::root(case, Code::PolicyDrop, &hit, "A network policy drops the pods' queries.", why)
        .map(|finding| finding.story(dropped + &identity).remedies([remedy(case, &hit, is_host)]))
        .into_iter()
        .collect()
}

/// What a deny rule takes no allow rule gives back; and whose policy it is decides what can be offered.
fn remedy(case: &Case<'_>, hit: &[Outcome<'_>], is_host: bool) -> Remedy {
    let which = format!("{} -- hubble observe --verdict DROPPED --port 53   (which policy)", remedy::exec_agent(case));
    let by_deny_rule =
        |outcome: &Outcome<'_>| outcome.cilium_reason().is_some_and(|reason| reason.code == DENIED_BY_RULE);
    if hit.iter().all(by_deny_rule) {
        return Remedy::new("Take the address out of the rule that denies it.")
            .step(which)
            .caution("A deny rule wins over any allow rule: to allow the address in another policy does not help.");
    }
    let Some(first) = hit.iter().find(|outcome| outcome.query.vantage_kind == VantageKind::Coredns) else {
        return Remedy::new("Allow these pods egress to the address, if they ask it themselves.").step(which);
    };
    let (address, port) = (first.query.address.ip(), first.query.address.port());
    let to = if is_host {
        "- toEntities: [host]".to_owned()
    } else {
        format!("- toCIDR: [{address}/{}]", if address.is_ipv4() { 32 } else { 128 })
    };
    Remedy::new("Allow CoreDNS egress to the address.")
        .step(which)
        .step("kubectl apply -f allow-host-dns.yaml")
        .patch(format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:\n  name: coredns-to-host-dns\n  namespace: \
             kube-system\nspec:\n  endpointSelector:\n    matchLabels: {{k8s-app: kube-dns}}\n  egress:\n    {to}\n      \
             toPorts:\n        - ports: [{{port: \"{port}\", protocol: UDP}}, {{port: \"{port}\", protocol: TCP}}]\n",
        ))
        .caution("If this is the first egress policy for CoreDNS, everything else it asks is denied from then on: \
                  kube-apiserver and upstreams too.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{Fate, Scene, hide},
        ended::Direction,
        facts::Transport,
    };

    #[test]
    fn another_pods_policy_is_not_corednss() {
        let fate = Fate::Dropped("TC_INGRESS", Direction::Request, Some(133));
        let fix =
            Scene::new().asks(VantageKind::Pod, Transport::Udp, fate).finding("HDP213").unwrap().remedies.remove(0);
        assert!(fix.patch.is_none() && fix.title.contains("these pods"), "{fix:?}");
    }

    #[test]
    fn the_remedy_names_what_cilium_takes_the_address_for() {
        let fate = Fate::Dropped("TC_INGRESS", Direction::Request, Some(133));
        let patch = |scene: Scene| scene.finding("HDP213").unwrap().remedies.remove(0).patch.unwrap();
        assert!(patch(Scene::new().coredns(fate.clone())).contains("- toEntities: [host]\n      toPorts:"));
        assert!(patch(Scene::new().facts(hide).coredns(fate.clone())).contains("toCIDR: [169.254.116.108/32]"));
        let story = |scene: Scene| scene.finding("HDP213").unwrap().story.unwrap();
        assert!(
            story(Scene::new().coredns(fate.clone())).contains("reason 133, reason. To it 169.254.116.108 is the host")
        );
        assert!(story(Scene::new().facts(hide).coredns(fate.clone())).contains("is world: egress rules"));
        // The agent of another node saw nothing of it.
        let step = Scene::new().coredns(fate).finding("HDP213").unwrap().remedies.remove(0).steps.remove(0);
        assert!(step.contains("spec.nodeName=n1"), "{step}");
        let denied = Fate::Dropped("TC_INGRESS", Direction::Request, Some(181));
        let fix = Scene::new().coredns(denied).finding("HDP213").unwrap().remedies.remove(0);
        assert!(fix.patch.is_none() && fix.title.contains("rule that denies"), "{fix:?}");
        let other = Fate::Dropped("TC_INGRESS", Direction::Request, Some(140));
        assert_eq!(Scene::new().coredns(other).finding("HDP213"), None);
    }
}
