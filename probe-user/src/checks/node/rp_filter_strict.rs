//! HDP107 rp-filter-strict: reverse path filtering kills the query.

use std::collections::BTreeSet;

use crate::{
    checks::{Case, Check, Finding, Remedy, code::Code, symptom},
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

Fix: net.ipv4.conf.all.rp_filter 0 (or 2, loose), and see that nothing sets it again for lxc
devices. On Talos that is machine.sysctls, with multi-document configuration too.

Versions: any Cilium without endpoint routes.
"#;

fn run(case: &Case<'_>) -> Vec<Finding> {
    let hit = symptom::rooted(case, Code::RpFilterStrict);
    let filters = case.facts.network.rp_filter.get();
    let values: Vec<String> = hit
        .iter()
        .filter_map(|outcome| cause::strict_at(case, outcome))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(|interface| format!("effective rp_filter of {interface} is 1, strict"))
        .collect();
    let all =
        filters.and_then(|filters| filters.get("all")).map(|value| format!("net.ipv4.conf.all.rp_filter = {value}"));
    let title = "Strict reverse path filtering drops the pods' packets.";
    let sysctl = Remedy::new("Set rp_filter to 0 for all (2, loose, also works).")
        .step("sysctl -w net.ipv4.conf.all.rp_filter=0   (and the pod's device, if it has 1 of its own)")
        .step("Talos: talosctl -n NODE patch machineconfig --patch @sysctl.yaml")
        .patch("machine:\n  sysctls:\n    net.ipv4.conf.all.rp_filter: \"0\"\n    net.ipv4.conf.default.rp_filter: \"0\"\n")
        // Talos' documents have none for sysctls (of all that 1.8 to 1.14 know): this is the one form.
        .caution("Devices keep the value that they were made with: pods' devices of today need theirs set too.");
    symptom::root(case, Code::RpFilterStrict, &hit, title, values.into_iter().chain(all))
        .map(|finding| finding.remedies([sysctl]))
        .into_iter()
        .collect()
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
        assert!(scene.finding("HDP107").unwrap().remedies[0].patch.is_some());
    }

    #[test]
    fn an_unnamed_loss_needs_the_setting() {
        let lost = || Scene::new().coredns(Fate::Lost(Direction::Request));
        assert_eq!(lost().finding("HDP107"), None);
        let filters = [("all", 1), ("default", 0), ("lxc1", 1)].map(|(name, value)| (name.to_owned(), value));
        let strict = lost().facts(|f| f.network.rp_filter = known(filters.into()));
        let evidence = strict.finding("HDP107").unwrap().evidence;
        for part in ["lxc1 is 1", "net.ipv4.conf.all.rp_filter = 1"] {
            assert!(evidence.iter().any(|line| line.contains(part)), "{part}: {evidence:?}");
        }
    }
}
