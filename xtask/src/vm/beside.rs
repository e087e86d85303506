//! Labs that stand at the same moment, with the same addresses, and are checked at the same moment. Before Linux 6.15 a
//! socket's hook cannot tell the namespace, and only the socket's cookie keeps them apart.

use serde_json::{Value, json};

use super::{
    judge::{self, Grade, Line},
    kernel::Kernel,
};

/// A node as `hostdns-probe lab up --spec` takes it, and what its check must say.
#[derive(Debug)]
pub(super) struct Lab {
    pub(super) name: &'static str,
    pub(super) node: &'static str,
    status: &'static str,
    ended: &'static str,
    cause: Option<&'static str>,
    /// A finding that must be there besides.
    finding: Option<&'static str>,
    /// Where on the pods' devices the facts must name Cilium's program.
    hook: Option<&'static str>,
}

const LEAKS: Lab = Lab {
    name: "beside-a-healthy-one",
    node: "{}",
    status: "fail",
    ended: "leaked",
    cause: Some("HDP201"),
    finding: None,
    hook: None,
};

const HEALTHY: Lab = Lab {
    name: "beside-a-leaking-one",
    node: r#"{"cilium": {"host_routing": "Legacy"}}"#,
    status: "pass",
    ended: "answered",
    cause: None,
    finding: None,
    hook: None,
};

/// Cilium's programs inside of netkit devices: what they redirect never comes to the host side's tcx.
const NETKIT: [Lab; 3] = [
    Lab {
        name: "netkit-leak",
        node: r#"{"cilium": {"netkit": true}}"#,
        status: "fail",
        ended: "leaked",
        cause: Some("HDP201"),
        finding: Some("HDP212"),
        hook: Some("netkit peer"),
    },
    Lab {
        name: "netkit-drop",
        node: r#"{"cilium": {"netkit": true}, "uplinks": "two"}"#,
        status: "fail",
        ended: "dropped",
        cause: Some("HDP202"),
        finding: Some("HDP212"),
        hook: Some("netkit peer"),
    },
    Lab {
        name: "netkit-healthy",
        node: r#"{"cilium": {"netkit": true, "host_routing": "Legacy"}}"#,
        status: "pass",
        ended: "answered",
        cause: None,
        finding: Some("HDP212"),
        hook: Some("netkit peer"),
    },
];

/// What stands together, group by group.
pub(super) fn groups(kernel: &Kernel) -> anyhow::Result<Vec<Vec<Lab>>> {
    let mut groups = vec![vec![LEAKS, HEALTHY]];
    if kernel.is_built_in("NETKIT")? {
        groups.extend(NETKIT.map(|lab| vec![lab]));
    }
    Ok(groups)
}

impl Lab {
    /// The line of this lab's report.
    pub(super) fn judge(&self, report: &Value) -> Line {
        let hooks = report["hooks"].as_array().into_iter().flatten().filter(|hook| hook["attached"] == false);
        let missing: Vec<String> =
            hooks.map(|hook| format!("{}: {}", word(&hook["name"]), word(&hook["reason"]))).collect();
        let direction = if self.status == "pass" { "none" } else { "request" };
        let mut line = judge::row(&json!({
            "scenario": self.name,
            "expected": {"status": self.status, "ended": self.ended, "direction": direction, "cause": self.cause},
            "measured": report["verdict"],
            "missing_hooks": missing,
        }));
        if let Some(wrong) = self.mixed_or_missing(report)
            && line.grade.passes()
        {
            line.grade = Grade::Wrong;
            line.measured = format!("{}, but {wrong}", line.measured);
        }
        line
    }

    fn mixed_or_missing(&self, report: &Value) -> Option<String> {
        let list = |field: &str| report[field].as_array().map_or(&[][..], Vec::as_slice);
        if let Some(code) = self.finding
            && !list("findings").iter().any(|finding| finding["code"] == code)
        {
            return Some(format!("without {code}"));
        }
        if let Some(hook) = self.hook
            && !is_named(&report["facts"]["cilium"]["programs"], hook)
        {
            return Some(format!("without Cilium's program at {hook}"));
        }
        let (traces, queries) = (list("traces"), list("queries"));
        if traces.len() > queries.len() {
            return Some(format!(
                "{} traces of {} questions: another lab's are among them",
                traces.len(),
                queries.len()
            ));
        }
        let leaks = traces.iter().filter(|trace| trace["ended"] == "leaked").count();
        (self.status == "pass" && leaks > 0).then(|| format!("{leaks} leaks, which are another lab's"))
    }
}

/// `cil_from_container`, as much of its name as the kernel keeps.
fn is_named(programs: &Value, hook: &str) -> bool {
    let is_a_pods = |one: &Value| word(&one["interface"]).starts_with("lxc");
    let mut found = programs["known"].as_array().into_iter().flatten();
    found.any(|one| one["hook"] == hook && one["name"] == "cil_from_contai" && is_a_pods(one))
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(status: &str, ended: &str, traces: &[&str], findings: &[&str]) -> Value {
        let direction = if status == "pass" { "none" } else { "request" };
        let cause = if status == "pass" { Value::Null } else { "HDP201".into() };
        json!({
            "verdict": {"status": status, "ended": ended, "direction": direction, "cause": cause},
            "queries": [{}, {}],
            "traces": traces.iter().map(|ended| json!({"ended": ended})).collect::<Vec<_>>(),
            "findings": findings.iter().map(|code| json!({"code": code})).collect::<Vec<_>>(),
            "hooks": [{"name": "tcx ingress", "attached": true}],
        })
    }

    #[test]
    fn each_verdict_is_its_own() {
        assert_eq!(HEALTHY.judge(&report("pass", "answered", &["answered"], &[])).grade, Grade::Right);
        assert_eq!(LEAKS.judge(&report("fail", "leaked", &["leaked"], &[])).grade, Grade::Right);
        assert_eq!(LEAKS.judge(&report("pass", "answered", &["answered"], &[])).grade, Grade::Wrong);
        assert_eq!(HEALTHY.judge(&report("pass", "answered", &["leaked"], &[])).grade, Grade::Wrong);
        assert_eq!(HEALTHY.judge(&report("pass", "answered", &["answered"; 3], &[])).grade, Grade::Wrong);
        assert_eq!(HEALTHY.judge(&Value::Null).grade, Grade::Error);
    }

    #[test]
    fn netkit_must_be_said() {
        let [leak, ..] = NETKIT;
        let with = |findings: &[&str], hook: &str, interface: &str| {
            let mut report = report("fail", "leaked", &["leaked"], findings);
            let program = json!({"interface": interface, "hook": hook, "name": "cil_from_contai", "id": 7});
            report["facts"] = json!({"cilium": {"programs": {"known": [program], "source": "bpf"}}});
            leak.judge(&report).grade
        };
        assert_eq!(with(&["HDP212"], "netkit peer", "lxc1"), Grade::Right);
        assert_eq!(with(&[], "netkit peer", "lxc1"), Grade::Wrong);
        assert_eq!(with(&["HDP212"], "tcx ingress", "lxc1"), Grade::Wrong);
        assert_eq!(with(&["HDP212"], "netkit peer", "eth0"), Grade::Wrong);
        assert_eq!(leak.judge(&report("fail", "leaked", &["leaked"], &["HDP212"])).grade, Grade::Wrong);
    }
}
