//! HDP208 ip-masq-agent-no-help: excluded from masquerading, and leaked all the same.

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code, symptom},
    facts::Fact,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::IpMasqAgentNoHelp, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The ip-masq-agent keeps the address from being masqueraded, which does not bring the query home.

With ip-masq-agent and masqLinkLocal false, 169.254.0.0/16 is not masqueraded. That only changes
the source address of the leaked query: it leaves the node with the pod's own address, and no entry
appears in cilium_snat_v4_external (cilium issue 35153). Where the packet goes is decided before.

By hand: `cilium-dbg bpf ipmasq list` has 169.254.0.0/16, and
`tcpdump -ni eth0 host 169.254.116.108` sees the pod's own address leave.

Fix: the one of HDP201. The ip-masq-agent may stay as it is.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let cilium = &case.facts.cilium;
    let mut hit = symptom::rooted(case, Code::UnknownAddressLeaks);
    hit.extend(symptom::rooted(case, Code::UnknownAddressDropped));
    let exempt =
        hit.iter().any(|o| cilium.not_masqueraded.get(&o.query.address.ip()).and_then(Fact::get) == Some(&true));
    if hit.is_empty() || !(exempt || cilium.ip_masq_agent.get() == Some(&true)) {
        return Vec::new();
    }
    let title = "The ip-masq-agent is on; it changes who the leaked query comes from, not where it goes.";
    let mut finding = Finding::new(Code::IpMasqAgentNoHelp, Severity::Info, title);
    if exempt {
        finding = finding.evidence("the address is in cilium_ipmasq_v4: it is not masqueraded");
    }
    vec![finding.evidences(symptom::evidence(&hit))]
}

#[cfg(test)]
mod tests {
    use crate::checks::testing::{Fate, Scene, hide, known};

    #[test]
    fn only_beside_the_failure() {
        let with = || Scene::new().facts(hide).facts(|f| f.cilium.ip_masq_agent = known(true));
        assert!(with().coredns(Fate::Leaked).finding("HDP208").is_some());
        assert_eq!(with().coredns(Fate::Answered).finding("HDP208"), None);
        assert_eq!(Scene::new().facts(hide).coredns(Fate::Leaked).finding("HDP208"), None);
    }
}
