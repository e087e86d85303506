//! A diff for a pull request or a chat.

use std::io::{self, Write};

use super::{Diff, text, word::said};
use crate::{
    checks::Finding,
    report::{Options, escape},
};

/// # Errors
/// `out` cannot be written.
pub fn render(diff: &Diff, _options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let md = escape::markdown;
    writeln!(out, "## {}: host DNS on {}\n\n{}\n", diff.outcome.heading(), md(&diff.after.node), md(&diff.summary))?;
    writeln!(out, "| | Taken | Node | Verdict |\n|---|---|---|---|")?;
    for (word, side) in [("before", &diff.before), ("after", &diff.after)] {
        let cells = [side.taken_at.clone(), side.node.clone(), said(&side.verdict)].map(|cell| md(&cell));
        writeln!(out, "| {word} | {} |", cells.join(" | "))?;
    }
    writeln!(out)?;
    list("Note", diff.caveats.iter().cloned(), out)?;
    list("Fails now", text::not_below(diff, &diff.regressions), out)?;
    list("Worse", text::not_below(diff, &diff.warnings), out)?;
    list("What did it, by the model", text::culprits(diff), out)?;
    list("Changed", text::changes(diff, false), out)?;
    list("Prediction", text::prediction(diff).into_iter(), out)?;
    list("Queries that end otherwise", text::ways(diff), out)?;
    list("Latency", text::latencies(diff, false), out)?;
    findings("New findings", &diff.findings.new, out)?;
    findings("Gone findings", &diff.findings.gone, out)
}

fn list(title: &str, lines: impl Iterator<Item = String>, out: &mut dyn Write) -> io::Result<()> {
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(out, "### {title}\n")?;
    for line in lines {
        let indent = if line.starts_with(' ') { "  " } else { "" };
        writeln!(out, "{indent}- {}", escape::markdown(line.trim_start()))?;
    }
    writeln!(out)
}

fn findings(title: &str, findings: &[Finding], out: &mut dyn Write) -> io::Result<()> {
    let line = |finding: &Finding| format!("{} {}: {}", finding.code, finding.slug, finding.title);
    list(title, findings.iter().map(line), out)
}
