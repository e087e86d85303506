//! HDP008 namespace-unreachable: a pod that could not be entered.

use crate::checks::{Case, Check, Finding, Severity, code::Code};
use crate::ended::Ended;

pub(in crate::checks) const CHECK: Check = Check { code: Code::NamespaceUnreachable, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
A pod's network namespace could not be found or entered, so nothing was asked from inside it.

Queries from pods are asked from inside their own network namespace; nothing is installed or
started there. Entering needs CAP_SYS_ADMIN and a /proc that shows the pod's processes. A pod that
just ended looks the same.

By hand: `nsenter -t PID -n ip addr` as root, with a PID of the pod.

Fix: run with hostPID and privileged, or name a namespace yourself: --vantage netns=PATH,name=NAME.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let mut lines: Vec<String> = case
        .queries
        .iter()
        .filter(|query| query.ended == Ended::Unknown)
        .filter_map(|query| query.note.as_ref().map(|note| (query, note)))
        .filter(|(_, note)| note.contains("namespace"))
        .map(|(query, note)| format!("{}: {note}", query.vantage))
        .collect();
    lines.dedup();
    let asked = !lines.is_empty();
    // What was not seen or not entered while pods were looked for.
    lines.extend(case.facts.pods.notes().iter().cloned());
    if lines.is_empty() {
        return Vec::new();
    }
    let title = match asked {
        true => "A namespace could not be entered: nothing was asked from there.",
        false => "Not every pod could be found and entered: what is said here does not count for those.",
    };
    vec![Finding::new(Code::NamespaceUnreachable, Severity::Warn, title).evidences(lines)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{Fate, Scene},
        facts::Fact,
    };

    #[test]
    fn once_for_a_vantage() {
        let mut scene = Scene::new().coredns(Fate::Silent);
        assert_eq!(scene.finding("HDP008"), None);
        for query in &mut scene.queries {
            query.ended = Ended::Unknown;
            query.note = Some("cannot enter network namespace /proc/7/ns/net: EPERM".into());
        }
        assert_eq!(scene.finding("HDP008").unwrap().evidence.len(), 1);
    }

    #[test]
    fn what_was_not_seen_of_the_pods_is_told() {
        let mut scene = Scene::new();
        let Fact::Known { notes, .. } = &mut scene.facts.pods else { panic!("a scene has pods") };
        notes.push("pod app (pid 7): cannot enter network namespace /proc/7/ns/net: EPERM".into());
        let finding = scene.finding("HDP008").unwrap();
        assert!(finding.evidence.iter().any(|line| line.contains("pod app")), "{:?}", finding.evidence);
    }
}
