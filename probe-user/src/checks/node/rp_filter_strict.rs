//! HDP107 rp-filter-strict: reverse path filtering kills the query.

use std::collections::BTreeSet;

use crate::{
    checks::{Case, Check, Finding, Remedy, code::Code, symptom},
    predict::cilium,
    verdict::cause,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::RpFilterStrict, explain: EXPLAIN, run };

const EXPLAIN: &str = r#"Strict reverse path filtering drops pods' queries on their way into the node.

With rp_filter 1 the kernel drops a packet that arrives on another device than the one it would
send the answer to. A pod's query arrives on its lxc device, but without endpoint routes the way
back to the pod is cilium_host. So the query dies as it enters, with the kernel's reason
IP_RPFILTER. Cilium switches the filter off on its own devices; the higher of "all" and the
device's own value counts, so a hardening sysctl for "all" brings it back.

By hand: `sysctl -a 2>/dev/null | grep '\.rp_filter = 1'`; `nstat -az TcpExtIPReversePathFilter`
counts the drops.

Fix: net.ipv4.conf.all.rp_filter 2 (loose), which wins over a device's own 1; 0 does not. On Talos
that is machine.sysctls, with multi-document configuration too.

Versions: any Cilium without endpoint routes.
"#;

fn run(case: &Case<'_>) -> Vec<Finding> {
    let hit = symptom::rooted(case, Code::RpFilterStrict);
    let strict: BTreeSet<String> = hit.iter().filter_map(|outcome| cause::strict_at(case, outcome)).collect();
    let values = strict.iter().map(|interface| format!("effective rp_filter of {interface} is 1, strict"));
    let all = case.facts.network.rp_filter.get().and_then(|filters| filters.get("all"));
    let all = all.map(|value| format!("net.ipv4.conf.all.rp_filter = {value}"));
    let title = "Strict reverse path filtering drops the pods' packets.";
    // The kernel takes the higher of the two values, and 2 is above 1: with 0 every device that has 1 of its own would
    // have to be set as well, today's pods' among them.
    let sysctl = Remedy::new("Set net.ipv4.conf.all.rp_filter to 2 (loose). Works live, also over a device's own 1.")
        .step("sysctl -w net.ipv4.conf.all.rp_filter=2")
        .step("Talos: talosctl -n NODE patch machineconfig --patch @sysctl.yaml")
        // Talos' documents have none for sysctls (of all that 1.8 to 1.14 know): this is the one form.
        .patch("machine:\n  sysctls:\n    net.ipv4.conf.all.rp_filter: \"2\"\n")
        .caution("Find what sets it to 1 (a hardening profile, a file in /etc/sysctl.d), or it comes back.");
    symptom::root(case, Code::RpFilterStrict, &hit, title, values.chain(all))
        .map(|finding| finding.story(story(case, &strict)).remedies([sysctl]))
        .into_iter()
        .collect()
}

fn story(case: &Case<'_>, strict: &BTreeSet<String>) -> String {
    let mut rule =
        "Strict reverse path filtering (rp_filter 1) drops a packet that comes in through another device than \
                    the one its answer would leave through."
            .to_owned();
    if cilium::is_here(case.facts) == Some(true) {
        rule.push_str(
            " A pod's query comes in through its lxc device; without endpoint routes the way back to the pod is \
             cilium_host.",
        );
    }
    if strict.is_empty() {
        return rule;
    }
    let devices = Vec::from_iter(strict.iter().map(String::as_str)).join(" and ");
    format!(
        "{rule} Here it is in force on {devices}; the higher of net.ipv4.conf.all and the device's own value counts."
    )
}

#[cfg(test)]
mod tests {
    use crate::{
        checks::testing::{Fate, Scene, known},
        ended::Direction,
    };

    #[test]
    fn by_the_kernels_reason() {
        let scene = Scene::new().coredns(Fate::Dropped("IP_RPFILTER", Direction::Request, None));
        let finding = scene.finding("HDP107").unwrap();
        // 0 would leave a device's own 1 in force.
        assert!(finding.remedies[0].patch.as_ref().unwrap().contains("all.rp_filter: \"2\""));
        assert!(!finding.story.unwrap().contains("in force on"), "no device's value is known here");
    }

    #[test]
    fn an_unnamed_loss_needs_the_setting() {
        let lost = || Scene::new().coredns(Fate::Lost(Direction::Request));
        assert_eq!(lost().finding("HDP107"), None);
        let filters = [("all", 1), ("default", 0), ("lxc1", 1)].map(|(name, value)| (name.to_owned(), value));
        let strict = lost().facts(|f| f.network.rp_filter = known(filters.into()));
        let finding = strict.finding("HDP107").unwrap();
        for part in ["lxc1 is 1", "net.ipv4.conf.all.rp_filter = 1"] {
            assert!(finding.evidence.iter().any(|line| line.contains(part)), "{part}: {:?}", finding.evidence);
        }
        assert!(finding.story.unwrap().contains("in force on lxc1;"));
    }
}
