//! `cargo xtask vm`: the lab on the kernels people run, each in a virtual machine.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::{build, cli, setup, step::step, workspace};

mod beside;
mod initramfs;
mod judge;
mod kernel;
mod qemu;

use kernel::Kernel;

/// Debian 12's own, without tcx, and its newest.
const KERNELS: [&str; 2] = ["6.1", "6.12"];

/// Each way a packet can end, once.
const NAMED: [&str; 6] =
    ["healthy-legacy", "issue-36761-leak", "issue-36761-drop", "policy-denied", "nobody-listens", "reply-lost"];

/// All scenarios there are, at most: how long to wait.
const ALL: u32 = 40;

/// All boots together, at most. A machine with time for it takes five minutes.
const TOGETHER: Duration = Duration::from_secs(30 * 60);

/// The kernel's lockdown level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lockdown {
    None,
    Integrity,
    Confidentiality,
}

impl Lockdown {
    const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }
}

/// What the boots need, all of it here.
#[derive(Debug)]
pub(crate) struct Ready {
    cache: PathBuf,
    kernels: Vec<Kernel>,
    busybox: PathBuf,
}

/// Gets QEMU and the kernels. An error: they cannot be had here.
pub(crate) fn prepare(options: &cli::Vm) -> anyhow::Result<Ready> {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) {
        bail!("the kernels are x86_64 ones, which need a probe built for x86_64: run this on such a Linux machine");
    }
    if !build::on_path(qemu::PROGRAM) {
        setup::install(options.consent, "QEMU for the virtual machines", &["qemu-system-x86"])?;
    }
    let cache = workspace::target_dir().join("vm");
    std::fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let busybox = kernel::busybox(&cache)?;
    let wanted = options.kernel.clone().map_or_else(|| KERNELS.map(str::to_owned).to_vec(), |kernel| vec![kernel]);
    let kernels = wanted.iter().map(|series| kernel::get(&cache, series)).collect::<anyhow::Result<_>>()?;
    Ok(Ready { cache, kernels, busybox })
}

pub(crate) fn run(options: &cli::Vm) -> anyhow::Result<()> {
    let ready = prepare(options)?;
    boot_all(&ready, options)
}

/// Boots every kernel at every lockdown level. An error: a verdict was wrong, or a machine did not come up.
pub(crate) fn boot_all(ready: &Ready, options: &cli::Vm) -> anyhow::Result<()> {
    let probe = match &options.binary {
        Some(binary) => binary.clone(),
        None => {
            setup::run(options.consent)?;
            build::release(&build::host()?)?
        }
    };
    let deadline = Instant::now() + TOGETHER;
    let levels = options.lockdown.map_or_else(|| Lockdown::value_variants().to_vec(), |level| vec![level]);
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for kernel in &ready.kernels {
        for &lockdown in &levels {
            let what = format!("{}, lockdown {}", kernel.release, lockdown.as_str());
            match step(&format!("boot {what}"), || boot(ready, options, kernel, &probe, lockdown, deadline)) {
                Ok(more) => {
                    // At once: whoever ends the run early has what was found until then.
                    print!("{}", lines(&more));
                    rows.extend(more);
                }
                Err(error) => failed.push(format!("{what}: {error:#}")),
            }
        }
    }
    print!("{}", missing_hooks(&rows));
    if let Ok(own) = std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        println!("{}, this machine's own: its rows are the end-to-end tests' (tests/tests/lab.rs)", own.trim());
    }
    failed.extend(rows.iter().filter(|row| !row.line.grade.passes()).map(|row| {
        format!("{}, {}, {}: {}", row.kernel, row.lockdown.as_str(), row.line.scenario, row.line.grade.as_str())
    }));
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    Ok(())
}

/// One scenario on one kernel at one level.
#[derive(Debug)]
struct Row {
    kernel: String,
    lockdown: Lockdown,
    line: judge::Line,
}

fn boot(
    ready: &Ready,
    options: &cli::Vm,
    kernel: &Kernel,
    probe: &Path,
    lockdown: Lockdown,
    deadline: Instant,
) -> anyhow::Result<Vec<Row>> {
    // Two at a time: half of a broken scenario's time is waiting.
    let scenarios = scenarios(options, lockdown);
    let count = u32::try_from(scenarios.len()).unwrap_or(ALL);
    let globs = scenarios.iter().any(|argument| argument.contains(['*', '?', '[']));
    let mut arguments = ["--jobs", "2", "--budget", "120s"].map(str::to_owned).to_vec();
    arguments.extend(scenarios);
    let alone = lockdown == Lockdown::None && options.scenario.is_none();
    let labs = if alone { beside::groups(kernel)? } else { Vec::new() };
    let work = initramfs::Work { arguments, labs };
    let count = u32::try_from(work.labs.len()).unwrap_or(ALL) + if count == 0 || globs { ALL } else { count };
    // A boot, and for a scenario several times what it took with two at a time: 3 to 6 s.
    let patience = Duration::from_secs(90) + Duration::from_secs(20) * count;
    let archive = initramfs::build(kernel, &ready.busybox, probe, &work)?;
    let directory = ready.cache.join("runs").join(format!("{}-{}", kernel.release, lockdown.as_str()));
    let results = qemu::boot(&directory, kernel, &archive, lockdown, qemu::Patience { patience, deadline })?;
    let mut lines: Vec<_> = results.matrix["scenarios"].as_array().into_iter().flatten().map(judge::row).collect();
    if lines.is_empty() {
        bail!("the matrix has no rows");
    }
    lines.extend(work.labs.iter().flatten().map(|lab| lab.judge(&results.labs[lab.name])));
    Ok(lines.into_iter().map(|line| Row { kernel: results.kernel.clone(), lockdown, line }).collect())
}

/// Which ones; none means all.
fn scenarios(options: &cli::Vm, lockdown: Lockdown) -> Vec<String> {
    match &options.scenario {
        Some(glob) => vec![glob.clone()],
        None if lockdown == Lockdown::None => Vec::new(),
        None => NAMED.map(str::to_owned).to_vec(),
    }
}

fn lines(rows: &[Row]) -> String {
    let mut text = format!("{:<30} {:<16} {:<30} {:<6} MEASURED\n", "KERNEL", "LOCKDOWN", "SCENARIO", "GRADE");
    for Row { kernel, lockdown, line } in rows {
        let (level, grade, measured) = (lockdown.as_str(), line.grade.as_str(), &line.measured);
        text.push_str(&format!("{kernel:<30} {level:<16} {:<30} {grade:<6} {measured}\n", line.scenario));
        if line.grade != judge::Grade::Right {
            text.push_str(&format!("    expected {}\n", line.expected));
        }
    }
    text
}

fn missing_hooks(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut missing: BTreeMap<(&str, &str), Vec<&String>> = BTreeMap::new();
    for Row { kernel, lockdown, line } in rows {
        let hooks = missing.entry((kernel, lockdown.as_str())).or_default();
        for hook in &line.missing_hooks {
            if !hooks.contains(&hook) {
                hooks.push(hook);
            }
        }
    }
    for ((kernel, level), hooks) in missing {
        match hooks.as_slice() {
            [] => text.push_str(&format!("{kernel}, lockdown {level}: every hook was there\n")),
            hooks => {
                text.push_str(&format!("{kernel}, lockdown {level}: hooks that were missing in some scenario\n"));
                for hook in hooks {
                    text.push_str(&format!("    {hook}\n"));
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdown_runs_the_named_scenarios() {
        let options = cli::Vm::default();
        assert_eq!(scenarios(&options, Lockdown::Integrity), NAMED);
        let one = cli::Vm { scenario: Some("reply-*".into()), ..cli::Vm::default() };
        assert_eq!(scenarios(&one, Lockdown::None), ["reply-*"]);
    }
}
