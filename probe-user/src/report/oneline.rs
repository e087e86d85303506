//! One line, for node-problem-detector, which shows the first 80 characters of what a plugin prints.

use std::io::{self, Write};

use super::{Options, Report, Status, escape, view};
use crate::{
    checks::Severity,
    ended::{Direction, Ended},
    facts::Transport,
};

/// # Errors
/// `out` cannot be written.
pub fn render(report: &Report, _options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let verdict = &report.verdict;
    let status = verdict.status.as_str().to_uppercase();
    let cause = match (view::cause(report), &verdict.cause) {
        (Some(cause), _) => format!(" {} {}:", cause.code, cause.slug),
        (None, Some(code)) => format!(" {code}:"),
        (None, None) => String::new(),
    };
    let line = format!("{status}{cause} {}, {}", what(report), targets(report));
    writeln!(out, "{}", escape::line(&line))
}

/// Where only some of the addresses fail, those.
fn targets(report: &Report) -> String {
    let failing = |target: &&String| {
        let asked = report.queries.iter().filter(|query| query.vantage_kind.is_pod());
        let mut of_target = asked.filter(|query| query.address.to_string() == **target);
        of_target.any(|query| view::queries::fate(report, query) != Ended::Answered)
    };
    let failing: Vec<&str> = match report.verdict.status {
        Status::Fail => report.targets.iter().filter(failing).map(String::as_str).collect(),
        Status::Pass | Status::Unknown => Vec::new(),
    };
    if failing.is_empty() { report.targets.join(" ") } else { failing.join(" ") }
}

fn what(report: &Report) -> String {
    let verdict = &report.verdict;
    match (verdict.status, verdict.ended) {
        (Status::Pass, _) => answered(report),
        (_, Some(ended)) => {
            let place = view::packet::telling(report).and_then(|(_, trace)| match ended {
                Ended::Leaked => trace.leak.as_ref().map(|leak| format!(" via {}", leak.interface)),
                // Cilium's reason says why; the kernel's only that a program of Cilium's did it.
                Ended::Dropped => trace.drop.as_ref().map(|drop| match &drop.cilium_reason {
                    Some(cilium) => format!(" ({})", cilium.text),
                    None => format!(" {}", drop.reason),
                }),
                Ended::Lost => trace.lost.as_ref().map(|lost| format!(" after {}", lost.last_hop)),
                _ => None,
            });
            let reply = if verdict.direction == Direction::Reply { "reply " } else { "" };
            format!("{reply}{}{}", view::packet::word(ended), place.unwrap_or_default())
        }
        (_, None) => "could not be judged".to_owned(),
    }
}

fn answered(report: &Report) -> String {
    let by = |transport| {
        let mut answered = report.queries.iter().filter(|query| query.ended == Ended::Answered);
        answered.any(|query| query.transport == transport)
    };
    match (by(Transport::Udp), by(Transport::Tcp)) {
        (true, true) => "answered over UDP and TCP",
        (true, false) => "answered over UDP",
        (false, true) => "answered over TCP",
        (false, false) => "healthy",
    }
    .to_owned()
        + &warned(report)
}

/// Of what a pass leaves to be desired, as much as fits beside the cause.
fn warned(report: &Report) -> String {
    let codes: Vec<&str> = view::further(report)
        .filter(|finding| finding.severity == Severity::Warn && Some(&finding.code) != report.verdict.cause.as_ref())
        .map(|finding| finding.code.as_str())
        .take(2)
        .collect();
    if codes.is_empty() { String::new() } else { format!(" (warn {})", codes.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::examples::{self, rendered};

    #[test]
    fn every_example() {
        let lines: String =
            examples::all().into_iter().map(|(_, report)| rendered(render, &report, &Options::default())).collect();
        insta::assert_snapshot!("oneline", lines);
    }

    #[test]
    fn the_address_that_works_is_not_named_beside_the_one_that_fails() {
        let mut report = examples::leak();
        let mut fine = report.queries[0].clone();
        fine.address = "[fd54::1]:53".parse().expect("an address");
        (fine.ended, fine.traces) = (Ended::Answered, Vec::new());
        report.queries.push(fine);
        report.targets.push("[fd54::1]:53".into());
        let line = rendered(render, &report, &Options::default());
        assert!(line.ends_with(", 169.254.116.108:53\n"), "{line}");
    }

    #[test]
    fn what_matters_fits_node_problem_detector() {
        for (name, report) in examples::all() {
            let line = rendered(render, &report, &Options::default());
            assert_eq!(line.lines().count(), 1, "{name}");
            let core = line.rsplit_once(", ").map_or(line.as_str(), |(core, _targets)| core);
            assert!(core.chars().count() <= 80, "{name}: {core}");
        }
    }
}
