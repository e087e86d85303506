//! What the command prints, held against the schema that it prints itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jsonschema::Validator;
use serde_json::Value;

use crate::{run, stderr};

/// By their names; each is printed once.
static VALIDATORS: Mutex<Option<HashMap<String, Arc<Validator>>>> = Mutex::new(None);

/// What is wrong with a document, by the schema that its own member names.
///
/// # Panics
/// Where it names none, or one that there is not.
#[must_use]
pub fn wrong(document: &Value) -> Vec<String> {
    let name = document["schema"].as_str().unwrap_or_else(|| panic!("no schema is named: {document:#}"));
    let validator = validator(name);
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// The document is what the schema that its own member names says.
///
/// # Panics
/// Where it is not, or names none.
pub fn assert_valid(document: &Value) {
    let wrong = wrong(document);
    assert!(wrong.is_empty(), "{}: {wrong:#?}", document["schema"]);
}

fn validator(name: &str) -> Arc<Validator> {
    let mut validators = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = validators.get_or_insert_default().entry(name.to_owned());
    known
        .or_insert_with(|| {
            let output = run(["schema", name]);
            assert!(output.status.success(), "schema {name}: {}", stderr(&output));
            let schema = serde_json::from_slice(&output.stdout).expect("a schema is JSON");
            let options = jsonschema::options().should_validate_formats(true);
            Arc::new(options.build(&schema).expect("a schema is one"))
        })
        .clone()
}
