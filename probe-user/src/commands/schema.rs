//! `hostdns-probe schema`: the JSON Schemas of the outputs, made from the types themselves.

use clap::Args;
use schemars::{Schema, schema_for};

use crate::{
    cli::Global,
    commands::Exit,
    printer::Printer,
    report::{Report, SCHEMA, what_if},
    trace::transaction,
};

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct SchemaArgs {
    /// As the output's own "schema" member says; its last parts suffice. Without it: the list
    #[arg(value_parser = find)]
    pub name: Option<Entry>,
}

const EXAMPLES: &str = "\
Examples:
  hostdns-probe schema
  hostdns-probe schema report/v1 > report.schema.json";

/// A schema's name, and how it is made.
pub type Entry = (&'static str, fn() -> Schema);

/// Every schema there is. A new one is one line here.
const SCHEMAS: &[Entry] = &[
    (SCHEMA, || schema_for!(Report)),
    #[cfg(all(feature = "probe", target_os = "linux"))]
    (super::query::SCHEMA, || schema_for!(super::query::QueryReport)),
    #[cfg(all(feature = "probe", target_os = "linux"))]
    (crate::lab::matrix::SCHEMA, || schema_for!(crate::lab::matrix::Matrix)),
    (crate::diff::SCHEMA, || schema_for!(crate::diff::Diff)),
    (what_if::SCHEMA, || schema_for!(what_if::WhatIf)),
    #[cfg(all(feature = "probe", target_os = "linux"))]
    (crate::lab::listing::SCHEMA, || schema_for!(crate::lab::listing::Listing)),
    (super::explain::SCHEMA, || schema_for!(super::explain::Document)),
    (transaction::SCHEMA, || schema_for!(transaction::Transaction)),
];

/// # Errors
/// stdout cannot be written.
pub fn run(args: &SchemaArgs, global: &Global) -> anyhow::Result<Exit> {
    let printer = Printer::new(global, None);
    let Some((id, make)) = args.name else {
        printer.print(|_, out| SCHEMAS.iter().try_for_each(|(name, _)| writeln!(out, "{name}")))?;
        return Ok(Exit::Ok);
    };
    let mut schema = make();
    schema.insert("$id".into(), id.into());
    printer.print(|_, out| {
        serde_json::to_writer_pretty(&mut *out, &schema)?;
        writeln!(out)
    })?;
    Ok(Exit::Ok)
}

/// `hostdns-probe/report/v1`, `report/v1` and `report` all mean the same.
fn find(name: &str) -> Result<Entry, String> {
    let short = |id: &'static str| id.trim_start_matches("hostdns-probe/");
    let named = |id| name == id || name == short(id) || Some(name) == short(id).split('/').next();
    SCHEMAS.iter().copied().find(|(id, _)| named(id)).ok_or_else(|| "`hostdns-probe schema` lists them".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_found_by_any_part_of_their_name() {
        for name in [SCHEMA, "report/v1", "report"] {
            assert!(find(name).is_ok(), "{name}");
        }
        for name in ["", "report/v2", "v1"] {
            assert!(find(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_report_schema_names_what_the_contract_names() {
        let schema = schema_for!(Report);
        let properties = schema.get("properties").and_then(|value| value.as_object()).expect("an object");
        for member in [
            "schema",
            "tool",
            "taken_at",
            "duration_ms",
            "node",
            "targets",
            "facts",
            "hooks",
            "queries",
            "traces",
            "events",
            "findings",
            "prediction",
            "verdict",
        ] {
            assert!(properties.contains_key(member), "{member}");
        }
    }
}
