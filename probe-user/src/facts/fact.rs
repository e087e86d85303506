//! What is known, and from where; or why it is not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One fact: known, with its source (and what other sources say, where they differ), or unavailable and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Fact<T> {
    // First, because serde takes the first variant that fits, and a `Fact<Option<T>>` without "known" would fit `Known`.
    Unavailable {
        #[serde(rename = "unavailable")]
        why: String,
        source: String,
    },
    Known {
        #[serde(rename = "known")]
        value: T,
        source: String,
        /// Other sources that say something else, as text.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        others: Vec<String>,
    },
}

impl<T> Fact<T> {
    pub fn known(value: T, source: impl Into<String>) -> Self {
        Self::Known { value, source: source.into(), others: Vec::new() }
    }

    pub fn unavailable(why: impl std::fmt::Display, source: impl Into<String>) -> Self {
        Self::Unavailable { why: why.to_string(), source: source.into() }
    }

    /// The value, or `None` where it is not known.
    #[must_use]
    pub const fn get(&self) -> Option<&T> {
        match self {
            Self::Known { value, .. } => Some(value),
            Self::Unavailable { .. } => None,
        }
    }

    /// Why it is not known.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Known { .. } => None,
            Self::Unavailable { why, .. } => Some(why),
        }
    }

    #[must_use]
    pub fn source(&self) -> &str {
        match self {
            Self::Known { source, .. } | Self::Unavailable { source, .. } => source,
        }
    }

    /// What else was said of it: other sources that differ, parts that could not be read.
    #[must_use]
    pub fn others(&self) -> &[String] {
        match self {
            Self::Known { others, .. } => others,
            Self::Unavailable { .. } => &[],
        }
    }

    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Self::Known { value, source, others } => Fact::Known { value: f(value), source, others },
            Self::Unavailable { why, source } => Fact::Unavailable { why, source },
        }
    }
}

impl<T> Default for Fact<T> {
    fn default() -> Self {
        Self::unavailable("not looked for", "")
    }
}
