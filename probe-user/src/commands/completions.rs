//! `hostdns-probe completions`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::{
    cli::{Cli, Global},
    commands::Exit,
    printer::Printer,
};

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    pub shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  hostdns-probe completions bash > /etc/bash_completion.d/hostdns-probe
  hostdns-probe completions zsh > ~/.zfunc/_hostdns-probe
  hostdns-probe completions fish > ~/.config/fish/completions/hostdns-probe.fish";

/// # Errors
/// stdout cannot be written.
pub fn run(args: &CompletionsArgs, global: &Global) -> anyhow::Result<Exit> {
    // Into memory first: clap_complete panics where its writer fails, as a closed pipe does.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "hostdns-probe", &mut script);
    Printer::new(global, None).print(|_, out| out.write_all(&script))?;
    Ok(Exit::Ok)
}
