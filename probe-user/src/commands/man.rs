//! `hostdns-probe man`.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_mangen::Man;

use crate::{
    cli::{Cli, Global},
    commands::Exit,
    printer::Printer,
};

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ManArgs {
    /// Write the pages of the command and of every subcommand into this directory, which is made if need be
    pub dir: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  hostdns-probe man | man -l -
  hostdns-probe man /usr/local/share/man/man1";

/// # Errors
/// The pages cannot be written.
pub fn run(args: &ManArgs, global: &Global) -> anyhow::Result<Exit> {
    match &args.dir {
        Some(dir) => {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            clap_mangen::generate_to(Cli::command(), dir)
                .with_context(|| format!("cannot write manual pages into {}", dir.display()))?;
        }
        None => Printer::new(global, None).print(|_, out| Man::new(Cli::command()).render(out))?,
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subcommand_gets_its_page() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let args = ManArgs { dir: Some(dir.path().join("man1")) };
        assert_eq!(run(&args, &Global::default()).expect("writable"), Exit::Ok);
        for command in Cli::command().get_subcommands() {
            let page = dir.path().join("man1").join(format!("hostdns-probe-{}.1", command.get_name()));
            let text = fs::read_to_string(&page).expect("a page");
            assert!(text.contains(".SH SYNOPSIS"), "{}", page.display());
        }
    }
}
