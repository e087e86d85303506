//! HDP211 local-redirect-policy: DNS may be redirected before it reaches the address.

use crate::checks::{Case, Check, Finding, Severity, code::Code};

pub(in crate::checks) const CHECK: Check = Check { code: Code::LocalRedirectPolicy, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
Local redirect policies are on: DNS of pods may be sent to a local pod instead.

A CiliumLocalRedirectPolicy for kube-dns, the usual way to run node-local DNS with Cilium, redirects
pods' queries to the DNS service to a pod on the same node. Queries to the address itself are only
touched by a policy that names it. So what pods experience may differ from what this check measured.

By hand: `kubectl get ciliumlocalredirectpolicies -A` and `cilium-dbg lrp list`.

Fix: nothing, if it is meant. `kubectl get ciliumlocalredirectpolicies -A` lists them; `cilium-dbg
lrp list` in the agent's pod shows what is active on this node.

Versions: any with enable-local-redirect-policy.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let policy = &case.facts.cilium.local_redirect_policy;
    if policy.get() != Some(&true) {
        return Vec::new();
    }
    let title = "Cilium's local redirect policies are on: pods' DNS may go to a local pod instead.";
    vec![Finding::new(Code::LocalRedirectPolicy, Severity::Info, title).evidence(policy.source())]
}

#[cfg(test)]
mod tests {
    use crate::checks::testing::{Scene, known};

    #[test]
    fn only_where_it_is_on() {
        assert_eq!(Scene::new().finding("HDP211"), None);
        assert!(Scene::new().facts(|f| f.cilium.local_redirect_policy = known(true)).finding("HDP211").is_some());
    }
}
