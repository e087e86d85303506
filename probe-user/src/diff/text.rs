//! A diff for a terminal.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::{
    Diff, Latency, Outcome, Path,
    latency::Judged,
    word::{is_new, said},
};
use crate::{
    checks::{Finding, Severity},
    report::{
        Options, Prediction, Status,
        text::page::{PLAIN, Page, columns},
        view,
    },
};

/// # Errors
/// `out` cannot be written.
pub fn render(diff: &Diff, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page::new(options.width, options.color);
    page.prose((style(diff.outcome), &format!("{}  ", diff.outcome.heading())), &diff.summary);
    for (word, side) in [("before", &diff.before), ("after ", &diff.after)] {
        let (verdict, node) = (said(&side.verdict), &side.node);
        page.line(&[(PLAIN, &format!("  {word}  {}  {node}  {verdict}  {}", side.taken_at, side.name))]);
    }
    section("Note", diff.caveats.iter().cloned(), &mut page);
    section("Fails now", not_below(diff, &diff.regressions), &mut page);
    section("Worse", not_below(diff, &diff.warnings), &mut page);
    section("What did it, by the model", culprits(diff), &mut page);
    section("Changed", changes(diff, options.verbose), &mut page);
    section("Prediction", prediction(diff).into_iter(), &mut page);
    section("Queries that end otherwise", ways(diff), &mut page);
    section("Latency", latencies(diff, options.verbose), &mut page);
    section("New findings", diff.findings.new.iter().map(finding), &mut page);
    section("Gone findings", diff.findings.gone.iter().map(finding), &mut page);
    let next = diff.findings.new.iter().find(|finding| Some(&finding.code) == diff.after.verdict.cause.as_ref());
    if let Some(cause) = next {
        page.blank();
        let next = format!("`hostdns-probe explain {}` tells why; the second report has the fixes.", cause.code);
        page.prose((PLAIN, "  "), &next);
    }
    out.write_all(page.text().as_bytes())
}

/// A line that fits is left as it is (its columns are aligned); a longer one is wrapped, two columns further in.
fn section(title: &str, lines: impl Iterator<Item = String>, page: &mut Page) {
    for (n, text) in lines.enumerate() {
        if n == 0 {
            page.blank();
            page.line(&[(PLAIN, "  "), (PLAIN, title)]);
        }
        let whole = format!("    {text}");
        if columns(&whole) <= page.width {
            page.line(&[(PLAIN, &whole)]);
            continue;
        }
        let indent = columns(&whole) - columns(whole.trim_start());
        page.hanging(indent, &text);
    }
}

const fn style(outcome: Outcome) -> Style {
    let color = match outcome {
        Outcome::Regression | Outcome::BrokenOtherwise | Outcome::StillBroken => AnsiColor::Red,
        Outcome::Degraded | Outcome::Unknown => AnsiColor::Yellow,
        Outcome::Fixed | Outcome::Changed | Outcome::Unchanged => AnsiColor::Green,
    };
    color.on_default().bold()
}

/// Without the new findings, which have their own section, with their titles.
pub(super) fn not_below<'a>(diff: &'a Diff, lines: &'a [String]) -> impl Iterator<Item = String> + 'a {
    let below = |line: &&String| diff.findings.new.iter().any(|finding| **line == is_new(finding));
    lines.iter().filter(move |line| !below(line)).cloned()
}

pub(super) fn culprits(diff: &Diff) -> impl Iterator<Item = String> + '_ {
    diff.culprits.iter().flat_map(|culprit| {
        let head =
            format!("{}: {} → {}. This alone turns the prediction.", culprit.what, culprit.before, culprit.after);
        std::iter::once(head).chain(culprit.because.iter().map(|step| format!("  {step}")))
    })
}

/// What became known or unknown is of use only to who looks closely.
pub(super) fn changes(diff: &Diff, all: bool) -> impl Iterator<Item = String> + '_ {
    let known = move |change: &&super::Changed| all || (change.before.is_some() && change.after.is_some());
    let shown = diff.changes.iter().filter(known);
    let width = diff.changes.iter().filter(known).map(|change| change.what.chars().count()).max().unwrap_or(0);
    shown.map(move |change| {
        let value = |value: &Option<String>| match value.as_deref() {
            None => "not known".to_owned(),
            Some("") => "nothing".to_owned(),
            Some(value) => value.to_owned(),
        };
        let why = change.why.as_ref().map(|why| format!("  ({why})")).unwrap_or_default();
        format!("{:width$}  {} → {}{why}", change.what, value(&change.before), value(&change.after))
    })
}

/// None where both times the same was predicted.
pub(super) fn prediction(diff: &Diff) -> Option<String> {
    let say = |prediction: &Prediction| match (prediction.status, prediction.ended) {
        (Status::Unknown, _) => {
            let why = prediction.because.last().map(|why| format!(" ({why})")).unwrap_or_default();
            format!("unknown{why}")
        }
        (status, None) => status.as_str().to_owned(),
        (_, Some(ended)) => {
            let cause = prediction.cause.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
            format!("{}{cause}", view::packet::word(ended))
        }
    };
    let (before, after) = (say(&diff.before.prediction), say(&diff.after.prediction));
    (before != after).then(|| format!("{before} → {after}"))
}

/// Those that are not told as regressions.
pub(super) fn ways(diff: &Diff) -> impl Iterator<Item = String> + '_ {
    diff.ways.iter().filter(|way| !way.broke()).map(ToString::to_string)
}

/// Where nothing could be told, only who looks closely wants to know.
pub(super) fn latencies(diff: &Diff, all: bool) -> impl Iterator<Item = String> + '_ {
    diff.latency.iter().filter(move |one| all || one.judged != Judged::TooFew).map(latency)
}

/// `from pods to 169.254.116.108:53`.
pub(super) fn way(latency: &Latency) -> String {
    format!("from {} to {}", latency.path.as_str(), latency.address)
}

fn latency(latency: &Latency) -> String {
    let ms = view::duration;
    let (old, new) = (&latency.before, &latency.after);
    let verdict = match latency.judged {
        Judged::WithinNoise => "within noise",
        Judged::Slower => "slower beyond chance",
        Judged::Faster => "faster beyond chance",
        Judged::TooFew => "too few answers to tell noise from change",
    };
    format!(
        "{}: p50 {} → {}, {verdict} ({}: p = {}, alpha = {}, {} and {} answers)",
        way(latency),
        ms(old.p50_us),
        ms(new.p50_us),
        latency.test,
        chance(latency.p),
        latency.alpha,
        old.answered,
        new.answered,
    )
}

/// What may be behind it. The test tells change from chance, not what changed: a machine or an upstream that is busy at
/// one of the two moments slows every answer of that check.
pub(super) fn maybe(latency: &Latency) -> &'static str {
    if latency.path == Path::Node {
        "which points to the server, its upstream or a busy machine: these pass nothing of Cilium's"
    } else if latency.node_too {
        "so were the node's own, which points to the server, its upstream or a busy machine, not to the pods' way"
    } else {
        "a busy machine or upstream does that too; check again before blaming the change"
    }
}

fn chance(p: f64) -> String {
    if p < 0.001 { "below 0.001".to_owned() } else { format!("{p:.3}") }
}

fn finding(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Fail => "fail",
        Severity::Warn => "warn",
        Severity::Info => "info",
    };
    format!("{severity}  {} {}: {}", finding.code, finding.slug, finding.title)
}
