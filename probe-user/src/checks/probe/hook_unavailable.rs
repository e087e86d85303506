//! HDP003 hook-unavailable: a place that could not be watched.

use crate::checks::{Case, Check, Finding, Severity, code::Code};

pub(in crate::checks) const CHECK: Check = Check { code: Code::HookUnavailable, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
A hook could not be attached, so its silence means nothing.

Each hook covers one place: a socket, the head of a device's ingress or egress, the kernel's own
drop and transmit points. Where one is missing, a packet may pass unseen. The report then claims no
loss that this hook could have explained; leaks and drops that other hooks saw still stand.

By hand: `hostdns-probe check -v` lists every hook with its reason; `bpftool net` and
`bpftool link` show what is attached.

Fix: read the reason beside the hook. Kernels before 6.6 have no tcx (clsact takes its place),
lockdown confidentiality forbids reading kernel memory, and a device may have gone between listing
and attaching.

Versions: tcx since Linux 6.6; drop reasons since 5.17.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let missing: Vec<String> = case
        .hooks
        .iter()
        .filter(|hook| !hook.attached)
        .map(|hook| {
            let on = hook.interface.as_ref().map(|interface| format!(" on {interface}")).unwrap_or_default();
            format!("{}{on}: {}", hook.name, hook.reason.as_deref().unwrap_or("no reason given"))
        })
        .collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let title = format!("{} of {} hooks are not in place.", missing.len(), case.hooks.len());
    vec![Finding::new(Code::HookUnavailable, Severity::Warn, title).evidences(missing)]
}

#[cfg(test)]
mod tests {
    use crate::checks::testing::{Scene, hook};

    #[test]
    fn says_which_and_why() {
        let mut scene = Scene::new();
        assert_eq!(scene.finding("HDP003"), None);
        scene.hooks.push(hook("tcx egress", Some("eth1"), false));
        assert_eq!(scene.finding("HDP003").unwrap().evidence, ["tcx egress on eth1: the kernel refused it"]);
    }
}
