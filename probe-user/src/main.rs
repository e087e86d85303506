use clap::Parser;
use hostdns_probe::commands::lab::{LabArgs, run};

#[derive(Parser)]
enum Cli {
    Lab(LabArgs),
}

fn main() -> anyhow::Result<std::process::ExitCode> {
    let Cli::Lab(args) = Cli::parse();
    run(args)
}
