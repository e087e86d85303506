//! HDP213 policy-drop: a network policy forbids it.

use crate::{
    checks::{Case, Check, Finding, Remedy, code::Code, remedy, symptom},
    predict::cilium,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::PolicyDrop, explain: EXPLAIN, run };

const EXPLAIN: &str = r#"A network policy drops the pods' queries.

Cilium dropped the packet with reason 133 (policy denied), 181 (denied by a deny rule) or 189
(authentication required). This has nothing to do with masquerading. It often comes right after the
usual workaround: once Cilium knows the address as the node's, its identity is "host" instead of
"world", so a policy that allowed world or 169.254.0.0/16 no longer covers it: CIDR rules do not
match the host, unless policy-cidr-match-mode says so.

By hand: `hubble observe --verdict DROPPED --port 53`, or `cilium-dbg monitor -t drop` in the
agent's pod.

Fix: allow egress on UDP and TCP port 53 to the entity host where Cilium knows the address (HDP102
absent from the report), else to the address as a CIDR. `hubble observe --verdict DROPPED` names
the policy.

Versions: any.
"#;

fn run(case: &Case<'_>) -> Vec<Finding> {
    let hit = symptom::rooted(case, Code::PolicyDrop);
    let Some(first) = hit.first() else {
        return Vec::new();
    };
    let target = first.query.address;
    let known = cilium::knows(case.facts, target.ip()).ok();
    let to = match &known {
        Some((true, _)) => "- toEntities: [host]".to_owned(),
        _ => format!("- toCIDR: [{}/{}]", target.ip(), if target.is_ipv4() { 32 } else { 128 }),
    };
    let allow = Remedy::new("Allow CoreDNS egress to the address.")
        .step(format!("{} -- hubble observe --verdict DROPPED --port 53   (which policy)", remedy::exec_agent(case)))
        .step("kubectl apply -f allow-host-dns.yaml")
        .patch(format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:\n  name: coredns-to-host-dns\n  namespace: \
             kube-system\nspec:\n  endpointSelector:\n    matchLabels: {{k8s-app: kube-dns}}\n  egress:\n    {to}\n      \
             toPorts:\n        - ports: [{{port: \"{0}\", protocol: UDP}}, {{port: \"{0}\", protocol: TCP}}]\n",
            target.port()
        ))
        .caution("If this is the first egress policy for CoreDNS, everything else it asks is denied from then on: \
                  kube-apiserver and upstreams too. A deny rule (reason 181) wins over any allow rule.");
    let reason = first.drop().and_then(|drop| drop.cilium_reason.as_ref());
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
        .map(|finding| finding.story(dropped + &identity).remedies([allow]))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Fate, Scene, hide},
        ended::Direction,
    };

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
        assert!(Scene::new().coredns(denied).finding("HDP213").is_some());
        let other = Fate::Dropped("TC_INGRESS", Direction::Request, Some(140));
        assert_eq!(Scene::new().coredns(other).finding("HDP213"), None);
    }
}
