//! Transactions and their summary, for reading.

use std::{
    io::{self, Write},
    time::Duration,
};

use anstyle::{AnsiColor, Style};

use crate::{
    ended::Ended,
    report::{Options, escape, view::duration},
    trace::{EventCounts, Hop, summary::Summary, transaction::Transaction},
};

/// Names without an answer that the summary lists.
const NAMES_SHOWN: usize = 10;

/// Widths so far: they grow with what is shown, up to a limit, so that lines stay aligned.
#[derive(Debug)]
pub(super) struct Columns {
    from: usize,
    question: usize,
}

impl Default for Columns {
    fn default() -> Self {
        Self { from: 24, question: 24 }
    }
}

const WIDEST: usize = 48;

impl Columns {
    fn fit(width: &mut usize, text: &str) -> usize {
        *width = (*width).max(text.chars().count()).min(WIDEST);
        *width
    }
}

/// What the summary says beside the transactions.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    pub(super) lasted: Duration,
    pub(super) events: EventCounts,
    /// Queries that sockets sent over UDP, and those of them that were lost before they could be followed.
    pub(super) queries: EventCounts,
    /// Hooks that could not be had, and why.
    pub(super) missing: Vec<String>,
    /// Devices without any hook.
    pub(super) uncovered: Vec<String>,
    /// Pods that asked something, and what became of their devices.
    pub(super) pods: super::coverage::Counts,
    pub(super) sampled: Option<u32>,
}

pub(super) fn transaction(
    told: &Transaction,
    columns: &mut Columns,
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<()> {
    let from = escape::line(&told.pod.as_ref().map_or_else(|| told.netns.clone(), ToString::to_string)).into_owned();
    let question = match (&told.qname, &told.qtype) {
        (Some(qname), Some(qtype)) => format!("{qname} {qtype}"),
        (Some(qname), None) => qname.clone(),
        _ => format!("? from {}", told.flow.src),
    };
    let question = escape::line(&question).into_owned();
    let time = told.taken_at.get(11..23).unwrap_or(&told.taken_at);
    let ended = told.ended.as_str().replace('_', " ");
    let style = if options.color { style(told.ended) } else { Style::new() };
    let took = told.latency.total_us.map_or_else(|| "-".to_owned(), fine);
    let (a, b) = (Columns::fit(&mut columns.from, &from), Columns::fit(&mut columns.question, &question));
    let detail = escape::line(&detail(told)).into_owned();
    let transport = told.flow.transport;
    let line =
        format!("{time}  {style}{ended:16}{style:#}  {took:>8}  {transport:3}  {from:a$}  {question:b$}  {detail}");
    writeln!(out, "{}", line.trim_end())?;
    if options.verbose {
        hops(&told.hops, out)?;
        split(told, out)?;
    }
    Ok(())
}

fn style(ended: Ended) -> Style {
    let color = match ended {
        Ended::Answered => AnsiColor::Green,
        Ended::Unknown | Ended::Unanswered => AnsiColor::Yellow,
        _ => AnsiColor::Red,
    };
    color.on_default().bold()
}

/// What there is to say of this end.
fn detail(told: &Transaction) -> String {
    let mut parts = Vec::new();
    match told.ended {
        Ended::Answered => {}
        Ended::Leaked => parts.extend(told.leak.as_ref().map(|leak| match leak.r#as {
            Some(source) => format!("left the node through {} as {source}", leak.interface),
            None => format!("left the node through {} (as whom is not known)", leak.interface),
        })),
        Ended::Dropped => parts.extend(told.drop.as_ref().map(|drop| {
            let cilium = drop.cilium_reason.as_ref();
            let cilium = cilium.map_or_else(String::new, |why| format!(", by Cilium: {} ({})", why.text, why.code));
            format!("{} dropped at {}: {}{cilium}", drop.direction, drop.r#where, drop.reason)
        })),
        Ended::Lost => {
            parts.extend(told.lost.as_ref().map(|lost| format!("{} last seen at {}", lost.direction, lost.last_hop)));
        }
        Ended::PortUnreachable => parts.push("nobody listens there".to_owned()),
        Ended::Unanswered => parts.push("reached the server".to_owned()),
        Ended::Malformed => parts.extend(told.malformed.clone()),
        Ended::Unknown => parts.extend(told.unknown.clone()),
    }
    // Also of an answer to a query that leaked: somebody else gave it.
    parts.extend(told.rcode.clone());
    if told.truncated {
        parts.push("truncated".to_owned());
    }
    if told.retry_of.is_some() {
        parts.push("asked again after a truncated answer".to_owned());
    }
    match told.retries {
        0 => {}
        1 => parts.push("sent twice".to_owned()),
        more => parts.push(format!("sent {} times", u64::from(more) + 1)),
    }
    if told.events_lost > 0 {
        parts.push(format!("{} events lost meanwhile", told.events_lost));
    }
    parts.join("; ")
}

fn hops(hops: &[Hop], out: &mut dyn Write) -> io::Result<()> {
    let places: Vec<String> = hops.iter().map(place).collect();
    let ends: Vec<String> = hops.iter().map(|hop| format!("{} → {}", hop.src, hop.dst)).collect();
    let widest = |texts: &[String]| texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    let (a, b) = (widest(&places), widest(&ends));
    for ((hop, place), ends) in hops.iter().zip(&places).zip(&ends) {
        let note = hop.note.as_deref().map_or_else(String::new, |note| format!("  ← {}", escape::line(note)));
        let line = format!("    {:>8} µs  {place:a$}  {ends:b$}{note}", hop.t_us);
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn place(hop: &Hop) -> String {
    let place = hop.interface.as_ref().unwrap_or(&hop.netns);
    escape::line(&format!("{place} {}", hop.hook.as_str())).into_owned()
}

/// Where the time went, and who answered.
fn split(told: &Transaction, out: &mut dyn Write) -> io::Result<()> {
    let latency = told.latency;
    let mut parts = Vec::new();
    for (what, micros) in
        [("to the server", latency.to_server_us), ("server", latency.server_us), ("back", latency.back_us)]
    {
        parts.extend(micros.map(|micros| format!("{what} {}", fine(micros))));
    }
    if let Some(server) = &told.server {
        let process = server.process.as_deref().unwrap_or("a process that cannot be seen from here");
        let pid = server.pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
        parts.push(format!("answered by {}{pid}", escape::line(process)));
    }
    if parts.is_empty() { Ok(()) } else { writeln!(out, "                 {}", parts.join(", ")) }
}

/// Most of these are far below a millisecond.
fn fine(micros: u64) -> String {
    if micros < 1000 { format!("{micros} µs") } else { duration(micros) }
}

pub(super) fn summary(summary: &Summary, around: &Surroundings, out: &mut dyn Write) -> io::Result<()> {
    let seconds = around.lasted.as_secs_f64();
    let ends: Vec<_> =
        summary.by_end.iter().map(|(ended, count)| format!("{count} {}", ended.as_str().replace('_', " "))).collect();
    let ends = if ends.is_empty() { String::new() } else { format!(": {}", ends.join(", ")) };
    let s = if summary.total() == 1 { "" } else { "s" };
    writeln!(out, "\n{} transaction{s} in {seconds:.1} s{ends}", summary.total())?;
    if let Some(n) = around.sampled {
        writeln!(out, "  one query in {n} was looked at, with its answer: all numbers are of that sample")?;
    }
    let latency = &summary.latency;
    if let [Some(p50), Some(p90), Some(p99)] = [50, 90, 99].map(|percent| latency.percentile(percent)) {
        let [p50, p90, p99, max] = [p50, p90, p99, latency.max()].map(fine);
        writeln!(out, "  answers took p50 {p50}, p90 {p90}, p99 {p99}, at most {max}")?;
    }
    let (names, rest) = summary.unanswered(NAMES_SHOWN);
    if !names.is_empty() {
        writeln!(out, "  without an answer from the node:")?;
        for (name, count) in names {
            writeln!(out, "    {count} × {}", escape::line(name))?;
        }
        if rest > 0 {
            writeln!(out, "    {rest} × other names")?;
        }
    }
    let EventCounts { seen, lost } = around.events;
    writeln!(out, "  {seen} events seen, {lost} lost")?;
    if lost > 0 {
        let (of, queries) = (summary.with_losses, around.queries);
        writeln!(out, "  {} of {} queries over UDP were lost: they are not shown", queries.lost, queries.seen)?;
        writeln!(out, "  of {of} transactions shown some hops may be missing: silence was not judged there")?;
    }
    if !around.uncovered.is_empty() {
        writeln!(out, "  not covered: {}", escape::line(&around.uncovered.join(", ")))?;
    }
    let pods = around.pods;
    let uncovered = [
        (pods.too_late, "were gone before their device was covered"),
        (pods.refused, "have a device that cannot be covered"),
        (pods.waiting(), "had not been covered yet at the end"),
    ];
    for (count, what) in uncovered.into_iter().filter(|&(count, _)| count > 0) {
        writeln!(out, "  of {} pods that asked, {count} {what}", pods.asked)?;
    }
    for hook in &around.missing {
        writeln!(out, "  not attached: {}", escape::line(hook))?;
    }
    Ok(())
}
