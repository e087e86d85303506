//! `hostdns-probe explain [CODE]`: what a finding means, why it happens, how to fix it.

mod markdown;

use std::io::{self, Write};

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::Serialize;

use crate::checks::{self, Check, code::Code};

/// Name of the JSON form's schema.
pub const SCHEMA: &str = "hostdns-probe/explain/v1";

const EXAMPLES: &str = "\
Examples:
  hostdns-probe explain                          the list
  hostdns-probe explain HDP201                   the whole story of one
  hostdns-probe explain unknown-address-leaks    the same, by its name";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ExplainArgs {
    /// A finding's code or slug, in any case: HDP201, unknown-address-leaks. Without it: the list of all
    #[arg(value_parser = find)]
    pub code: Option<Code>,
    /// Format of the output
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
    /// As docs/findings.md
    Markdown,
}

/// There is no such code. clap says so, and ends with wrong usage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("`hostdns-probe explain` lists them all")]
    Unknown,
    #[error("did you mean {}? `hostdns-probe explain` lists them all", .0.join(" or "))]
    Near(Vec<String>),
}

/// One explanation, as JSON has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Explanation {
    code: String,
    slug: &'static str,
    /// One sentence.
    summary: &'static str,
    /// All that follows: why, then the three below.
    explanation: &'static str,
    by_hand: &'static str,
    fix: &'static str,
    versions: &'static str,
}

impl From<&Check> for Explanation {
    fn from(check: &Check) -> Self {
        let (summary, explanation) = check.explain.split_once("\n\n").unwrap_or((check.explain, ""));
        Self {
            code: check.code.id(),
            slug: check.code.slug(),
            summary: summary.trim(),
            explanation: explanation.trim(),
            by_hand: paragraph(explanation, "By hand: "),
            fix: paragraph(explanation, "Fix"),
            versions: paragraph(explanation, "Versions: "),
        }
    }
}

/// The paragraph that begins so, without that; of a fix, the colon behind it, or what stands there instead.
fn paragraph(explanation: &'static str, label: &str) -> &'static str {
    let found = explanation.split("\n\n").find_map(|paragraph| paragraph.trim().strip_prefix(label));
    found.unwrap_or_default().trim_start_matches([':', ',', ' '])
}

/// `explain --output json`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Document {
    #[schemars(extend("const" = SCHEMA))]
    schema: &'static str,
    findings: Vec<Explanation>,
}

/// Writes one explanation, or the list.
///
/// # Errors
/// `out` cannot be written.
pub fn run(args: &ExplainArgs, out: &mut dyn Write) -> io::Result<()> {
    let wanted = |check: &&Check| args.code.is_none_or(|code| code == check.code);
    let findings: Vec<Explanation> = checks::REGISTRY.iter().filter(wanted).map(Explanation::from).collect();
    match (args.output, &findings[..]) {
        (Format::Markdown, all) => markdown::render(all, out),
        (Format::Json, _) => {
            serde_json::to_writer_pretty(&mut *out, &Document { schema: SCHEMA, findings })?;
            writeln!(out)
        }
        (Format::Text, [one]) if args.code.is_some() => {
            writeln!(out, "{} {}\n\n{}\n\n{}", one.code, one.slug, one.summary, one.explanation)
        }
        (Format::Text, all) => list(all, out),
    }
}

/// The list, by hundreds.
fn list(all: &[Explanation], out: &mut dyn Write) -> io::Result<()> {
    let width = all.iter().map(|one| one.slug.len()).max().unwrap_or_default();
    let mut group = None;
    for one in all {
        let hundred = one.code.as_bytes().get(3).copied();
        if group != hundred {
            let lead = if group.is_some() { "\n" } else { "" };
            writeln!(out, "{lead}{}", group_name(hundred))?;
            group = hundred;
        }
        writeln!(out, "  {}  {:width$}  {}", one.code, one.slug, one.summary)?;
    }
    writeln!(out, "\n`hostdns-probe explain CODE` tells the whole story of one.")
}

const fn group_name(hundred: Option<u8>) -> &'static str {
    match hundred {
        Some(b'0') => "The probe",
        Some(b'1') => "The node",
        Some(b'2') => "Cilium",
        Some(b'3') => "CoreDNS",
        Some(b'4') => "Measured",
        _ => "Configuration",
    }
}

fn find(text: &str) -> Result<Code, Error> {
    text.parse().map_err(|_unknown| {
        let near = near(text);
        if near.is_empty() { Error::Unknown } else { Error::Near(near) }
    })
}

/// What may have been meant: slugs with a word of it inside, or codes and slugs with few letters changed.
fn near(text: &str) -> Vec<String> {
    const MOST: usize = 3;
    let wanted = text.trim().to_ascii_lowercase();
    let mut scored: Vec<(usize, String)> = Code::ALL
        .iter()
        .filter_map(|code| {
            let (id, slug) = (code.id().to_ascii_lowercase(), code.slug());
            let score = if wanted.len() > 2 && slug.contains(&wanted) {
                0
            } else {
                distance(&wanted, &id).min(distance(&wanted, slug))
            };
            let close = if wanted.starts_with("hdp") { 1 } else { 1 + wanted.len() / 4 };
            (score <= close).then(|| (score, format!("{} ({slug})", code.id())))
        })
        .collect();
    scored.sort();
    scored.into_iter().take(MOST).map(|(_, name)| name).collect()
}

/// Levenshtein's: letters to add, drop or change.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(code: Option<&str>, output: Format) -> String {
        let mut out = Vec::new();
        run(&ExplainArgs { code: code.map(|text| find(text).unwrap()), output }, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_in_text() {
        let text = explain(Some("hdp201"), Format::Text);
        assert!(text.starts_with("HDP201 unknown-address-leaks\n\nCilium does not know the address"), "{text}");
        assert!(text.contains("\nFix, one of these:") && text.contains("36761"), "{text}");
        assert_eq!(text, explain(Some("Unknown-Address-Leaks"), Format::Text));
    }

    #[test]
    fn the_list_has_every_code_once() {
        let text = explain(None, Format::Text);
        for code in Code::ALL {
            assert_eq!(text.matches(&format!("  {code}  ")).count(), 1, "{code}");
        }
    }

    #[test]
    fn json_has_the_same_shape_for_one_and_all() {
        for (code, count) in [(Some("HDP001"), 1), (None, Code::ALL.len())] {
            let json: serde_json::Value = serde_json::from_str(&explain(code, Format::Json)).unwrap();
            assert_eq!(json["schema"], SCHEMA);
            assert_eq!(json["findings"].as_array().unwrap().len(), count);
            assert_eq!(json["findings"][0]["code"], "HDP001");
            assert!(json["findings"][0]["explanation"].as_str().unwrap().contains("Fix:"));
            for finding in json["findings"].as_array().unwrap() {
                for part in ["summary", "by_hand", "fix", "versions"] {
                    let text = finding[part].as_str().unwrap();
                    assert!(text.len() > 3 && text.ends_with('.'), "{} {part}: {text:?}", finding["code"]);
                }
            }
        }
    }

    #[test]
    fn near_matches() {
        for (text, meant) in [("HDP2O1", "HDP201"), ("rp-filter", "HDP107"), ("unkown-address-leaks", "HDP201")] {
            let Err(Error::Near(near)) = find(text) else {
                panic!("{text} has no near match");
            };
            assert!(near[0].starts_with(meant), "{text}: {near:?}");
        }
        assert_eq!(find("weather-in-paris"), Err(Error::Unknown));
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("hdp201", "hdp2o1", 1)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
