//! For CI: the verdict and every finding as a test case. What fails here is what the exit code calls a problem.

use std::io::{self, Write};

use super::{Options, Report, Status, escape::xml, view};
use crate::checks::{Finding, Severity};

/// # Errors
/// `out` cannot be written.
pub fn render(report: &Report, _options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let failing = report.findings.iter().filter(|finding| finding.severity == Severity::Fail).count();
    let failures = failing + usize::from(report.verdict.status == Status::Fail);
    let errors = usize::from(report.verdict.status == Status::Unknown);
    let counts = format!("tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\"", report.findings.len() + 1);
    let time = format!("time=\"{}.{:03}\"", report.duration_ms / 1000, report.duration_ms % 1000);
    let (host, at) = (xml(&report.node.name), xml(&report.taken_at));
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    writeln!(out, "<testsuites name=\"hostdns-probe\" {counts} {time}>")?;
    writeln!(out, "  <testsuite name=\"check\" hostname=\"{host}\" timestamp=\"{at}\" skipped=\"0\" {counts} {time}>")?;
    properties(report, out)?;
    verdict(report, &time, out)?;
    for finding in &report.findings {
        case(finding, out)?;
    }
    writeln!(out, "  </testsuite>\n</testsuites>")
}

fn properties(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let cilium = report.facts.cilium.version.get().map_or("unknown", String::as_str);
    let targets = report.targets.join(" ");
    writeln!(out, "    <properties>")?;
    for (name, value) in [
        ("version", report.tool.version.as_str()),
        ("kernel", &report.node.kernel),
        ("os", &report.node.os),
        ("cilium", cilium),
        ("targets", &targets),
    ] {
        writeln!(out, "      <property name=\"{name}\" value=\"{}\"/>", xml(value))?;
    }
    writeln!(out, "    </properties>")
}

fn verdict(report: &Report, time: &str, out: &mut dyn Write) -> io::Result<()> {
    let verdict = &report.verdict;
    let element = match verdict.status {
        Status::Pass => None,
        Status::Fail => Some("failure"),
        Status::Unknown => Some("error"),
    };
    writeln!(out, "    <testcase classname=\"hostdns-probe\" name=\"pods reach host DNS\" {time}>")?;
    if let Some(element) = element {
        let kind = verdict.cause.as_deref().unwrap_or("unknown");
        let story = story(report).join("\n");
        writeln!(out, "      <{element} type=\"{}\" message=\"{}\">", xml(kind), xml(&verdict.summary))?;
        writeln!(out, "{}</{element}>", text(&story))?;
    } else {
        writeln!(out, "      <system-out>{}</system-out>", text(&verdict.summary))?;
    }
    writeln!(out, "    </testcase>")
}

/// The telling packet's hops, and how the queries went.
fn story(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some((query, trace)) = view::packet::telling(report) {
        lines.push(view::packet::title(report, query));
        for hop in view::packet::hops(trace) {
            let note = hop.note.map(|note| format!(" ({note})")).unwrap_or_default();
            lines.push(format!("{} {} {}{note}", hop.time, hop.place, hop.flow));
        }
        lines.extend(view::packet::ending(report, trace));
    }
    let rows = view::queries::table(report).into_iter();
    lines.extend(rows.map(|row| format!("{}: UDP {}, TCP {}", row.vantage, row.udp.text, row.tcp.text)));
    lines
}

fn case(finding: &Finding, out: &mut dyn Write) -> io::Result<()> {
    let name = format!("{} {}", finding.code, finding.slug);
    let evidence = finding.evidence.join("\n");
    writeln!(out, "    <testcase classname=\"hostdns-probe.findings\" name=\"{}\">", xml(&name))?;
    match finding.severity {
        Severity::Fail => {
            let (kind, message) = (xml(&finding.code), xml(&finding.title));
            writeln!(out, "      <failure type=\"{kind}\" message=\"{message}\">{}</failure>", text(&evidence))?;
        }
        Severity::Warn | Severity::Info => {
            let word = if finding.severity == Severity::Warn { "warning" } else { "info" };
            writeln!(out, "      <system-out>{word}: {}\n{}</system-out>", text(&finding.title), text(&evidence))?;
        }
    }
    writeln!(out, "    </testcase>")
}

/// Element text of several lines.
fn text(lines: &str) -> String {
    lines.split('\n').map(xml).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::examples::{self, rendered};

    #[test]
    fn every_example() {
        for (name, report) in examples::all() {
            insta::assert_snapshot!(format!("junit_{name}"), rendered(render, &report, &Options::default()));
        }
    }

    #[test]
    fn a_pass_fails_no_case_and_an_unknown_is_an_error() {
        let junit = |report| rendered(render, &report, &Options::default());
        assert!(!junit(examples::healthy()).contains("<failure"));
        assert!(junit(examples::unknown()).contains("errors=\"1\""));
    }

    #[test]
    fn names_from_packets_stay_text() {
        let mut report = examples::leak();
        report.queries[0].qname = "</failure><x a=\"\">\x01".into();
        report.verdict.summary = "\"><script>".into();
        let xml = rendered(render, &report, &Options::default());
        assert!(!xml.contains("<x ") && !xml.contains("<script") && !xml.contains('\x01'), "{xml}");
    }
}
