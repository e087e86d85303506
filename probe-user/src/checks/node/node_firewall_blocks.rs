//! HDP108 node-firewall-blocks: the node's packet filter is in the way.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    checks::{Case, Check, Finding, Remedy, code::Code, symptom},
    predict::cilium,
    verdict::outcome::Outcome,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::NodeFirewallBlocks, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The node's own packet filter drops or rejects the pods' DNS packets.

The packet got past Cilium and into the node, where a netfilter rule freed it (kernel reason
NETFILTER_DROP) or rejected it. On Talos the ingress firewall exists only with
NetworkDefaultActionConfig or NetworkRuleConfig documents; in block mode it accepts port 53 to the
host DNS address from the pod and service CIDRs of the *machine configuration*. Where Cilium hands
out pod addresses from another range than cluster.network.podSubnets, queries are blocked.

By hand: `nft list ruleset | grep -n -e drop -e reject` (Talos:
`talosctl -n NODE get nftableschain`), and which chain a rule for the pods' range is missing in.

Fix: make podSubnets match Cilium's pod range, or accept UDP and TCP port 53 from that range. Other
systems: an nftables, firewalld or ufw rule does the same.

Versions: Talos' ingress firewall is there from 1.6 on.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let hit = symptom::rooted(case, Code::NodeFirewallBlocks);
    let chains: Vec<String> = case
        .facts
        .firewall
        .get()
        .map_or(&[][..], |firewall| &firewall.chains)
        .iter()
        .filter(|chain| chain.drops_by_default || chain.dropping_rules > 0)
        .map(|chain| {
            let (family, table, name) = (&chain.family, &chain.table, &chain.chain);
            let drops = match (chain.drops_by_default, chain.dropping_rules) {
                (true, 0) => "drops what no rule accepts".to_owned(),
                (true, rules) => format!("drops what no rule accepts, and has {rules} rules that drop or reject"),
                (false, rules) => format!("has {rules} rules that drop or reject"),
            };
            format!("{family} {table} {name} (hook {}) {drops}", chain.hook)
        })
        .collect();
    let talos = |protocol: &str| {
        format!(
            "apiVersion: v1alpha1\nkind: NetworkRuleConfig\nname: host-dns-{protocol}\nportSelector: {{ports: [{}], \
             protocol: {protocol}}}\ningress: [{{subnet: POD-CIDR}}]\n",
            case.targets.port
        )
    };
    let rule = Remedy::new("Talos: accept DNS from the range that Cilium gives pods (put it in place of POD-CIDR).")
        .step("better still: make cluster.network.podSubnets that range")
        .step("talosctl -n NODE patch machineconfig --patch @dns-rule.yaml")
        .patch(format!("{}---\n{}", talos("udp"), talos("tcp")));
    let other = Remedy::new("Other systems: accept UDP and TCP of that port from the pods' range in the chain above.")
        .step(format!(
            "nft insert rule FAMILY TABLE CHAIN ip saddr POD-CIDR udp dport {} accept   (and tcp)",
            case.targets.port
        ));
    let story = story(case, &hit, &chains);
    symptom::finding(case, Code::NodeFirewallBlocks, &hit, "The node's packet filter blocks the pods' DNS packets.")
        .map(|finding| finding.story(story).evidences(chains).remedies([rule, other]))
        .into_iter()
        .collect()
}

fn story(case: &Case<'_>, hit: &[Outcome<'_>], chains: &[String]) -> String {
    let past_cilium = cilium::is_here(case.facts) == Some(true) && hit.iter().any(|o| o.query.vantage_kind.is_pod());
    let mut sentences = vec![if past_cilium {
        "Cilium let the packet pass; the node's own packet filter did not.".to_owned()
    } else {
        "The node's own packet filter did not let the packet pass.".to_owned()
    }];
    if !chains.is_empty() {
        sentences.push(format!("Chains that do such: {}.", chains.join("; ")));
    }
    let pods: BTreeSet<IpAddr> = hit
        .iter()
        .filter(|outcome| outcome.query.vantage_kind.is_pod())
        .filter_map(|outcome| Some(outcome.query.source?.ip()))
        .collect();
    // The chain of Talos' ingress firewall (nftables_chain_config.go): whoever has it has such subnets.
    if chains.iter().any(|chain| chain.starts_with("inet talos ")) && !pods.is_empty() {
        let be = if pods.len() == 1 { "is" } else { "are" };
        let pods = Vec::from_iter(pods.iter().map(ToString::to_string)).join(" and ");
        sentences.push(format!(
            "Talos accepts DNS from the pod and service subnets of its machine configuration: {be} {pods} in them?"
        ));
    }
    sentences.join(" ")
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Fate, Scene, known},
        ended::Direction,
        facts::{Firewall, FirewallChain},
    };

    #[test]
    fn talos_own_chain_leads_to_its_subnets() {
        let story = |table: &str| {
            let mut firewall = chain(0);
            firewall.chains[0].table = table.into();
            firewall.chains[0].drops_by_default = true;
            let scene = Scene::new().facts(|f| f.firewall = known(firewall));
            let dropped = Fate::Dropped("NETFILTER_DROP", Direction::Request, None);
            scene.coredns(dropped).finding("HDP108").unwrap().story.unwrap()
        };
        assert!(story("talos").ends_with("is 10.0.0.5 in them?"), "{}", story("talos"));
        assert!(story("filter").ends_with("inet filter ingress (hook input) drops what no rule accepts."));
    }

    fn chain(rules: u32) -> Firewall {
        Firewall {
            tables: Vec::new(),
            chains: vec![FirewallChain {
                family: "inet".into(),
                table: "talos".into(),
                chain: "ingress".into(),
                hook: "input".into(),
                priority: 0,
                drops_by_default: false,
                dropping_rules: rules,
                rejecting_rules: rules,
            }],
        }
    }

    #[test]
    fn drops_and_rejects() {
        let dropped = Scene::new().coredns(Fate::Dropped("NETFILTER_DROP", Direction::Request, None));
        assert!(dropped.finding("HDP108").is_some());
        let rejected = |rules| Scene::new().facts(|f| f.firewall = known(chain(rules))).coredns(Fate::Refused);
        assert!(rejected(1).finding("HDP108").unwrap().evidence.iter().any(|line| line.contains("inet talos ingress")));
        assert_eq!(rejected(0).finding("HDP108"), None);
    }
}
