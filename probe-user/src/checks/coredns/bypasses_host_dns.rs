//! HDP302 coredns-bypasses-host-dns: CoreDNS asks somebody else.

use crate::{
    checks::{Case, Check, Finding, Remedy, Severity, code::Code, remedy},
    verdict,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::CorednsBypasses, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
CoreDNS on this node forwards to other servers, not to the address under test.

CoreDNS takes its upstreams from `forward .` in the Corefile, usually /etc/resolv.conf of its pod,
which the kubelet wrote when the pod started. Talos puts the host DNS address there only while
forwardKubeDNSToHost is true, so a CoreDNS that was started before (or after it was turned off)
asks the real upstreams. Cluster DNS then works or fails for reasons of its own, and the node's
cache is unused. Pods with dnsPolicy Default may still ask the address themselves.

By hand: `kubectl -n kube-system get configmap coredns -o yaml` (the line `forward .`), and the
nameserver of /etc/resolv.conf in CoreDNS' pod, which `cat /proc/PID/root/etc/resolv.conf` shows on
the node.

Fix: if host DNS is meant to be used, restart CoreDNS (kubectl -n kube-system rollout restart
deploy/coredns) and look at `forward .` in its ConfigMap. If not, there is nothing to repair.

Versions: Talos offers forwardKubeDNSToHost from 1.7 on, this address from 1.8 on.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let Some(asked) = verdict::bypassed(case) else {
        return Vec::new();
    };
    let targets: Vec<String> = case.targets.sockets().map(|target| target.to_string()).collect();
    let title = format!("CoreDNS here does not forward to {} but to {}.", targets.join(" or "), asked.join(", "));
    let files = case.facts.coredns.get().map_or(&[][..], Vec::as_slice);
    let restart = Remedy::new("If host DNS is meant to be used: restart CoreDNS, so that it reads its upstreams anew.")
        .step("kubectl -n kube-system rollout restart deploy/coredns")
        .step("kubectl -n kube-system get configmap coredns -o yaml   (forward .)");
    // Of another node-local DNS it is nothing special: pods ask that one themselves.
    let severity =
        if case.targets.addresses.iter().any(|a| remedy::is_talos(*a)) { Severity::Warn } else { Severity::Info };
    vec![
        Finding::new(Code::CorednsBypasses, severity, title)
            .evidences(files.iter().map(|f| format!("{}: {} forwards to {}", f.pod, f.path, f.forwards_to.join(", "))))
            .remedies([restart]),
    ]
}

#[cfg(test)]
mod tests {
    use crate::checks::testing::{Scene, known};

    fn forwards(to: &[&str]) -> Scene {
        Scene::new().facts(|f| {
            let mut files = f.coredns.get().unwrap().clone();
            files[0].forwards_to = to.iter().map(ToString::to_string).collect();
            f.coredns = known(files);
        })
    }

    #[test]
    fn every_upstream_must_be_another() {
        for bypass in [&["1.1.1.1"][..], &["8.8.8.8:53", "tls://9.9.9.9"], &["169.254.116.108:5353"]] {
            let title = forwards(bypass).finding("HDP302").expect("it bypasses").title;
            // The same address on another port is told apart.
            assert!(title.starts_with("CoreDNS here does not forward to 169.254.116.108:53 but to "), "{title}");
        }
        for uses in [&["169.254.116.108"][..], &["1.1.1.1", "dns://169.254.116.108:53"], &["/etc/resolv.conf"], &[]] {
            assert_eq!(forwards(uses).finding("HDP302"), None, "{uses:?}");
        }
    }

    #[test]
    fn a_coredns_that_was_not_read_may_do_anything() {
        let scene = forwards(&["1.1.1.1"]).facts(|f| {
            f.pods = known(vec![
                crate::checks::testing::pod("coredns-1", crate::facts::PodRole::Coredns),
                crate::checks::testing::pod("coredns-2", crate::facts::PodRole::Coredns),
            ]);
        });
        assert_eq!(scene.finding("HDP302"), None);
    }
}
