//! What comes out: JSON for machines, a table for people. Goals stand beside the numbers.

use serde::Serialize;

use crate::stats::Estimate;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) measures: Vec<Measure>,
    /// What could not be measured, and why.
    pub(crate) impossible: Vec<Impossible>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) processors: usize,
    /// `/proc/loadavg` before and after: what else ran is in every number.
    pub(crate) load_before: String,
    pub(crate) load_after: String,
    pub(crate) version: &'static str,
    /// Small loads and few rounds: to try the command, not to quote.
    pub(crate) quick: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct Measure {
    pub(crate) group: &'static str,
    pub(crate) what: String,
    pub(crate) subject: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: Estimate,
    /// The largest value that is still good.
    pub(crate) goal: Option<f64>,
    /// Whether the median meets it.
    pub(crate) met: Option<bool>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) note: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Impossible {
    pub(crate) what: String,
    pub(crate) why: String,
}

impl Report {
    /// Adds what `values` give; without any it adds nothing.
    pub(crate) fn add(
        &mut self,
        group: &'static str,
        (what, subject): (impl Into<String>, &'static str),
        (values, unit): (&[f64], &'static str),
        goal: Option<f64>,
        note: impl Into<String>,
    ) {
        let Some(value) = crate::stats::estimate(values) else { return };
        let met = goal.map(|goal| value.median <= goal);
        self.measures.push(Measure { group, what: what.into(), subject, unit, value, goal, met, note: note.into() });
    }

    pub(crate) fn impossible(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let (what, why) = (what.into(), why.into());
        if !self.impossible.iter().any(|known| known.what == what && known.why == why) {
            eprintln!("bench: {what}: {why}");
            self.impossible.push(Impossible { what, why });
        }
    }

    /// In Markdown, so that it can be put into the documentation as it is.
    pub(crate) fn table(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "{}, {} x {}; load average {} before, {} after{}\n\n| measure | subject | median | interval | rounds | goal | |\n\
             |---|---|--:|--:|--:|--:|---|\n",
            machine.kernel,
            machine.processors,
            machine.processor,
            machine.load_before,
            machine.load_after,
            if machine.quick { "; --quick: to try the command, not to quote" } else { "" },
        );
        for measure in &self.measures {
            let Measure { what, subject, unit, value, goal, note, .. } = measure;
            let goal = goal.map_or_else(String::new, |goal| format!("{} {unit}", shown(goal)));
            let met = match measure.met {
                Some(true) => "met",
                Some(false) => "**not met**",
                None => "",
            };
            let low_confidence = if value.confidence < 0.95 { " *" } else { "" };
            let verdict = [met, note.as_str()].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>();
            text.push_str(&format!(
                "| {what} | {subject} | {} {unit} | {} .. {}{low_confidence} | {} | {goal} | {} |\n",
                shown(value.median),
                shown(value.low),
                shown(value.high),
                value.rounds,
                verdict.join("; "),
            ));
        }
        text.push_str(
            "\n\\* fewer than six rounds: the extremes, which hold the median in fewer than 95 of 100 cases\n",
        );
        if !self.impossible.is_empty() {
            text.push_str("\nNot measured:\n");
            for Impossible { what, why } in &self.impossible {
                text.push_str(&format!("- {what}: {why}\n"));
            }
        }
        text
    }
}

/// Three figures are more than any of this is good for.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value == value.trunc() => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_stands_beside_its_number() {
        let machine = Machine {
            kernel: "Linux 6.18".into(),
            processor: "CPU".into(),
            processors: 2,
            load_before: "0.1".into(),
            load_after: "0.2".into(),
            version: "0",
            quick: true,
        };
        let mut report = Report { machine, measures: Vec::new(), impossible: Vec::new() };
        report.add("hooks", ("a packet", "ours"), (&[30.0, 31.0, 50.0], "ns"), Some(40.0), "");
        report.add("hooks", ("another", "ours"), (&[410.25], "ns"), Some(400.0), "a reason");
        report.add("hooks", ("no value", "ours"), (&[], "ns"), Some(1.0), "");
        report.impossible("bpftrace", "it is not here");
        let table = report.table();
        assert!(table.contains("| a packet | ours | 31 ns | 30 .. 50 * | 3 | 40 ns | met |"), "{table}");
        assert!(
            table.contains("| another | ours | 410 ns | 410 .. 410 * | 1 | 400 ns | **not met**; a reason |"),
            "{table}"
        );
        assert!(!table.contains("no value"));
        assert!(table.contains("- bpftrace: it is not here"));
    }
}
