//! For an issue or a chat: the verdict, the packet's path, the cause, the fixes, and the rest folded away.

use std::io::{self, Write};

use super::{Options, Report, Status, escape, view};
use crate::checks::{Finding, Remedy, Severity};

/// # Errors
/// `out` cannot be written.
pub fn render(report: &Report, _options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let md = escape::markdown;
    let status = report.verdict.status.as_str().to_uppercase();
    let code = view::cause(report).map(|cause| format!(" ({} {})", md(&cause.code), md(&cause.slug)));
    writeln!(out, "## {status}: host DNS on {}{}\n", md(&report.node.name), code.unwrap_or_default())?;
    writeln!(out, "{}\n", md(&report.verdict.summary))?;
    environment(report, out)?;
    packet(report, out)?;
    if report.verdict.status != Status::Pass {
        if let Some(cause) = view::cause(report) {
            writeln!(out, "### Why\n\n{}\n", md(cause.story.as_ref().unwrap_or(&cause.title)))?;
            list(&cause.evidence, out)?;
        }
        if let Some(past) = view::past_leaks(report) {
            writeln!(out, "Before: {}\n", md(&past.title))?;
        }
    }
    queries(report, out)?;
    further(report, out)?;
    if let Some(cause) = view::cause(report).filter(|cause| !cause.remedies.is_empty()) {
        fixes(cause, out)?;
    }
    findings(report, out)?;
    unavailable(report, out)?;
    writeln!(out, "{} {}.", md(&view::prediction(report)), md(&view::took(report)))
}

/// What else is wrong, in the open: what is folded away, nobody reads.
fn further(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let more: Vec<_> =
        view::further(report).map(|finding| format!("{} {}: {}", finding.code, finding.slug, finding.title)).collect();
    if more.is_empty() {
        return Ok(());
    }
    writeln!(out, "### Also\n")?;
    list(&more, out)
}

fn environment(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let md = escape::markdown;
    let cilium = report.facts.cilium.version.get().map_or("unknown", String::as_str);
    writeln!(out, "| Target | Kernel | OS | Cilium | Probe | Taken |\n|---|---|---|---|---|---|")?;
    let (targets, node) = (report.targets.join(", "), &report.node);
    let cells = [&targets, &node.kernel, &node.os, cilium, &report.tool.version, &report.taken_at].map(md);
    writeln!(out, "| {} |\n", cells.join(" | "))
}

fn packet(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let Some((query, trace)) = view::packet::telling(report) else {
        return Ok(());
    };
    let hops = view::packet::hops(trace);
    let time = hops.iter().map(|hop| hop.time.chars().count()).max().unwrap_or(0);
    let place = hops.iter().map(|hop| hop.place.chars().count()).max().unwrap_or(0);
    let mut story = String::new();
    for hop in hops {
        let note = hop.note.map(|note| format!("   ← {note}")).unwrap_or_default();
        story.push_str(&escape::line(&format!("{:>time$}  {:place$}  {}{note}", hop.time, hop.place, hop.flow)));
        story.push('\n');
    }
    if let Some(ending) = view::packet::ending(report, trace) {
        story.push_str(&escape::line(&format!("{:time$}  {ending}", "")));
    }
    writeln!(out, "### One query ({})\n", escape::markdown(&view::packet::title(report, query)))?;
    code("text", &story, "", out)
}

fn queries(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let rows = view::queries::table(report);
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "### Queries\n\n| From | UDP | TCP |\n|---|---|---|")?;
    for row in rows {
        let note = row.note.map(|note| format!(" {note}")).unwrap_or_default();
        let cells = [format!("{}{note}", row.vantage), row.udp.text, row.tcp.text].map(|cell| escape::markdown(&cell));
        writeln!(out, "| {} |", cells.join(" | "))?;
    }
    writeln!(out)
}

fn fixes(cause: &Finding, out: &mut dyn Write) -> io::Result<()> {
    let heading = if cause.remedies.len() > 1 { "Fix, one of (least side effect first)" } else { "Fix" };
    writeln!(out, "### {heading}\n")?;
    for (n, Remedy { title, steps, patch, variants, caution }) in cause.remedies.iter().enumerate() {
        writeln!(out, "{}. {}\n", n + 1, escape::markdown(title))?;
        for step in steps {
            writeln!(out, "   - {}", instruction(step))?;
        }
        if !steps.is_empty() {
            writeln!(out)?;
        }
        if let Some(patch) = patch {
            code("yaml", patch, "   ", out)?;
        }
        for form in variants {
            writeln!(out, "   {}:\n", escape::markdown(&form.title))?;
            code("yaml", &form.patch, "   ", out)?;
        }
        if let Some(caution) = caution {
            writeln!(out, "   **Caution:** {}\n", escape::markdown(caution))?;
        }
    }
    Ok(())
}

/// A step that is a command is shown as one; three spaces part it from what is said of it.
fn instruction(step: &str) -> String {
    const COMMANDS: [&str; 7] = ["helm", "hostdns-probe", "ip", "kubectl", "sudo", "sysctl", "talosctl"];
    let (command, remark) = step.split_once("   ").unwrap_or((step, ""));
    let is_command = command.split(' ').next().is_some_and(|first| COMMANDS.contains(&first));
    if !is_command || command.contains('`') {
        return escape::markdown(step);
    }
    let remark = if remark.is_empty() { String::new() } else { format!(" {}", escape::markdown(remark)) };
    format!("`{}`{remark}", escape::line(command))
}

fn findings(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if report.findings.is_empty() {
        return Ok(());
    }
    writeln!(out, "<details><summary>All findings ({})</summary>\n", report.findings.len())?;
    writeln!(out, "| Severity | Code | Finding |\n|---|---|---|")?;
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Fail => "fail",
            Severity::Warn => "warn",
            Severity::Info => "info",
        };
        let cells = [severity, &format!("{} {}", finding.code, finding.slug), &finding.title].map(escape::markdown);
        writeln!(out, "| {} |", cells.join(" | "))?;
    }
    writeln!(out, "\n</details>\n")
}

fn unavailable(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let missing = view::facts::unavailable(&report.facts);
    if missing.is_empty() {
        return Ok(());
    }
    writeln!(out, "<details><summary>Facts unavailable ({})</summary>\n", missing.len())?;
    let lines: Vec<_> = missing.into_iter().map(|fact| format!("{}: {}", fact.fact, fact.why)).collect();
    list(&lines, out)?;
    writeln!(out, "</details>\n")
}

fn list(items: &[String], out: &mut dyn Write) -> io::Result<()> {
    for item in items {
        writeln!(out, "- {}", escape::markdown(item))?;
    }
    writeln!(out)
}

/// A code block behind a fence longer than any run of backticks inside.
fn code(language: &str, text: &str, indent: &str, out: &mut dyn Write) -> io::Result<()> {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat((longest + 1).max(3));
    writeln!(out, "{indent}{fence}{language}")?;
    for line in text.lines() {
        writeln!(out, "{indent}{}", escape::line(line))?;
    }
    writeln!(out, "{indent}{fence}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::examples::{self, rendered};

    #[test]
    fn every_example() {
        for (name, report) in examples::all() {
            insta::assert_snapshot!(format!("markdown_{name}"), rendered(render, &report, &Options::default()));
        }
    }

    #[test]
    fn commands_are_shown_as_commands() {
        for (step, shown) in [
            ("talosctl patch --patch @lo.yaml   (every node)", "`talosctl patch --patch @lo.yaml` (every node)"),
            ("from the node: dig @UPSTREAM example.com", "from the node: dig `@UPSTREAM` example.com"),
            ("check again afterwards", "check again afterwards"),
        ] {
            assert_eq!(instruction(step), shown);
        }
    }

    #[test]
    fn a_fence_holds_whatever_is_inside() {
        let mut block = Vec::new();
        code("text", "a ```` b", "", &mut block).expect("memory");
        assert_eq!(String::from_utf8(block).expect("text"), "`````text\na ```` b\n`````\n\n");
    }
}
