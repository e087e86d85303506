//! HDP007 unknown-map-layout: a Cilium map that this probe cannot read.

use crate::checks::{Case, Check, Finding, Severity, code::Code};
use crate::facts::Fact;

pub(in crate::checks) const CHECK: Check = Check { code: Code::UnknownMapLayout, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
A Cilium map has a key or value size that this probe does not know.

Cilium changes the layout of its maps between releases. The probe reads only sizes that it knows
(1.15 to 1.19.0-pre.0) and guesses nothing. What the map would have told is missing from the report;
what was measured is not touched.

By hand: `bpftool map show pinned /sys/fs/bpf/tc/globals/cilium_lxc` prints key and value size.

Fix: use a newer hostdns-probe. Until then `cilium-dbg bpf endpoint list` and `cilium-dbg bpf
ipcache get ADDRESS` in the agent's pod show the same.

Versions: layouts of Cilium 1.15 to 1.19.0-pre.0 are known.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let cilium = &case.facts.cilium;
    let reasons = (cilium.lxc.values().map(said))
        .chain(cilium.ipcache.values().map(said))
        .chain(cilium.not_masqueraded.values().map(said))
        .chain(cilium.snat_entries.values().map(said))
        .chain([said(&cilium.drops_before), said(&cilium.drops_after)]);
    let mut lines: Vec<String> = reasons.flatten().collect();
    lines.dedup();
    if lines.is_empty() {
        return Vec::new();
    }
    let title = "A Cilium map has an unknown layout and was not read.";
    vec![Finding::new(Code::UnknownMapLayout, Severity::Warn, title).evidences(lines)]
}

/// The readers word it so: "unknown layout: key 24 bytes, value 32".
fn said<T>(fact: &Fact<T>) -> Option<String> {
    fact.why().filter(|why| why.contains("layout")).map(|why| format!("{}: {why}", fact.source()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{HOST_DNS, Scene};

    #[test]
    fn only_the_layout_counts() {
        let with = |why: &str| {
            let scene = Scene::new().facts(|f| {
                f.cilium.lxc.insert(HOST_DNS, Fact::unavailable(why, "cilium_lxc"));
            });
            scene.finding("HDP007").is_some()
        };
        assert!(with("unknown layout: key 20 bytes, value 96"));
        assert!(!with("no such file or directory"));
    }
}
