//! HDP209 snat-entry-to-address: past leaks have left their traces.

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code},
    ended::Ended,
    verdict::vantage,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::SnatEntry, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
Cilium's NAT table holds entries towards the address: queries to it have left the node before.

A packet that reaches the node's own server is never masqueraded. An entry of
cilium_snat_v4_external with the address as its remote end is therefore the trace of a leak.
Entries live as long as the connection tracking ones (a minute or so for UDP, hours for TCP), so a
few may remain after a repair.

By hand: `cilium-dbg bpf nat list | grep 169.254.116.108` in the agent's pod.

Fix: see HDP201 if queries still leak. If they do not any more, the entries go by themselves.

Versions: any with BPF masquerade.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (address, fact) in &case.facts.cilium.snat_entries {
        let Some(&count) = fact.get().filter(|count| **count > 0) else {
            continue;
        };
        let pods = vantage::pods(case);
        let told = pods.iter().any(|o| o.query.address.ip() == *address && o.ended != Ended::Unknown);
        let leaks = vantage::all(case).iter().any(|o| o.query.address.ip() == *address && o.ended == Ended::Leaked);
        let (before, s) = if count == 1 { ("1 entry".to_owned(), "s") } else { (format!("{count} entries"), "") };
        let (severity, title) = if leaks {
            (
                Severity::Info,
                // The table was read before the first question; what another check leaked is in it all the same.
                format!(
                    "{before} of Cilium's NAT table point{s} to {address}: queries left the node before this check, too."
                ),
            )
        } else {
            // Where nothing was measured, nothing is said of now.
            let now = if told { ", though none did now" } else { "" };
            (Severity::Warn, format!("Queries to {address} left the node not long ago{now}."))
        };
        let line = format!("{before} towards {address} ({})", fact.source());
        findings.push(Finding::new(Code::SnatEntry, severity, title).evidence(line));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{Fate, HOST_DNS, Scene, hide, known};

    fn scene(count: u32) -> Scene {
        Scene::new().facts(|f| {
            f.cilium.snat_entries.insert(HOST_DNS, known(count));
        })
    }

    #[test]
    fn before_and_after_the_repair() {
        assert_eq!(scene(0).coredns(Fate::Answered).finding("HDP209"), None);
        let repaired = scene(3).coredns(Fate::Answered).finding("HDP209").unwrap();
        assert_eq!(repaired.severity, Severity::Warn);
        assert!(repaired.title.contains("none did now"), "{}", repaired.title);
        for unmeasured in [scene(3), scene(3).facts(hide).coredns(Fate::Silent)] {
            let title = unmeasured.finding("HDP209").unwrap().title;
            assert!(!title.contains("none did now"), "{title}");
        }
        let finding = scene(212).facts(hide).coredns(Fate::Leaked).finding("HDP209").unwrap();
        assert_eq!(finding.severity, Severity::Info);
        assert!(finding.evidence[0].starts_with("212 entries towards 169.254.116.108"));
        assert!(finding.title.starts_with("212 entries of Cilium's NAT table point to 169.254.116.108: queries left"));
        let one = scene(1).facts(hide).coredns(Fate::Leaked).finding("HDP209").unwrap();
        assert!(one.title.starts_with("1 entry of Cilium's NAT table points to"), "{}", one.title);
    }
}
