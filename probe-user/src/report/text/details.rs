//! What `-v` adds: every finding with its evidence, every query, trace and hook, and the facts that are not known.

use super::{
    hops,
    page::{BAD, BOLD, DIM, PLAIN, Page, WARN, columns, pad},
    remedy, sentence,
};
use crate::{
    checks::{Remedy, Severity},
    facts::AttachedProgram,
    report::{Report, Status, view},
};

pub(super) fn render(report: &Report, page: &mut Page) {
    node(report, page);
    prediction(report, page);
    findings(report, page);
    queries(report, page);
    traces(report, page);
    attachments(report, page);
    programs(report, page);
    unavailable(report, page);
}

fn heading(text: &str, page: &mut Page) {
    page.blank();
    page.line(&[(BOLD, "  "), (BOLD, text)]);
}

fn node(report: &Report, page: &mut Page) {
    let node = &report.node;
    heading("Node", page);
    let text = format!("{}, {}, kernel {}, lockdown {}", node.name, node.os, node.kernel, node.lockdown);
    page.prose((PLAIN, "    "), &text);
    let tool = &report.tool;
    let text = format!("{} {} at {}, asked {}", tool.name, tool.version, report.taken_at, report.targets.join(", "));
    page.prose((PLAIN, "    "), &text);
}

fn prediction(report: &Report, page: &mut Page) {
    if report.prediction.because.is_empty() {
        return;
    }
    heading("Prediction, because", page);
    for reason in &report.prediction.because {
        page.prose((PLAIN, "    - "), reason);
    }
}

fn findings(report: &Report, page: &mut Page) {
    if report.findings.is_empty() {
        return;
    }
    heading("Findings", page);
    // A remedy has its steps once; the cause's stand above, unless the verdict is a pass.
    let above = view::cause(report).filter(|_| report.verdict.status != Status::Pass);
    let mut shown: Vec<&Remedy> = above.into_iter().flat_map(|cause| &cause.remedies).collect();
    for finding in &report.findings {
        let (style, word) = match finding.severity {
            Severity::Fail => (BAD, "    fail  "),
            Severity::Warn => (WARN, "    warn  "),
            Severity::Info => (DIM, "    info  "),
        };
        page.prose((style, word), &format!("{} {}: {}", finding.code, finding.slug, sentence(&finding.title)));
        if let Some(story) = finding.story.as_ref().filter(|_| above != Some(finding)) {
            page.prose((PLAIN, "          "), story);
        }
        for evidence in &finding.evidence {
            page.prose((PLAIN, "          - "), evidence);
        }
        for fix in finding.remedies.iter().filter(|_| above != Some(finding)) {
            if shown.contains(&fix) {
                page.prose((PLAIN, "          Fix, as above: "), &sentence(&fix.title));
            } else {
                remedy("          Fix: ", fix, true, page);
                shown.push(fix);
            }
        }
    }
}

fn queries(report: &Report, page: &mut Page) {
    if report.queries.is_empty() {
        return;
    }
    heading("Every query", page);
    for query in &report.queries {
        let mut text = format!(
            "{} from {} to {}, {} {}: {}",
            query.transport.to_string().to_uppercase(),
            query.vantage,
            query.address,
            query.qname,
            query.qtype,
            view::packet::word(view::queries::fate(report, query)),
        );
        let known = [query.rcode.clone(), query.rtt_us.map(view::duration), query.note.clone()];
        for part in known.into_iter().flatten() {
            text.push_str(", ");
            text.push_str(&part);
        }
        if !query.answers.is_empty() {
            text.push_str(&format!(" ({})", query.answers.join(", ")));
        }
        page.prose((PLAIN, "    "), &text);
    }
}

fn traces(report: &Report, page: &mut Page) {
    for trace in &report.traces {
        let flow = trace.flow;
        heading(&format!("Trace {}: {}", trace.id, view::packet::word(trace.ended)), page);
        let started = format!("{}.{:06} s", trace.started_ns / 1_000_000_000, trace.started_ns % 1_000_000_000 / 1000);
        page.prose(
            (DIM, "    "),
            &format!("{} {} → {}, from {started} after boot", flow.transport, flow.src, flow.dst),
        );
        hops(report, trace, page);
    }
}

fn attachments(report: &Report, page: &mut Page) {
    heading(&format!("Hooks ({} events seen, {} lost)", report.events.seen, report.events.lost), page);
    let name = |hook: &crate::trace::Hook| match &hook.interface {
        Some(interface) => format!("{} {interface}", hook.name),
        None => hook.name.clone(),
    };
    let width = report.hooks.iter().map(|hook| columns(&name(hook))).max().unwrap_or(0);
    for hook in &report.hooks {
        let state = if hook.attached { "attached" } else { "not attached" };
        let state = hook.reason.as_ref().map_or_else(|| state.to_owned(), |reason| format!("{state}: {reason}"));
        page.prose((PLAIN, &format!("    {}  ", pad(&name(hook), width))), &state);
    }
}

/// Interface by interface and hook by hook, in the order in which they run.
fn programs(report: &Report, page: &mut Page) {
    let programs = &report.facts.cilium.programs;
    let Some(found) = programs.get().filter(|found| !found.is_empty()) else { return };
    heading("Programs on the devices", page);
    let place = |one: &AttachedProgram| format!("{} {}", one.interface, one.hook.as_str());
    let width = found.iter().map(|one| columns(&place(one))).max().unwrap_or(0);
    for chain in found.chunk_by(|a, b| (&a.interface, a.hook) == (&b.interface, b.hook)) {
        let (Some(first), names) = (chain.first(), chain.iter().map(program).collect::<Vec<_>>()) else { continue };
        page.prose((PLAIN, &format!("    {}  ", pad(&place(first), width))), &names.join(", then "));
    }
    for note in programs.notes() {
        page.prose((DIM, "    "), note);
    }
}

fn program(program: &AttachedProgram) -> String {
    let name = if program.name.is_empty() { "one without a name" } else { &program.name };
    let id = program.id.map(|id| format!("id {id}"));
    let parts =
        [id, program.priority.map(|n| format!("priority {n}")), program.handle.map(|n| format!("handle {n:#x}"))];
    format!("{name} ({})", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

fn unavailable(report: &Report, page: &mut Page) {
    let missing = view::facts::unavailable(&report.facts);
    if missing.is_empty() {
        return;
    }
    heading("Facts unavailable", page);
    let width = missing.iter().map(|fact| columns(&fact.fact)).max().unwrap_or(0);
    for fact in missing {
        let source = if fact.source.is_empty() { String::new() } else { format!(" ({})", fact.source) };
        page.prose((PLAIN, &format!("    {}  ", pad(&fact.fact, width))), &format!("{}{source}", fact.why));
    }
}
