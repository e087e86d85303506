//! HDP108 node-firewall-blocks: the node's packet filter is in the way.

use crate::checks::{Case, Check, Finding, Remedy, code::Code, symptom};

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
            let policy = if chain.drops_by_default { "policy drop" } else { "policy accept" };
            let (family, table, name, rules) = (&chain.family, &chain.table, &chain.chain, chain.dropping_rules);
            format!("{family} {table} {name} (hook {}, {policy}, {rules} rules that drop)", chain.hook)
        })
        .collect();
    let talos = |protocol: &str| {
        format!(
            "apiVersion: v1alpha1\nkind: NetworkRuleConfig\nname: host-dns-{protocol}\nportSelector:\n  ports: [{}]\n  \
             protocol: {protocol}\ningress:\n  - subnet: POD-CIDR\n",
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
    symptom::finding(case, Code::NodeFirewallBlocks, &hit, "The node's packet filter blocks the pods' DNS packets.")
        .map(|finding| finding.evidences(chains).remedies([rule, other]))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Fate, Scene, known},
        ended::Direction,
        facts::{Firewall, FirewallChain},
    };

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
