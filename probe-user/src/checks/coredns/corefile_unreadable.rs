//! HDP303 corefile-unreadable: whom CoreDNS asks is not known.

use crate::checks::{Case, Check, Finding, Severity, code::Code};
use crate::facts::PodRole;

pub(in crate::checks) const CHECK: Check = Check { code: Code::CorefileUnreadable, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
CoreDNS runs here, but whom it forwards to could not be read.

The probe reads the Corefile named on CoreDNS's command line through /proc/PID/root, and the
resolv.conf it may point to; the ConfigMap coredns stands in where the Kubernetes API was asked.
Without any of them, or where an import is missing or the braces do not match, it cannot be said
whether CoreDNS asks the address at all (HDP302). The verdict on the way to the address is not
touched.

By hand: `tr '\\0' ' ' < /proc/PID/cmdline` of CoreDNS names its Corefile;
`cat /proc/PID/root/etc/coredns/Corefile` reads it.

Fix: run with hostPID and privileged, so that /proc/PID/root of CoreDNS is readable; or read
`kubectl -n kube-system get configmap coredns -o yaml` yourself.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let coredns = &case.facts.coredns;
    let pods = case.facts.pods.get().map_or(&[][..], Vec::as_slice);
    let files = coredns.get().map_or(&[][..], Vec::as_slice);
    let unread = pods
        .iter()
        .filter(|pod| pod.role == PodRole::Coredns)
        .filter(|pod| !files.iter().any(|file| file.pod == pod.name && !file.forwards_to.is_empty()))
        .map(|pod| format!("{}: {}", pod.name, coredns.why().unwrap_or("no `forward .` was found")));
    // The parts that were not read say why nothing was found, or make what was found doubtful.
    let unread: Vec<String> = coredns.notes().iter().cloned().chain(unread).collect();
    if unread.is_empty() {
        return Vec::new();
    }
    let title = "Whom CoreDNS forwards to could not be read, or not all of it.";
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

    #[test]
    fn a_part_that_is_missing_makes_the_rest_doubtful() {
        let elsewhere = |notes: &[&str]| {
            Scene::new().facts(|f| {
                let mut files = f.coredns.get().unwrap().clone();
                files[0].forwards_to = vec!["1.1.1.1".into()];
                f.coredns = Fact::known(files, "/proc").noting(notes.iter().map(ToString::to_string));
            })
        };
        let has = |scene: &Scene, code: &str| scene.codes().iter().any(|found| found == code);
        assert!(has(&elsewhere(&[]), "HDP302") && !has(&elsewhere(&[]), "HDP303"));
        let doubtful = elsewhere(&["coredns-1: /etc/coredns/Corefile: import x: no such file"]);
        assert!(!has(&doubtful, "HDP302"));
        // Another source that says something else makes nothing unread.
        let mut differs = elsewhere(&[]);
        differs.facts.coredns.differs("ConfigMap kube-system/coredns: forwards to 169.254.116.108");
        assert!(has(&differs, "HDP302") && !has(&differs, "HDP303"));
        assert!(doubtful.finding("HDP303").unwrap().evidence[0].contains("import x"));
    }
}
