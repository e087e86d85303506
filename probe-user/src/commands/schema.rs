//! `hostdns-probe schema`: the JSON Schemas of the outputs, made from the types themselves.

use clap::Args;
use schemars::{JsonSchema, Schema, generate::SchemaSettings};

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
pub type Entry = (&'static str, fn(SchemaSettings) -> Schema);

/// Every schema there is. A new one is one line here.
const SCHEMAS: &[Entry] = &[
    (SCHEMA, of::<Report>),
    #[cfg(all(feature = "probe", target_os = "linux"))]
    (super::query::SCHEMA, of::<super::query::QueryReport>),
    #[cfg(all(feature = "probe", target_os = "linux"))]
    (crate::lab::matrix::SCHEMA, of::<crate::lab::matrix::Matrix>),
    (crate::diff::SCHEMA, of::<crate::diff::Diff>),
    (what_if::SCHEMA, of::<what_if::WhatIf>),
    #[cfg(all(feature = "probe", target_os = "linux"))]
    (crate::lab::listing::SCHEMA, of::<crate::lab::listing::Listing>),
    (super::explain::SCHEMA, of::<super::explain::Document>),
    (transaction::SCHEMA, of::<transaction::Transaction>),
];

fn of<T: JsonSchema>(settings: SchemaSettings) -> Schema {
    settings.into_generator().into_root_schema_for::<T>()
}

/// As a reader needs it: it takes what older releases wrote too, so members that came later are not demanded.
fn published((id, make): Entry) -> Schema {
    let mut schema = make(SchemaSettings::draft2020_12());
    schema.insert("$id".into(), id.into());
    schema
}

/// # Errors
/// stdout cannot be written.
pub fn run(args: &SchemaArgs, global: &Global) -> anyhow::Result<Exit> {
    let printer = Printer::new(global, None);
    let Some(entry) = args.name else {
        printer.print(|_, out| SCHEMAS.iter().try_for_each(|(name, _)| writeln!(out, "{name}")))?;
        return Ok(Exit::Ok);
    };
    let schema = published(entry);
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
#[path = "schema/tests.rs"]
pub(crate) mod tests;
