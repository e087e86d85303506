//! HDP001 missing-privilege: the probe may not do what it needs to.

use crate::checks::{Case, Check, Finding, Remedy, Severity, code::Code};

pub(in crate::checks) const CHECK: Check = Check { code: Code::MissingPrivilege, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The probe lacks capabilities that it needs.

Loading eBPF programs, attaching them and entering a pod's network namespace need privileges.
Without them the packets cannot be followed: a query that gets no answer is then just that, and
nobody can say whether it was dropped, leaked or never answered.

By hand: `capsh --print` in the probe's container, or CapEff in /proc/self/status, shows what is
held.

Fix: run as root in the node's namespaces. On a cluster, `kubectl debug node/NAME
--profile=sysadmin`, or the DaemonSet of deploy/ (privileged, hostNetwork, hostPID). With
capabilities alone: CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_SYS_ADMIN (setns) and CAP_SYS_PTRACE
(namespaces of other processes).

Versions: any kernel; CAP_BPF and CAP_PERFMON are their own since Linux 5.8, before that
CAP_SYS_ADMIN.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let capabilities = &case.facts.kernel.missing_capabilities;
    let missing = capabilities.get().map_or(&[][..], Vec::as_slice);
    if missing.is_empty() {
        return Vec::new();
    }
    let title = format!("The probe lacks {}: packets cannot be followed.", missing.join(", "));
    let how = Remedy::new("Run as root on the node, with the host's network and processes.")
        .step("sudo hostdns-probe check   (on the node itself)")
        .step("kubectl debug node/NAME --profile=sysadmin -it --image=IMAGE -- /hostdns-probe check --host-root /host");
    vec![Finding::new(Code::MissingPrivilege, Severity::Warn, title).evidence(capabilities.source()).remedies([how])]
}

#[cfg(test)]
mod tests {
    use crate::checks::testing::{Scene, known};

    #[test]
    fn names_what_is_missing() {
        let scene = Scene::new().facts(|f| f.kernel.missing_capabilities = known(vec!["CAP_BPF".into()]));
        assert!(scene.finding("HDP001").unwrap().title.contains("CAP_BPF"));
        let scene = Scene::new().facts(|f| f.kernel.missing_capabilities = known(vec![]));
        assert_eq!(scene.finding("HDP001"), None);
    }
}
