//! HDP214 agent-unhealthy: the agent says that it is not well.

use crate::checks::{Case, Check, Finding, Severity, code::Code};

pub(in crate::checks) const CHECK: Check = Check { code: Code::AgentUnhealthy, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
Cilium's agent reports a state other than Ok.

A degraded agent keeps the programs and maps that it last wrote, so traffic may go on while changes
(an address, a policy, a new pod) no longer reach the datapath.

By hand: `cilium-dbg status --verbose` in the agent's pod.

Fix: `kubectl -n kube-system exec ds/cilium -- cilium-dbg status --verbose` says what fails; the
agent's log says why. Then check again.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let state = &case.facts.cilium.state;
    let Some(text) = state.get().filter(|text| !text.eq_ignore_ascii_case("ok")) else {
        return Vec::new();
    };
    let title = format!("Cilium's agent says its state is {text}.");
    vec![Finding::new(Code::AgentUnhealthy, Severity::Warn, title).evidence(state.source())]
}

#[cfg(test)]
mod tests {
    use crate::checks::testing::{Scene, known};

    #[test]
    fn only_when_not_ok() {
        assert_eq!(Scene::new().finding("HDP214"), None);
        let scene = Scene::new().facts(|f| f.cilium.state = known("Failure".into()));
        assert!(scene.finding("HDP214").unwrap().title.contains("Failure"));
    }
}
