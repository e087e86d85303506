//! The two forms of a query report.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use super::QueryReport;
use crate::{
    ended::Ended,
    query::{Query, RttPercentiles, Summary},
    report::{escape, view::duration},
};

/// Answers that fit on a line beside their question.
const ANSWERS_SHOWN: usize = 3;

pub(super) fn json(report: &QueryReport, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    writeln!(out)
}

/// One line per question: what became of it, or, where it was asked again and again, of how many.
pub(super) fn text(report: &QueryReport, out: &mut dyn Write) -> io::Result<()> {
    let rows: Vec<[String; 5]> = if report.rounds > 1 {
        report.summary.iter().map(summary_row).collect()
    } else {
        report.queries.iter().map(query_row).collect()
    };
    table(&rows, out)?;
    if report.rounds > 1 {
        reasons(&report.queries, out)?;
    }
    let (asked, lost) = (report.queries.len(), report.unanswered());
    match (asked, lost) {
        (0, _) => writeln!(out, "Nothing was asked."),
        (asked, 0) => writeln!(out, "All {asked} answered."),
        (asked, lost) => writeln!(out, "{lost} of {asked} not answered; `hostdns-probe check` says where they die."),
    }
}

fn query_row(query: &Query) -> [String; 5] {
    row(
        &query.vantage,
        &query.address.to_string(),
        &query.transport.to_string(),
        &query.qname,
        &query.qtype,
        fate(query),
    )
}

fn summary_row(summary: &Summary) -> [String; 5] {
    let counted = format!("{}/{} answered", summary.answered, summary.asked);
    let lost =
        if summary.answered < summary.asked { format!(", {:.1} % lost", summary.loss_percent) } else { String::new() };
    let rtt = summary.rtt_us.map(percentiles).unwrap_or_default();
    row(
        &summary.vantage,
        &summary.address.to_string(),
        &summary.transport.to_string(),
        &summary.qname,
        &summary.qtype,
        format!("{counted}{lost}{rtt}"),
    )
}

fn row(vantage: &str, address: &str, transport: &str, qname: &str, qtype: &str, fate: String) -> [String; 5] {
    [
        escape::line(vantage).into_owned(),
        address.to_owned(),
        transport.to_owned(),
        escape::line(&format!("{qname} {qtype}")).into_owned(),
        fate,
    ]
}

fn percentiles(rtt: RttPercentiles) -> String {
    let [p50, p90, p99, max] = [rtt.p50, rtt.p90, rtt.p99, rtt.max].map(duration);
    format!("  p50 {p50}, p90 {p90}, p99 {p99}, max {max}")
}

fn fate(query: &Query) -> String {
    if query.ended != Ended::Answered {
        return reason(query);
    }
    let mut fate = query.rtt_us.map(|rtt| format!("{}  ", duration(rtt))).unwrap_or_default();
    fate.push_str(query.rcode.as_deref().unwrap_or("answered"));
    if query.truncated {
        fate.push_str(" (truncated)");
    }
    if !query.answers.is_empty() {
        let shown: Vec<_> = query.answers.iter().take(ANSWERS_SHOWN).map(|answer| escape::line(answer)).collect();
        let more = query.answers.len().saturating_sub(ANSWERS_SHOWN);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        fate.push_str(&format!("  {}{rest}", shown.join(", ")));
    }
    fate
}

fn reason(query: &Query) -> String {
    match &query.note {
        Some(note) => format!("{}: {}", query.ended, escape::line(note)),
        None => query.ended.to_string(),
    }
}

/// How often which failure was seen, the most frequent first.
fn reasons(queries: &[Query], out: &mut dyn Write) -> io::Result<()> {
    let mut counts = BTreeMap::<String, usize>::new();
    for query in queries.iter().filter(|query| query.ended != Ended::Answered) {
        *counts.entry(reason(query)).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.iter().try_for_each(|(reason, count)| writeln!(out, "  {count} × {reason}"))
}

/// Columns as wide as their widest cell; the last one is not padded.
fn table(rows: &[[String; 5]], out: &mut dyn Write) -> io::Result<()> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    for row in rows {
        let [vantage, address, transport, question, fate] = row;
        let [a, b, c, d, _] = widths;
        writeln!(out, "{vantage:a$}  {address:b$}  {transport:c$}  {question:d$}  {fate}")?;
    }
    Ok(())
}
