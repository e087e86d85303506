use std::process::ExitCode;

use hostdns_probe::{cli, commands, logging};

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(said) => return said,
    };
    logging::init(&cli.global);
    commands::run(cli).unwrap_or_else(commands::explain_failure)
}
