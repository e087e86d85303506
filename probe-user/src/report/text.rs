//! The page for a terminal: the verdict first, one packet's story, the cause, the smallest fix, what was not known.

mod details;
pub(crate) mod page;

use std::io::{self, Write};

use self::page::{BAD, BOLD, DIM, GOOD, PLAIN, Page, WARN, columns, pad};
use super::{Options, Report, Status, view};
use crate::{
    checks::{Finding, Remedy, Severity},
    trace::PacketTrace,
};

/// Lines that a terminal shows at once. Beyond them, of the later remedies only the titles are shown.
const LINES: usize = 40;
/// Pieces of evidence where even that is too much; the first ones weigh most.
const EVIDENCE: usize = 5;

/// # Errors
/// `out` cannot be written.
pub fn render(report: &Report, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let all = view::cause(report)
        .map_or(Room::ALL, |cause| Room { remedies: cause.remedies.len(), evidence: view::reasons(report).len() });
    let mut page = compose(report, options, all);
    if !options.verbose {
        let fewer = (1..all.remedies).rev().map(|remedies| Room { remedies, ..all });
        let least = Room { remedies: 1, evidence: EVIDENCE };
        for room in fewer.chain([least]) {
            if page.len() <= LINES {
                break;
            }
            page = compose(report, options, room);
        }
    }
    out.write_all(page.text().as_bytes())
}

/// How much of the cause is shown.
#[derive(Clone, Copy)]
struct Room {
    /// Remedies in whole; of the others the titles.
    remedies: usize,
    /// Lines of evidence.
    evidence: usize,
}

impl Room {
    const ALL: Self = Self { remedies: usize::MAX, evidence: usize::MAX };
}

fn compose(report: &Report, options: &Options, room: Room) -> Page {
    let mut page = Page::new(options.width, options.color);
    verdict(report, &mut page);
    if report.verdict.status != Status::Pass {
        telling_packet(report, &mut page);
        why(report, room.evidence, &mut page);
        queries(report, &mut page);
        if let Some(cause) = view::cause(report) {
            remedies(cause, room.remedies, options.verbose, &mut page);
        }
        page.blank();
    }
    for finding in view::further(report) {
        further(finding, &mut page);
    }
    closing(report, options, &mut page);
    if options.verbose {
        details::render(report, &mut page);
    }
    page
}

fn verdict(report: &Report, page: &mut Page) {
    let lead = match report.verdict.status {
        Status::Pass => (GOOD, "PASS  "),
        Status::Fail => (BAD, "FAIL  "),
        Status::Unknown => (WARN, "UNKNOWN  "),
    };
    // What ails a node that passes is a warning, and has its own line.
    let cause = report.verdict.cause.as_ref().filter(|_| report.verdict.status != Status::Pass);
    let code = cause.map(|code| match view::cause(report) {
        Some(cause) => format!("{} {}", cause.code, cause.slug),
        None => code.clone(),
    });
    page.prose_then(lead, &report.verdict.summary, code.as_deref().map(|code| (DIM, code)));
}

fn telling_packet(report: &Report, page: &mut Page) {
    let Some((query, trace)) = view::packet::telling(report) else {
        return;
    };
    page.blank();
    page.prose((BOLD, "  One query "), &format!("({})", view::packet::title(report, query)));
    hops(report, trace, page);
}

/// The hops below each other, times to the right, notes behind the flow where there is room.
fn hops(report: &Report, trace: &PacketTrace, page: &mut Page) {
    let lines = view::packet::hops(trace);
    let widest = |of: fn(&view::packet::HopLine) -> &str| lines.iter().map(|line| columns(of(line))).max().unwrap_or(0);
    let (time, place, flow) = (widest(|l| &l.time).max(8), widest(|l| &l.place), widest(|l| &l.flow));
    for line in &lines {
        let head = format!("  {}{}  {}  ", " ".repeat(time - columns(&line.time)), line.time, pad(&line.place, place));
        let note = line.note.as_ref().map(|note| format!("← {note}"));
        match note {
            Some(note) if columns(&head) + flow + 3 + columns(&note) <= page.width => {
                page.line(&[(PLAIN, &head), (PLAIN, &pad(&line.flow, flow)), (PLAIN, "   "), (BAD, &note)]);
            }
            Some(note) => {
                page.line(&[(PLAIN, &head), (PLAIN, &line.flow)]);
                page.prose((PLAIN, &" ".repeat(time + 6)), &note);
            }
            None => page.line(&[(PLAIN, &head), (PLAIN, &line.flow)]),
        }
    }
    if let Some(ending) = view::packet::ending(report, trace) {
        page.prose((PLAIN, &" ".repeat(time + 4)), &ending);
    }
}

fn why(report: &Report, shown: usize, page: &mut Page) {
    if let Some(cause) = view::cause(report) {
        page.blank();
        page.prose((BOLD, "  Why     "), cause.story.as_deref().unwrap_or(&sentence(&cause.title)));
        let reasons = view::reasons(report);
        for reason in reasons.iter().take(shown) {
            page.prose((PLAIN, "          "), &sentence(reason));
        }
        if let Some(more @ 1..) = reasons.len().checked_sub(shown) {
            page.prose((DIM, "          "), &format!("({more} more with -v)"));
        }
    }
    if let Some(past) = view::past_leaks(report) {
        if view::cause(report).is_none() {
            page.blank();
        }
        page.prose((BOLD, "  Before  "), &sentence(&past.title));
    }
}

fn queries(report: &Report, page: &mut Page) {
    let rows = view::queries::table(report);
    if rows.is_empty() {
        return;
    }
    let vantage = rows.iter().map(|row| columns(&row.vantage)).max().unwrap_or(0).max(18);
    let udp = rows.iter().map(|row| columns(&row.udp.text)).max().unwrap_or(0).max(14);
    page.blank();
    page.line(&[(BOLD, &pad("  Queries", vantage + 6)), (BOLD, &pad("UDP", udp + 2)), (BOLD, "TCP")]);
    for row in rows {
        let color = |answered| if answered { PLAIN } else { BAD };
        let (vantage, udp) = (format!("    {}  ", pad(&row.vantage, vantage)), pad(&row.udp.text, udp + 2));
        let (udp, tcp) = ((color(row.udp.answered), udp.as_str()), (color(row.tcp.answered), row.tcp.text.as_str()));
        page.line(&[(PLAIN, vantage.as_str()), udp, tcp]);
        if let Some(note) = row.note {
            page.prose((PLAIN, "      "), note);
        }
    }
}

fn remedies(cause: &Finding, whole: usize, verbose: bool, page: &mut Page) {
    if cause.remedies.is_empty() {
        return;
    }
    let story = format!("`hostdns-probe explain {}` for the whole story", cause.code);
    page.blank();
    match cause.remedies.as_slice() {
        [_] => page.prose((BOLD, "  Fix "), &format!("({story})")),
        _ => page.prose((BOLD, "  Fix, one of "), &format!("(least side effect first; {story})")),
    }
    for (n, remedy) in cause.remedies.iter().enumerate() {
        let lead = format!("    {}. ", n + 1);
        if n < whole {
            self::remedy(&lead, remedy, verbose, page);
        } else {
            page.prose((PLAIN, &lead), &sentence(&remedy.title));
        }
    }
    if whole < cause.remedies.len() {
        page.line(&[(DIM, "       (-v shows the steps, patches and cautions of all)")]);
    }
}

fn remedy(lead: &str, remedy: &Remedy, verbose: bool, page: &mut Page) {
    let indent = " ".repeat(columns(lead));
    page.prose((PLAIN, lead), &sentence(&remedy.title));
    for step in &remedy.steps {
        page.prose((PLAIN, &format!("{indent}- ")), step);
    }
    for line in remedy.patch.iter().flat_map(|patch| patch.lines()) {
        page.line(&[(PLAIN, &indent), (PLAIN, "  "), (GOOD, line)]);
    }
    for form in &remedy.variants {
        if !verbose {
            // How it is applied is of use beside the patch only.
            let form = form.title.split([':', '(']).next().unwrap_or_default().trim();
            page.prose((DIM, &indent), &format!("({form}: with -v)"));
            continue;
        }
        page.prose((PLAIN, &indent), &format!("{}:", form.title));
        for line in form.patch.lines() {
            page.line(&[(PLAIN, &indent), (PLAIN, "  "), (GOOD, line)]);
        }
    }
    if let Some(caution) = &remedy.caution {
        page.prose((WARN, &format!("{indent}Caution: ")), &sentence(caution));
    }
}

fn further(finding: &Finding, page: &mut Page) {
    let (style, word) = match finding.severity {
        Severity::Fail => (BAD, "  fail  "),
        Severity::Warn => (WARN, "  warn  "),
        Severity::Info => (DIM, "  info  "),
    };
    page.prose((style, word), &format!("{} {}: {}", finding.code, finding.slug, sentence(&finding.title)));
}

fn closing(report: &Report, options: &Options, page: &mut Page) {
    let (prediction, took) = (view::prediction(report), view::took(report));
    let hint = if took.contains("unavailable") && !options.verbose { " (-v lists them)" } else { "" };
    let shown = report.verdict.status != Status::Pass && view::cause(report).is_some_and(has_fix);
    if !options.verbose && !shown && view::further(report).any(has_fix) {
        page.prose((DIM, "        "), "(-v shows the fixes; `hostdns-probe explain CODE` tells the whole story)");
    }
    let took = format!("{took}{hint}.");
    if 2 + columns(&prediction) + 1 + columns(&took) <= page.width {
        page.prose((PLAIN, "  "), &format!("{prediction} {took}"));
    } else {
        page.prose((PLAIN, "  "), &prediction);
        page.prose((PLAIN, "  "), &took);
    }
}

const fn has_fix(finding: &Finding) -> bool {
    !finding.remedies.is_empty()
}

/// With its full stop, and no second one.
fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '!', '?', ':']) { text.to_owned() } else { format!("{text}.") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::examples::{self, rendered};

    #[test]
    fn every_example() {
        for (name, report) in examples::all() {
            insta::assert_snapshot!(format!("text_{name}"), rendered(render, &report, &Options::default()));
        }
    }

    #[test]
    fn verbose_lists_everything() {
        let options = Options { verbose: true, ..Options::default() };
        insta::assert_snapshot!("text_leak_verbose", rendered(render, &examples::leak(), &options));
    }

    #[test]
    fn narrow_terminals_are_wrapped_for() {
        let options = Options { width: 60, ..Options::default() };
        insta::assert_snapshot!("text_leak_narrow", rendered(render, &examples::leak(), &options));
    }

    #[test]
    fn a_failing_page_fits_a_terminal_and_a_healthy_one_is_short() {
        for (name, report) in examples::all() {
            let lines = rendered(render, &report, &Options::default()).lines().count();
            assert!(lines <= LINES, "{name}: {lines} lines");
        }
        assert!(rendered(render, &examples::healthy(), &Options::default()).lines().count() <= 6);
    }

    #[test]
    fn a_pass_with_a_warning_shows_its_fix_with_v_and_says_so() {
        let mut report = examples::healthy();
        report.findings[0].remedies = examples::leak().findings[0].remedies.clone();
        report.verdict.cause = Some(report.findings[0].code.clone());
        let text = |verbose| rendered(render, &report, &Options { verbose, ..Options::default() });
        assert!(
            text(false).contains("(-v shows the fixes") && !text(false).contains("interface: lo"),
            "{}",
            text(false)
        );
        assert!(text(true).contains("interface: lo") && !text(true).contains("(-v shows"), "{}", text(true));
    }

    #[test]
    fn a_story_is_told_once_above_or_among_the_findings() {
        let mut report = examples::leak();
        let told = |report: &Report| {
            let text = rendered(render, report, &Options { verbose: true, ..Options::default() });
            text.matches("Cilium takes up to").count()
        };
        report.findings[0].story = Some("Cilium takes up to 252.".into());
        assert_eq!(told(&report), 1, "above");
        report.verdict.status = Status::Pass;
        assert_eq!(told(&report), 1, "a pass has no story above");
    }

    #[test]
    fn a_fix_of_two_findings_has_its_steps_once() {
        let mut report = examples::leak();
        report.findings[1].remedies = report.findings[0].remedies.clone();
        let text = rendered(render, &report, &Options { verbose: true, ..Options::default() });
        assert_eq!(text.matches("interface: lo").count(), 1, "{text}");
        assert!(text.contains("Fix, as above: Talos: give lo the address yourself"), "{text}");
    }

    #[test]
    fn much_evidence_is_cut_and_said_to_be() {
        let mut report = examples::leak();
        report.findings[0].story = None;
        report.findings[0].evidence = (0..30).map(|n| format!("evidence number {n}")).collect();
        let text = rendered(render, &report, &Options::default());
        assert!(text.contains("number 4.") && !text.contains("number 5"), "{text}");
        assert!(text.contains("(25 more with -v)"), "{text}");
        let text = rendered(render, &report, &Options { verbose: true, ..Options::default() });
        assert!(text.contains("number 29") && !text.contains("more with -v"), "{text}");
    }

    #[test]
    fn colours_change_nothing_but_the_colours() {
        let plain = rendered(render, &examples::leak(), &Options::default());
        let colored = rendered(render, &examples::leak(), &Options { color: true, ..Options::default() });
        assert!(colored.contains("\x1b["), "no colour at all");
        let mut stripped = String::new();
        let mut rest = colored.as_str();
        while let Some((before, after)) = rest.split_once('\x1b') {
            stripped.push_str(before);
            rest = after.split_once('m').expect("a whole sequence").1;
        }
        assert_eq!(stripped + rest, plain);
        assert!(!plain.contains('\x1b'));
    }

    #[test]
    fn names_from_packets_cannot_speak_to_the_terminal() {
        let mut report = examples::leak();
        let evil = "\x1b]0;owned\x07\r\n\u{202e}";
        report.queries[0].qname = evil.into();
        report.verdict.summary.push_str(evil);
        report.traces[0].hops[1].note = Some(evil.into());
        report.findings[0].evidence.push(evil.into());
        let text = rendered(render, &report, &Options { verbose: true, ..Options::default() });
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text}");
    }
}
