//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::vm::Lockdown;

/// Set up, build, try and test hostdns-probe.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask lab                        set up, build, and run every scenario of the lab
  cargo xtask lab --only issue-36761-leak
                                         one scenario
  cargo xtask vm                         the lab on Debian's kernels, in virtual machines
  cargo xtask test                       every test there is (the end-to-end ones need root)
  cargo xtask build --release            one static binary with the eBPF programs inside
  cargo xtask bench                      what tracing costs, beside tcpdump and bpftrace (needs root)";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install what is missing to build: an eBPF compiler and bpf-linker
    #[command(after_help = "\
Examples:
  cargo xtask setup          shows what is missing and asks before it installs
  cargo xtask setup --yes    does not ask; nor does it without a terminal, or with CI=true")]
    Setup(Consent),
    /// Build hostdns-probe
    #[command(after_help = "\
Examples:
  cargo xtask build                                            for development
  cargo xtask build --release                                  a static binary for this machine's architecture
  cargo xtask build --release --target aarch64-unknown-linux-musl")]
    Build(Build),
    /// Build, then reproduce the issue in network namespaces: `hostdns-probe lab matrix`
    #[command(after_help = "\
Needs root for the namespaces. Arguments go to `hostdns-probe lab matrix`; its exit code is this command's:
0 when every scenario came out as it should.

Examples:
  cargo xtask lab
  cargo xtask lab --only 'issue-36761-*'
  cargo xtask lab --output json")]
    Lab(Lab),
    /// Run the lab on Debian's cloud kernels, each in a virtual machine
    #[command(after_help = "\
Fetches the kernels with apt, once, and runs them with QEMU (installed where it is missing); needs no root.
Exit code 0: every verdict was right, or left open where a hook is missing on that kernel.

Examples:
  cargo xtask vm                                                     all of it: five minutes and a release build
  cargo xtask vm --kernel 6.1 --lockdown none --scenario 'issue-*'")]
    Vm(Vm),
    /// Run every test: unit, snapshot and documentation tests, format, lints, and end to end as root
    #[command(after_help = "\
Examples:
  cargo xtask test               without root the end-to-end tests are left out, and it says so
  cargo xtask test --vm          on Debian's kernels too, in virtual machines
  CI=true cargo xtask test       all of that, and what cannot run is a failure")]
    Test(Test),
    /// Write the pages of docs/ that are made from the source
    #[command(after_help = "\
Needs no eBPF compiler. `cargo xtask test` fails where a page is not what the source says.

Examples:
  cargo xtask docs    after the text of a finding was changed")]
    Docs,
    /// Measure what tracing costs, beside no tracer, tcpdump and bpftrace
    #[command(after_help = "\
Needs root. Installs tcpdump, bpftrace and dig from Debian where they are missing. A goal that is missed is no failure.
Arguments go to the benchmark; docs/performance.md tells what is measured.

Examples:
  cargo xtask bench                        a few minutes; the table on stdout, the rest in bench.json
  cargo xtask bench --quick                half a minute, to try it
  cargo xtask bench --json before.json")]
    Bench(Bench),
}

#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Consent {
    /// Install what is missing without asking
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Build {
    #[command(flatten)]
    pub(crate) consent: Consent,
    /// Optimised and static: one file that runs on any node of that architecture
    #[arg(long)]
    pub(crate) release: bool,
    /// Build for another target, aarch64-unknown-linux-musl for one
    #[arg(long, value_name = "TRIPLE")]
    pub(crate) target: Option<String>,
}

#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Test {
    #[command(flatten)]
    pub(crate) consent: Consent,
    /// On Debian's kernels too, as `cargo xtask vm` does; in CI (CI=true) always
    #[arg(long)]
    pub(crate) vm: bool,
}

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Vm {
    #[command(flatten)]
    pub(crate) consent: Consent,
    /// A series of kernels, whose newest is taken; by default 6.1 and 6.12
    #[arg(long, value_name = "SERIES")]
    pub(crate) kernel: Option<String>,
    /// One level of lockdown; by default each
    #[arg(long, value_enum)]
    pub(crate) lockdown: Option<Lockdown>,
    /// Scenarios; by default all without lockdown, and some with it
    #[arg(long, value_name = "GLOB")]
    pub(crate) scenario: Option<String>,
    /// A static binary to run, in place of building one
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Lab {
    #[command(flatten)]
    pub(crate) consent: Consent,
    /// Options for `hostdns-probe lab matrix`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Bench {
    #[command(flatten)]
    pub(crate) consent: Consent,
    /// Options of the benchmark: --quick, --rounds N, --json FILE
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_matrix_gets_its_own_options() {
        let cli = Cli::try_parse_from(["xtask", "lab", "--yes", "--only", "issue-*", "--output", "json"]);
        let Ok(Cli { command: Command::Lab(lab) }) = cli else { panic!("{cli:?}") };
        assert!(lab.consent.yes);
        assert_eq!(lab.args, ["--only", "issue-*", "--output", "json"]);
        let cli = Cli::try_parse_from(["xtask", "bench", "--quick", "--json", "x"]);
        let Ok(Cli { command: Command::Bench(bench) }) = cli else { panic!("{cli:?}") };
        assert_eq!(bench.args, ["--quick", "--json", "x"]);
        let cli = Cli::try_parse_from(["xtask", "lab", "--output", "json"]);
        let Ok(Cli { command: Command::Lab(lab) }) = cli else { panic!("{cli:?}") };
        assert_eq!(lab.args, ["--output", "json"]);
    }
}
