//! `lab matrix`: every scenario, measured and compared.

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use glob::Pattern;

use super::program;
use crate::{
    cli::{
        Global,
        args::{PlainFormat, PlainOutputArgs},
    },
    commands::Exit,
    lab::{
        self,
        matrix::{self, Matrix},
        scenario::Scenario,
        scenarios, standing,
    },
    printer::Printer,
};

#[derive(Debug, Args)]
pub(super) struct MatrixArgs {
    /// Labs at the same time; by default two for each processor.
    #[arg(long)]
    jobs: Option<usize>,
    #[command(flatten)]
    output: PlainOutputArgs,
    /// Only the scenarios whose names match one of these.
    #[arg(value_name = "GLOB")]
    scenarios: Vec<String>,
    /// The same, as an option.
    #[arg(long, value_name = "GLOB")]
    only: Option<String>,
    /// A real CoreDNS to run in the pods.
    #[arg(long, value_name = "PATH", value_parser = program)]
    coredns: Option<PathBuf>,
    /// Longest time for each check, on a machine much slower than a node.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    budget: Option<Duration>,
}

pub(super) fn run(args: &MatrixArgs, global: &Global) -> anyhow::Result<Exit> {
    let wanted = wanted(args)?;
    standing::clear_leftovers()?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.unwrap_or(2 * processors);
    let result = matrix::run(&wanted, jobs, args.coredns.as_ref(), |row| {
        let word = if row.agree { "as expected" } else { "NOT as expected" };
        eprintln!("{}: {word} ({} ms)", row.scenario, row.duration_ms);
    });
    Printer::new(global, args.output.output_file.as_deref()).print(|_, out| match args.output.output {
        PlainFormat::Text => table(&result, out),
        PlainFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &result)?;
            writeln!(out)
        }
    })?;
    Ok(if result.agrees() { Exit::Ok } else { Exit::Problem })
}

fn wanted(args: &MatrixArgs) -> anyhow::Result<Vec<Scenario>> {
    let globs = args.scenarios.iter().chain(&args.only).map(|glob| {
        let pattern = Pattern::new(glob).with_context(|| format!("{glob} is not a glob"))?;
        if !scenarios::all().iter().any(|row| pattern.matches(row.name)) {
            return Err(lab::Error::NoSuchScenario(glob.clone()).into());
        }
        Ok(pattern)
    });
    let globs = globs.collect::<anyhow::Result<Vec<_>>>()?;
    let mut wanted = scenarios::all();
    wanted.retain(|row| globs.is_empty() || globs.iter().any(|glob| glob.matches(row.name)));
    if let Some(budget) = args.budget {
        for scenario in &mut wanted {
            scenario.check_args.extend(["--budget".into(), humantime::format_duration(budget).to_string()]);
        }
    }
    Ok(wanted)
}

fn table(result: &Matrix, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{:<29} {:<29} {:<29} {:<7} {:<29} {:<5} {:>6}",
        "SCENARIO", "EXPECTED", "MEASURED", "CAUSE", "PREDICTED", "AGREE", "MS"
    )?;
    for row in &result.scenarios {
        let cause = row.measured.cause.as_deref().unwrap_or("-");
        let agree = if row.agree { "yes" } else { "NO" };
        writeln!(
            out,
            "{:<29} {:<29} {:<29} {cause:<7} {:<29} {agree:<5} {:>6}",
            row.scenario, row.expected, row.measured, row.prediction, row.duration_ms
        )?;
        for line in row.error.iter().chain(&row.differences) {
            writeln!(out, "    {line}")?;
        }
    }
    let agreed = result.scenarios.iter().filter(|row| row.agree).count();
    writeln!(out, "{agreed} of {} as expected", result.scenarios.len())
}
