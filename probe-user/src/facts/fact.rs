//! What is known, and from where; or why it is not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One fact: known, with its source, what other sources say where they differ, and what is missing from it; or
/// unavailable and why.
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
        /// Parts that could not be read or were left out, and doubts, as text.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        notes: Vec<String>,
    },
}

impl<T> Fact<T> {
    pub fn known(value: T, source: impl Into<String>) -> Self {
        Self::Known { value, source: source.into(), others: Vec::new(), notes: Vec::new() }
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

    /// What other sources say that differs.
    #[must_use]
    pub fn others(&self) -> &[String] {
        match self {
            Self::Known { others, .. } => others,
            Self::Unavailable { .. } => &[],
        }
    }

    /// What is missing from it: parts that could not be read or were left out, and doubts.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        match self {
            Self::Known { notes, .. } => notes,
            Self::Unavailable { .. } => &[],
        }
    }

    /// Another source says something else. It has no place beside what is not known.
    pub fn differs(&mut self, other: impl Into<String>) {
        if let Self::Known { others, .. } = self {
            others.push(other.into());
        }
    }

    /// The same with parts that are missing from it, or doubts.
    #[must_use]
    pub fn noting(mut self, more: impl IntoIterator<Item = String>) -> Self {
        if let Self::Known { notes, .. } = &mut self {
            notes.extend(more);
        }
        self
    }

    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Self::Known { value, source, others, notes } => Fact::Known { value: f(value), source, others, notes },
            Self::Unavailable { why, source } => Fact::Unavailable { why, source },
        }
    }
}

/// Why a fact is not known that nobody asked for; of a report from before there was such a fact, too.
pub(crate) const NOT_LOOKED_FOR: &str = "not looked for";

impl<T> Default for Fact<T> {
    fn default() -> Self {
        Self::unavailable(NOT_LOOKED_FOR, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_not_what_others_say() {
        let mut fact = Fact::known(1, "a").noting(["half of it was read".to_owned()]);
        fact.differs("b: 2");
        assert_eq!((fact.others(), fact.notes()), (&["b: 2".to_owned()][..], &["half of it was read".to_owned()][..]));
        assert_eq!(fact.clone().map(|value| value + 1).notes(), fact.notes());
        let text = serde_json::to_string(&fact).unwrap();
        assert_eq!(serde_json::from_str::<Fact<i32>>(&text).unwrap(), fact);
        assert!(!serde_json::to_string(&Fact::known(1, "a")).unwrap().contains("notes"));
        let unread = Fact::<i32>::unavailable("gone", "a").noting(["half".to_owned()]);
        assert_eq!(unread, Fact::unavailable("gone", "a"));
    }

    #[test]
    fn a_fact_of_a_report_from_before_notes_is_read() {
        let old = r#"{"known": 1, "source": "a", "others": ["b: 2"]}"#;
        let fact: Fact<i32> = serde_json::from_str(old).unwrap();
        assert_eq!((fact.others().len(), fact.notes().len()), (1, 0));
    }
}
