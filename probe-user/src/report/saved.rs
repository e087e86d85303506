//! Reading a saved report again.

use serde::Deserialize;

use super::{Report, SCHEMA};

/// Why a text is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not JSON, or cut off: {0}; save it with `hostdns-probe check --output json --output-file PATH`")]
    NotJson(serde_json::Error),
    #[error("no \"schema\" member: this is JSON, and not one of this tool's reports")]
    NoSchema,
    #[error("its schema is {found:?}, and this version reads {SCHEMA}; use the version that wrote it, or a newer one")]
    OtherSchema { found: String },
    #[error("not a complete {SCHEMA}: at {path}: {source}")]
    Incomplete { path: String, source: serde_json::Error },
}

#[derive(Deserialize)]
struct Head {
    schema: Option<String>,
}

/// Reads a report of the version known here. Members it does not know are ignored: v1 only grows.
///
/// # Errors
/// It is not JSON, of another schema, or lacks something; the message names the member, the line and the column.
pub fn parse(text: &str) -> Result<Report, Error> {
    // Some editors and shells put a byte-order mark in front.
    let text = text.trim_start_matches('\u{feff}');
    let head: Head = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Error::NoSchema,
        _ => Error::NotJson(error),
    })?;
    match head.schema {
        None => Err(Error::NoSchema),
        Some(found) if found != SCHEMA => Err(Error::OtherSchema { found }),
        Some(_) => read(text),
    }
}

fn read(text: &str) -> Result<Report, Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        // The report itself, where a member of it is missing.
        let path = if path == "." { "the top".to_owned() } else { path };
        Error::Incomplete { path, source: error.into_inner() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        facts::{Fact, LxcEntry},
        report::examples,
    };

    fn json(report: &Report) -> String {
        serde_json::to_string_pretty(report).expect("a report is JSON")
    }

    #[test]
    fn what_was_saved_comes_back() {
        for (name, report) in examples::all() {
            assert_eq!(parse(&json(&report)).expect(name), report, "{name}");
        }
    }

    #[test]
    fn an_unavailable_optional_fact_stays_unavailable() {
        type Entry = Fact<Option<LxcEntry>>;
        for fact in [Entry::unavailable("no map", "cilium_lxc"), Entry::known(None, "cilium_lxc")] {
            let text = serde_json::to_string(&fact).expect("JSON");
            assert_eq!(serde_json::from_str::<Entry>(&text).expect(&text), fact);
        }
    }

    #[test]
    fn unknown_members_are_ignored() {
        let mut value = serde_json::to_value(examples::leak()).expect("JSON");
        value["later"] = 1.into();
        value["facts"]["cilium"]["later"] = serde_json::json!({"known": 1, "source": "x"});
        value["queries"][0]["later"] = "x".into();
        assert_eq!(parse(&value.to_string()).expect("v1 only grows"), examples::leak());
    }

    #[test]
    fn other_schemas_are_refused_by_name() {
        let text = json(&examples::leak()).replace(SCHEMA, "hostdns-probe/report/v2");
        assert!(matches!(parse(&text), Err(Error::OtherSchema { found }) if found == "hostdns-probe/report/v2"));
        assert!(matches!(parse("{}"), Err(Error::NoSchema)));
        assert!(matches!(parse("[1]"), Err(Error::NoSchema)));
    }

    #[test]
    fn a_broken_file_is_told_with_its_place() {
        let whole = json(&examples::leak());
        let cut = parse(&whole[..whole.len() / 2]).expect_err("cut off").to_string();
        assert!(cut.contains("line") && cut.contains("column"), "{cut}");
        let wrong = whole.replacen("\"duration_ms\": 710", "\"duration_ms\": \"soon\"", 1);
        let wrong = parse(&wrong).expect_err("not a number").to_string();
        assert!(wrong.contains("at duration_ms: ") && wrong.contains("line 8 column"), "{wrong}");
        let deep = whole.replacen("\"ended\": \"leaked\"", "\"ended\": \"gone\"", 1);
        let deep = parse(&deep).expect_err("no such end").to_string();
        assert!(deep.contains("at queries[0].ended: ") && deep.contains("line"), "{deep}");
        let without = whole.replacen("\"verdict\":", "\"judgement\":", 1);
        let without = parse(&without).expect_err("no verdict").to_string();
        assert!(without.contains("at the top: ") && without.contains("verdict"), "{without}");
    }
}
