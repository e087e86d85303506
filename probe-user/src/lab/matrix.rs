//! Every scenario side by side: up, `check` inside, compare, down.

mod compare;

use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    process::{Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::compare::TestRow;
use super::{
    Error, enter,
    scenario::{Expected, Scenario},
    standing::{Lab, LabPlan},
};
use crate::{
    ended::{Direction, Ended},
    report::{Prediction, Report, Status, Verdict},
    trace::Hook,
};

/// Name of the schema; v1 only grows.
pub const SCHEMA: &str = "hostdns-probe/matrix/v1";

/// What came out.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Matrix {
    #[schemars(extend("const" = SCHEMA))]
    pub schema: String,
    pub scenarios: Vec<Row>,
}

impl Matrix {
    /// Every scenario came out as it should.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.scenarios.iter().all(|row| row.agree)
    }
}

/// One scenario.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    pub scenario: String,
    pub description: String,
    pub expected: Outcome,
    pub measured: Outcome,
    pub prediction: Outcome,
    /// Everything is as the scenario says: the verdict with its cause, every test, and what the prediction is worth.
    pub agree: bool,
    /// Each query of the scenario, by who asked and how.
    #[serde(default)]
    pub tests: Vec<TestRow>,
    /// The prediction has the measured status, end and direction, and the cause of a failure.
    #[serde(default)]
    pub prediction_agrees: bool,
    /// What is not as it should be, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
    /// Up, check and down.
    pub duration_ms: u64,
    /// `check` alone, as it says itself.
    #[serde(default)]
    pub check_ms: Option<u64>,
    /// Hooks that this kernel did not grant `check`, each once, with what that costs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_hooks: Vec<String>,
    /// Why nothing was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A verdict without its sentence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    pub status: Status,
    pub ended: Option<Ended>,
    pub direction: Direction,
    pub cause: Option<String>,
}

impl From<&Expected> for Outcome {
    fn from(expected: &Expected) -> Self {
        let Expected { status, ended, direction, cause, .. } = expected.clone();
        Self { status, ended, direction, cause }
    }
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        let Verdict { status, ended, direction, cause, .. } = verdict;
        Self { status, ended, direction, cause }
    }
}

impl From<Prediction> for Outcome {
    fn from(prediction: Prediction) -> Self {
        let Prediction { status, ended, direction, cause, .. } = prediction;
        Self { status, ended, direction, cause }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = self.status.as_str().to_owned();
        if let Some(ended) = self.ended {
            text.push('/');
            text.push_str(ended.as_str());
        }
        if self.direction != Direction::None {
            text.push('/');
            text.push_str(self.direction.as_str());
        }
        f.pad(&text)
    }
}

/// The plan of a scenario's lab that lives as long as this process does.
#[must_use]
pub fn plan(scenario: &Scenario, coredns: Option<PathBuf>) -> LabPlan {
    LabPlan {
        name: format!("{}-{}", scenario.name, std::process::id()),
        scenario: scenario.name.into(),
        spec: scenario.node.clone(),
        coredns,
        detached: false,
    }
}

/// Runs the scenarios, `jobs` at a time. `done` is told of each as it ends.
#[must_use]
pub fn run(scenarios: &[Scenario], jobs: usize, coredns: Option<&PathBuf>, done: impl Fn(&Row) + Sync) -> Matrix {
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, scenarios.len().max(1)) {
            scope.spawn(|| {
                while let Some((number, scenario)) = {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    scenarios.get(number).map(|scenario| (number, scenario))
                } {
                    let row = run_one(scenario, coredns.cloned());
                    done(&row);
                    if let Ok(mut rows) = rows.lock() {
                        rows.push((number, row));
                    }
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_default();
    rows.sort_by_key(|(number, _row)| *number);
    Matrix { schema: SCHEMA.into(), scenarios: rows.into_iter().map(|(_number, row)| row).collect() }
}

fn run_one(scenario: &Scenario, coredns: Option<PathBuf>) -> Row {
    let start = Instant::now();
    let report = measure(scenario, coredns);
    let mut row = row_of(scenario);
    row.duration_ms = milliseconds(start.elapsed());
    match report {
        Ok(report) => {
            row.check_ms = Some(report.duration_ms);
            row.missing_hooks = missing(&report.hooks);
            compare::fill(&mut row, scenario, report);
        }
        Err(error) => row.error = Some(crate::trace::load::chain(&error)),
    }
    row
}

/// The scenario's row before anything is measured.
fn row_of(scenario: &Scenario) -> Row {
    Row {
        scenario: scenario.name.into(),
        description: scenario.description.into(),
        expected: (&scenario.expected).into(),
        measured: Outcome::default(),
        prediction: Outcome::default(),
        agree: false,
        tests: Vec::new(),
        prediction_agrees: false,
        differences: Vec::new(),
        duration_ms: 0,
        check_ms: None,
        missing_hooks: Vec::new(),
        error: None,
    }
}

/// The hooks that are not attached; one on many interfaces once.
fn missing(hooks: &[Hook]) -> Vec<String> {
    let lines = hooks.iter().filter(|hook| !hook.attached).map(|hook| match &hook.reason {
        Some(reason) => format!("{}: {reason}", hook.name),
        None => hook.name.clone(),
    });
    lines.collect::<BTreeSet<_>>().into_iter().collect()
}

fn measure(scenario: &Scenario, coredns: Option<PathBuf>) -> Result<Report, Error> {
    let lab = Lab::up(&plan(scenario, coredns))?;
    let mut command = enter::this_program();
    command.args(["check", "--output", "json"]).args(&scenario.check_args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let checked = enter::spawn(&lab.standing, None, command)
        .and_then(|child| child.wait_with_output().map_err(Error::io("cannot wait for check")))
        .and_then(|output| read(&output));
    let down = lab.down();
    let report = checked?;
    down?;
    Ok(report)
}

fn read(output: &Output) -> Result<Report, Error> {
    serde_json::from_slice(&output.stdout).map_err(|error| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let what = format!("check ended with {} and no report ({})", output.status, stderr.trim());
        Error::Io { what, source: io::Error::other(error) }
    })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
