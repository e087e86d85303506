//! HDP005 events-lost: the kernel saw more than the probe could read.

use crate::checks::{Case, Check, Finding, Severity, code::Code};

pub(in crate::checks) const CHECK: Check = Check { code: Code::EventsLost, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
Events of the check's own window were lost, so nothing that rests on absence is claimed.

The hooks write to ring buffers. The check's own queries have a ring of their own, which only
overflows when this process gets no CPU for long. What was seen still counts: a leak or a drop is
proof. But a packet that was not seen again may have been in a lost event, so it is unknown instead
of lost.

By hand: the report's `events` member has seen and lost; `top` on the node shows who takes the CPU.

Fix: run the check again. If it stays, the node is starved of CPU: give the probe a CPU request.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    if case.events.lost == 0 {
        return Vec::new();
    }
    let title = "Events were lost during the check: nothing that rests on absence is claimed.";
    let evidence = format!("{} events seen, {} lost", case.events.seen, case.events.lost);
    vec![Finding::new(Code::EventsLost, Severity::Warn, title).evidence(evidence)]
}

#[cfg(test)]
mod tests {
    use crate::checks::testing::Scene;

    #[test]
    fn counts() {
        let mut scene = Scene::new();
        assert_eq!(scene.finding("HDP005"), None);
        scene.events.lost = 3;
        assert_eq!(scene.finding("HDP005").unwrap().evidence, ["20 events seen, 3 lost"]);
    }
}
