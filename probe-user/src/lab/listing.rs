//! `lab list --output json`.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    scenario::{Expected, NodeSpec},
    scenarios,
    standing::{self, Standing},
};

/// Name of the schema; v1 only grows.
pub const SCHEMA: &str = "hostdns-probe/lab-list/v1";

/// The scenarios there are and the labs that are recorded.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Listing {
    #[schemars(extend("const" = SCHEMA))]
    pub schema: &'static str,
    pub scenarios: Vec<Row>,
    pub labs: Vec<Recorded>,
}

/// A scenario.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Row {
    pub scenario: &'static str,
    pub description: &'static str,
    pub expected: Expected,
    /// What `lab up --spec` takes.
    pub node: NodeSpec,
    /// What `check` must be told on its command line there.
    pub check_args: Vec<String>,
}

/// A lab.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Recorded {
    pub name: String,
    /// The scenario, or the file, that it was made from.
    pub scenario: String,
    /// False: a killed run left it.
    pub standing: bool,
    pub pods: Vec<String>,
}

impl From<&Standing> for Recorded {
    fn from(lab: &Standing) -> Self {
        Self {
            name: lab.name.clone(),
            scenario: lab.scenario.clone(),
            standing: lab.is_alive(),
            pods: lab.pods.iter().map(|pod| pod.name.clone()).collect(),
        }
    }
}

impl Listing {
    /// As things are now.
    #[must_use]
    pub fn now() -> Self {
        let scenarios = scenarios::all().into_iter().map(|scenario| Row {
            scenario: scenario.name,
            description: scenario.description,
            expected: scenario.expected,
            node: scenario.node,
            check_args: scenario.check_args,
        });
        Self {
            schema: SCHEMA,
            scenarios: scenarios.collect(),
            labs: standing::all().iter().map(Recorded::from).collect(),
        }
    }
}
