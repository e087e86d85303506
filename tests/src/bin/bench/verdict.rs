//! On a node with the issue: how long until `check` has its verdict, how long until dig gives up.

use std::{process::Command, time::Instant};

use anyhow::bail;

use crate::{Plan, place::Lab, report::Report, stats, subjects::installed};

pub(crate) fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let lab = Lab::up(&plan.probe, "issue-36761-leak")?;
    let (mut check, mut dig) = (Vec::new(), Vec::new());
    let has_dig = installed("dig");
    if !has_dig {
        report.impossible("time of dig's failure", "dig is not installed: apt-get install bind9-dnsutils");
    }
    for round in 0..plan.verdicts {
        eprintln!("bench: verdict, round {} of {}", round + 1, plan.verdicts);
        let mut command = lab.command(false, [plan.probe.as_os_str(), "check".as_ref()]);
        check.push(timed(&mut command, 1)?);
        // dig's own way: three tries of five seconds each.
        if has_dig && round < plan.digs {
            let mut command = lab.command(true, ["dig", "@169.254.116.108", "example.org"]);
            dig.push(timed(&mut command, 9)?);
        }
    }
    let (probe, node) = ("hostdns-probe check", "broken node: time to the verdict");
    let goal = stats::estimate(&dig).map(|dig| dig.median / 10.0);
    report.add("verdict", (node, probe), (&check, "ms"), goal, "goal: a tenth of dig's time");
    report.add("verdict", ("broken node: time to its failure", "dig"), (&dig, "ms"), None, "");
    Ok(())
}

/// Milliseconds of a command, which has to end with `code`: a failure of another kind has no time to compare.
fn timed(command: &mut Command, code: i32) -> anyhow::Result<f64> {
    let began = Instant::now();
    let output = command.output()?;
    let took = began.elapsed().as_secs_f64() * 1000.0;
    if output.status.code() != Some(code) {
        let said = String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr });
        bail!("{command:?} ended with {}, not {code}: {}", output.status, said.trim());
    }
    Ok(took)
}
