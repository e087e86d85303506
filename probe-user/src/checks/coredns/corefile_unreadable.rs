//! HDP303 corefile-unreadable: whom CoreDNS asks is not known.

use crate::checks::{Case, Check, Finding, Severity, code::Code};
use crate::facts::PodRole;

pub(in crate::checks) const CHECK: Check = Check { code: Code::CorefileUnreadable, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
CoreDNS runs here, but whom it forwards to could not be read.

The probe reads the Corefile named on CoreDNS's command line through /proc/PID/root, and the
resolv.conf it may point to. Without them it cannot be said whether CoreDNS asks the address at all
(HDP302). The verdict on the way to the address is not touched.

By hand: `tr '\\0' ' ' < /proc/PID/cmdline` of CoreDNS names its Corefile;
`cat /proc/PID/root/etc/coredns/Corefile` reads it.

Fix: run with hostPID and privileged, so that /proc/PID/root of CoreDNS is readable; or read
`kubectl -n kube-system get configmap coredns -o yaml` yourself.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let pods = case.facts.pods.get().map_or(&[][..], Vec::as_slice);
    let files = case.facts.coredns.get().map_or(&[][..], Vec::as_slice);
    let unread: Vec<String> = pods
        .iter()
        .filter(|pod| pod.role == PodRole::Coredns)
        .filter(|pod| !files.iter().any(|file| file.pod == pod.name && !file.forwards_to.is_empty()))
        .map(|pod| format!("{}: {}", pod.name, case.facts.coredns.why().unwrap_or("no `forward .` was found")))
        .collect();
    if unread.is_empty() {
        return Vec::new();
    }
    let title = "Whom CoreDNS forwards to could not be read.";
    vec![Finding::new(Code::CorefileUnreadable, Severity::Info, title).evidences(unread)]
}

#[cfg(test)]
mod tests {
    use crate::{checks::testing::Scene, facts::Fact};

    #[test]
    fn says_why() {
        assert_eq!(Scene::new().finding("HDP303"), None);
        let scene = Scene::new().facts(|f| f.coredns = Fact::unavailable("permission denied", "/proc/1/root"));
        assert_eq!(scene.finding("HDP303").unwrap().evidence, ["coredns-1: permission denied"]);
    }
}
