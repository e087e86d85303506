use clap::Parser;
use hostdns_probe::commands::lab::{LabArgs, run};

#[derive(Parser)]
enum Cli {
    Lab(LabArgs),
}

fn main() -> std::process::ExitCode {
    let Cli::Lab(args) = Cli::parse();
    run(args).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        std::process::ExitCode::FAILURE
    })
}
