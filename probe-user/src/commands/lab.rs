//! `hostdns-probe lab`: the issue, its relatives and its fixes, on one machine.

mod check;
mod down;
mod exec;
mod list;
mod matrix;
mod up;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand};

use crate::{
    cli::{Global, args::PlainOutputArgs},
    facts::Transport,
    lab::{self, node, observe, pod, scenario::Scenario, scenarios, supervisor},
    printer::Printer,
};

const EXAMPLES: &str = "\
Examples:
  hostdns-probe lab check issue-36761-leak        see the issue, and the probe name it
  hostdns-probe lab up healthy-legacy             make a lab and leave it standing
  hostdns-probe lab exec --pod coredns -- ip a    look around inside
  hostdns-probe lab matrix                        every scenario, side by side
  hostdns-probe lab down --all";

/// Reproduce the issue in network namespaces on this machine.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LabArgs {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    /// List the scenarios and the labs that are standing.
    List(PlainOutputArgs),
    /// Make a lab and leave it standing.
    Up(up::Up),
    /// Run a command inside a lab: in the node's namespaces, or in a pod's.
    Exec(exec::Exec),
    /// Run `check` inside a lab. Arguments of check go last.
    Check(check::Check),
    /// Run every scenario, side by side, and compare the verdicts with what they should be.
    Matrix(matrix::MatrixArgs),
    /// Take a lab down.
    Down {
        /// Its name.
        #[arg(required_unless_present = "all")]
        name: Option<String>,
        /// Every lab, and what killed runs left.
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    #[command(name = "__supervise", hide = true)]
    Supervise,
    #[command(name = "__node", hide = true)]
    Node,
    #[command(name = "__pod", hide = true)]
    Pod {
        /// `-conf Corefile`: what a finder of Corefiles looks for; the pod is told by its plan.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Ask once with a plain DNS query, without the probe: `answered CODE`, or why not.
    #[command(name = "__ask", hide = true)]
    Ask { server: SocketAddr, transport: String },
    /// What the pinned maps of the lab say of an address, as JSON.
    #[command(name = "__maps", hide = true)]
    Maps { address: IpAddr },
}

/// Runs the command. It must be called before any thread is started: labs are made of namespaces, which are a thread's.
///
/// # Errors
/// A lab cannot be made, entered or removed.
pub fn run(args: &LabArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let exit = match &args.command {
        LabCommand::List(output) => list::run(output, global)?.into(),
        LabCommand::Up(args) => up::run(args, global)?.into(),
        LabCommand::Exec(args) => exec::run(args)?,
        LabCommand::Check(args) => check::run(args)?,
        LabCommand::Matrix(args) => matrix::run(args, global)?.into(),
        LabCommand::Down { name, all } => down::run(name.as_deref(), *all)?.into(),
        LabCommand::Supervise => done(supervisor::run())?,
        LabCommand::Node => done(node::run())?,
        LabCommand::Pod { .. } => done(pod::run())?,
        LabCommand::Ask { server, transport } => {
            let transport = if transport == "tcp" { Transport::Tcp } else { Transport::Udp };
            let said = match lab::ask::ask(*server, transport, Duration::from_millis(700)) {
                Ok(code) => format!("answered {code}"),
                Err(error) => error.to_string(),
            };
            Printer::new(global, None).print(|_, out| writeln!(out, "{said}"))?;
            ExitCode::SUCCESS
        }
        LabCommand::Maps { address } => {
            let maps = observe::maps(Path::new("/sys/fs/bpf/tc/globals"), *address)?;
            Printer::new(global, None).print(|_, out| {
                serde_json::to_writer(&mut *out, &maps)?;
                writeln!(out)
            })?;
            ExitCode::SUCCESS
        }
    };
    Ok(exit)
}

fn done(ended: Result<(), lab::Error>) -> Result<ExitCode, lab::Error> {
    ended.map(|()| ExitCode::SUCCESS)
}

fn find(name: &str) -> Result<Scenario, lab::Error> {
    scenarios::find(name).ok_or_else(|| lab::Error::NoSuchScenario(name.into()))
}

/// A program that can be run: a path that leads nowhere is better heard of before a lab stands.
fn program(path: &str) -> Result<PathBuf, String> {
    use std::os::unix::fs::PermissionsExt as _;
    let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        return Err("it is not an executable file".to_owned());
    }
    std::path::absolute(path).map_err(|error| error.to_string())
}
