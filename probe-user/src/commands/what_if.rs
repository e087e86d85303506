//! `--what-if` of `check` and `report`: what the model predicts after a change.

use clap::Args;

use crate::{
    cli::{
        Global,
        args::{Format, OutputArgs},
    },
    commands::Exit,
    facts::Facts,
    predict::{Deciding, what_if::Change},
    printer::Printer,
    report::{
        Status,
        what_if::{WhatIf, render},
    },
    target::Targets,
};

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "What if")]
pub struct WhatIfArgs {
    /// Send nothing, and tell what the model predicts after a change: KEY=VALUE; may be given several times. Keys:
    /// cilium-version, host-routing, masquerade, routing-mode, devices, endpoint-routes, kube-proxy-replacement,
    /// local-max-addr-scope, exclude-local-address, lo-scope, forward
    #[arg(long = "what-if", value_name = "KEY=VALUE", conflicts_with_all = ["junit", "redact"])]
    pub changes: Vec<Change>,
}

/// A form that only whole reports have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--what-if has two forms, text and json")]
pub struct NoSuchForm;

/// # Errors
/// A form that there is not, or it cannot be written.
pub fn run(
    args: &WhatIfArgs,
    node: &str,
    facts: &Facts,
    targets: &Targets,
    deciding: Deciding,
    output: &OutputArgs,
    global: &Global,
) -> anyhow::Result<Exit> {
    let what_if = WhatIf::of(node, facts, targets, deciding, &args.changes);
    let printer = Printer::new(global, output.output_file.as_deref());
    match output.output {
        Format::Text => printer.print(|options, out| render(&what_if, options, out))?,
        Format::Json => printer.print(|_, out| {
            serde_json::to_writer_pretty(&mut *out, &what_if)?;
            writeln!(out)
        })?,
        Format::Junit | Format::Markdown | Format::Oneline => return Err(NoSuchForm.into()),
    }
    Ok(match what_if.then.status {
        Status::Pass => Exit::Ok,
        Status::Fail => Exit::Problem,
        Status::Unknown => Exit::Unknown,
    })
}
