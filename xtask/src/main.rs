//! The project's own commands: `cargo xtask setup | build | lab | vm | test | docs | bench`.

use std::process::ExitCode;

use clap::Parser as _;

mod bench;
mod build;
mod cli;
#[cfg(test)]
mod deploy;
mod docs;
mod ebpf_tools;
mod elf;
mod lab;
mod setup;
mod step;
mod test;
mod vm;
mod workspace;

fn main() -> ExitCode {
    let outcome = match cli::Cli::parse().command {
        cli::Command::Setup(options) => setup::run(options).map(|()| ExitCode::SUCCESS),
        cli::Command::Build(options) => build::run(&options).map(|()| ExitCode::SUCCESS),
        cli::Command::Lab(options) => lab::run(&options),
        cli::Command::Vm(options) => vm::run(&options).map(|()| ExitCode::SUCCESS),
        cli::Command::Test(options) => test::run(options).map(|()| ExitCode::SUCCESS),
        cli::Command::Docs => docs::run().map(|()| ExitCode::SUCCESS),
        cli::Command::Bench(options) => bench::run(&options).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
