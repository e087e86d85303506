//! `hostdns-probe lab`: the issue, its relatives and its fixes, on one machine.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::{Command, ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};

use crate::{
    facts::Transport,
    lab::{
        self, enter, matrix, node, observe, pod,
        scenario::{NodeSpec, Scenario},
        scenarios,
        standing::{self, Lab, LabPlan},
        supervisor,
    },
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
    List {
        #[arg(long, value_enum, default_value_t)]
        output: Format,
    },
    /// Make a lab and leave it standing.
    Up(Up),
    /// Run a command inside a lab: in the node's namespaces, or in a pod's.
    Exec(Exec),
    /// Run `check` inside a lab. Arguments of check go last.
    Check(Check),
    /// Run every scenario, side by side, and compare the verdicts with what they should be.
    Matrix(MatrixArgs),
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
    Maps { address: std::net::IpAddr },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Args)]
struct Up {
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

#[derive(Debug, Args)]
struct Exec {
    /// The lab; needed when several are standing.
    #[arg(long)]
    lab: Option<String>,
    /// A pod: its name, the beginning of it, or its device (lxc_health).
    #[arg(long)]
    pod: Option<String>,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct Check {
    /// A standing lab to check, in place of a scenario.
    #[arg(long)]
    lab: Option<String>,
    /// A real CoreDNS to run in its pod.
    #[arg(long, value_name = "PATH", value_parser = program, conflicts_with = "lab")]
    coredns: Option<PathBuf>,
    /// The scenario to bring up, check and take down; then arguments for check.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "SCENARIO] [CHECK ARGS")]
    rest: Vec<String>,
}

impl Check {
    /// The scenario, if one is named, and the arguments for check.
    fn split(&self) -> (Option<&str>, &[String]) {
        match self.rest.split_first() {
            Some((first, rest)) if self.lab.is_none() && !first.starts_with('-') => {
                (Some(first), rest.strip_prefix(&["--".to_owned()]).unwrap_or(rest))
            }
            _ => (None, &self.rest),
        }
    }
}

#[derive(Debug, Args)]
struct MatrixArgs {
    /// Labs at the same time; by default two for each processor.
    #[arg(long)]
    jobs: Option<usize>,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
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
    #[arg(long, value_name = "TIME")]
    budget: Option<String>,
}

/// Runs the command. It must be called before any thread is started: labs are made of namespaces, which are a thread's.
///
/// # Errors
/// A lab cannot be made, entered or removed.
pub fn run(args: LabArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        LabCommand::List { output } => list(output),
        LabCommand::Up(up) => bring_up(&up),
        LabCommand::Exec(exec) => run_inside(exec),
        LabCommand::Check(check) => check_lab(&check),
        LabCommand::Matrix(args) => run_matrix(&args),
        LabCommand::Down { name, all } => down(name.as_deref(), all),
        LabCommand::Supervise => Ok(supervisor::run().map(|()| ExitCode::SUCCESS)?),
        LabCommand::Node => Ok(node::run().map(|()| ExitCode::SUCCESS)?),
        LabCommand::Pod { .. } => Ok(pod::run().map(|()| ExitCode::SUCCESS)?),
        LabCommand::Ask { server, transport } => {
            let transport = if transport == "tcp" { Transport::Tcp } else { Transport::Udp };
            match lab::ask::ask(server, transport, Duration::from_millis(700)) {
                Ok(code) => print(&format!("answered {code}\n"))?,
                Err(error) => print(&format!("{error}\n"))?,
            }
            Ok(ExitCode::SUCCESS)
        }
        LabCommand::Maps { address } => {
            let maps = observe::maps(std::path::Path::new("/sys/fs/bpf/tc/globals"), address)?;
            print(&format!("{}\n", serde_json::to_string(&maps)?))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn find(name: &str) -> Result<Scenario, lab::Error> {
    scenarios::find(name).ok_or_else(|| lab::Error::NoSuchScenario(name.into()))
}

fn list(output: Format) -> anyhow::Result<ExitCode> {
    let (scenarios, labs) = (scenarios::all(), standing::all());
    if output == Format::Json {
        let rows: Vec<_> = scenarios
            .iter()
            .map(|row| {
                serde_json::json!({
                    "scenario": row.name, "description": row.description, "expected": row.expected, "node": row.node,
                })
            })
            .collect();
        let labs: Vec<_> = labs
            .iter()
            .map(|lab| {
                serde_json::json!({
                    "name": lab.name, "scenario": lab.scenario, "standing": lab.is_alive(),
                    "pods": lab.pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(),
                })
            })
            .collect();
        let all = serde_json::json!({ "scenarios": rows, "labs": labs });
        print(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for row in &scenarios {
        text.push_str(&format!("{:<30} {}\n", row.name, row.description));
    }
    if !labs.is_empty() {
        text.push_str("\nStanding:\n");
    }
    for lab in &labs {
        let names: Vec<&str> = lab.pods.iter().map(|pod| pod.name.as_str()).collect();
        let state = if lab.is_alive() { names.join(" ") } else { "left by a killed run; `lab down --all`".into() };
        text.push_str(&format!("{:<30} {} ({state})\n", lab.name, lab.scenario));
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
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

fn bring_up(args: &Up) -> anyhow::Result<ExitCode> {
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
    print(&format!("{}\n", lab.name))?;
    Ok(ExitCode::SUCCESS)
}

fn run_inside(args: Exec) -> anyhow::Result<ExitCode> {
    let lab = standing::find(args.lab.as_deref())?;
    let (program, arguments) = args.command.split_first().context("no command to run")?;
    let mut command = if program == "hostdns-probe" { enter::this_program() } else { Command::new(program) };
    command.args(arguments);
    Ok(wait(enter::spawn(&lab, args.pod.as_deref(), command)?)?)
}

fn check_lab(args: &Check) -> anyhow::Result<ExitCode> {
    let (scenario, check_args) = args.split();
    let mut command = enter::this_program();
    command.arg("check");
    let Some(name) = scenario else {
        let lab = standing::find(args.lab.as_deref())?;
        if let Some(scenario) = scenarios::find(&lab.scenario) {
            command.args(&scenario.check_args);
        }
        command.args(check_args);
        return Ok(wait(enter::spawn(&lab, None, command)?)?);
    };
    let scenario = find(name)?;
    command.args(&scenario.check_args).args(check_args);
    eprintln!("{}: {}", scenario.name, scenario.description);
    let lab = Lab::up(&matrix::plan(&scenario, args.coredns.clone()))?;
    let code =
        enter::spawn(&lab.standing, None, command).map_err(anyhow::Error::from).and_then(|child| Ok(wait(child)?));
    lab.down()?;
    code
}

fn run_matrix(args: &MatrixArgs) -> anyhow::Result<ExitCode> {
    let globs = args.scenarios.iter().chain(&args.only).map(|glob| {
        let pattern = glob::Pattern::new(glob).with_context(|| format!("{glob} is not a glob"))?;
        if !scenarios::all().iter().any(|row| pattern.matches(row.name)) {
            return Err(lab::Error::NoSuchScenario(glob.clone()).into());
        }
        Ok(pattern)
    });
    let globs = globs.collect::<anyhow::Result<Vec<_>>>()?;
    let all = scenarios::all().into_iter();
    let mut wanted: Vec<Scenario> =
        all.filter(|row| globs.is_empty() || globs.iter().any(|glob| glob.matches(row.name))).collect();
    if let Some(budget) = &args.budget {
        for scenario in &mut wanted {
            scenario.check_args.extend(["--budget".into(), budget.clone()]);
        }
    }
    standing::clear_leftovers()?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.unwrap_or(2 * processors);
    let result = matrix::run(&wanted, jobs, args.coredns.as_ref(), |row| {
        let word = if row.agree { "as expected" } else { "NOT as expected" };
        eprintln!("{}: {word} ({} ms)", row.scenario, row.duration_ms);
    });
    match args.output {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&result)?))?,
        Format::Text => print(&table(&result))?,
    }
    Ok(if result.agrees() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn table(result: &matrix::Matrix) -> String {
    let mut text = format!(
        "{:<29} {:<29} {:<29} {:<7} {:<29} {:<5} {:>6}\n",
        "SCENARIO", "EXPECTED", "MEASURED", "CAUSE", "PREDICTED", "AGREE", "MS"
    );
    for row in &result.scenarios {
        let cause = row.measured.cause.as_deref().unwrap_or("-");
        let agree = if row.agree { "yes" } else { "NO" };
        text.push_str(&format!(
            "{:<29} {:<29} {:<29} {cause:<7} {:<29} {agree:<5} {:>6}\n",
            row.scenario, row.expected, row.measured, row.prediction, row.duration_ms
        ));
        if let Some(error) = &row.error {
            text.push_str(&format!("    {error}\n"));
        } else if !row.agree && row.expected.cause != row.measured.cause {
            text.push_str(&format!("    expected cause {}\n", row.expected.cause.as_deref().unwrap_or("-")));
        }
    }
    let agreed = result.scenarios.iter().filter(|row| row.agree).count();
    text.push_str(&format!("{agreed} of {} as expected\n", result.scenarios.len()));
    text
}

fn down(name: Option<&str>, all: bool) -> anyhow::Result<ExitCode> {
    for lab in standing::all().iter().filter(|lab| all || name == Some(lab.name.as_str())) {
        lab.down()?;
        eprintln!("lab {} is down", lab.name);
        if !all {
            return Ok(ExitCode::SUCCESS);
        }
    }
    match name {
        Some(name) => Err(lab::Error::NoSuchLab(name.into()).into()),
        None => {
            standing::clear_leftovers()?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The command's exit code, passed through; 128 + signal as a shell says it.
fn wait(mut child: std::process::Child) -> io::Result<ExitCode> {
    use std::os::unix::process::ExitStatusExt as _;
    let status: ExitStatus = child.wait()?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Writes to stdout; a closed pipe ends quietly.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: LabCommand,
    }

    fn check(args: &[&str]) -> Check {
        let line = ["lab", "check"].iter().chain(args);
        match Cli::try_parse_from(line).expect("a good command line").command {
            LabCommand::Check(check) => check,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn arguments_of_check_come_after_the_scenario_or_the_lab() {
        let with_scenario = check(&["issue-36761-leak", "--output", "json"]);
        let json = ["--output".to_owned(), "json".to_owned()];
        assert_eq!(with_scenario.split(), (Some("issue-36761-leak"), &json[..]));
        assert_eq!(check(&["x", "--", "-v"]).split(), (Some("x"), &["-v".to_owned()][..]));
        let with_lab = check(&["--lab", "mine", "--output", "json"]);
        assert_eq!((with_lab.lab.as_deref(), with_lab.split()), (Some("mine"), (None, &json[..])));
        assert_eq!(check(&["--", "--output", "json"]).split(), (None, &json[..]));
        assert_eq!(check(&[]).split(), (None, &[][..]));
    }
}
