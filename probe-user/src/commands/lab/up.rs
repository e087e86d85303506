//! `lab up`: a lab that is left standing.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::{find, program};
use crate::{
    cli::Global,
    commands::Exit,
    lab::{
        scenario::NodeSpec,
        standing::{Lab, LabPlan},
    },
    printer::Printer,
};

#[derive(Debug, Args)]
pub(super) struct Up {
    /// Scenario; `lab list` shows them.
    #[arg(default_value = "issue-36761-leak")]
    scenario: String,
    /// Name of the lab; by default the scenario's.
    #[arg(long)]
    name: Option<String>,
    /// A node of your own as JSON, in place of the scenario's (`lab list --output json` shows those).
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// A real CoreDNS to run in its pod, with a real Corefile.
    #[arg(long, value_name = "PATH", value_parser = program)]
    coredns: Option<PathBuf>,
}

pub(super) fn run(args: &Up, global: &Global) -> anyhow::Result<Exit> {
    let scenario = find(&args.scenario)?;
    let (label, spec): (String, NodeSpec) = match &args.spec {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let spec = serde_json::from_str(&text).with_context(|| format!("{} is not a node", path.display()))?;
            (path.display().to_string(), spec)
        }
        None => (scenario.name.into(), scenario.node),
    };
    let name = args.name.clone().unwrap_or_else(|| scenario.name.into());
    let plan = LabPlan { name, scenario: label, spec, coredns: args.coredns.clone(), detached: true };
    let lab = Lab::up(&plan)?.leave();
    let pods: Vec<&str> = lab.pods.iter().map(|pod| pod.name.as_str()).collect();
    eprintln!("lab {} is up; pods: {}", lab.name, pods.join(", "));
    Printer::new(global, None).print(|_, out| writeln!(out, "{}", lab.name))?;
    Ok(Exit::Ok)
}
