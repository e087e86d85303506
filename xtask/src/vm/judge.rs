//! What a scenario came to on a kernel, against what it should.

use std::collections::BTreeSet;

use serde_json::Value;

/// Slow answers: time means nothing under software emulation.
const SLOW: &str = "HDP410";
/// What is said of a hook whose program the verifier does not take. The kernel has that hook, so nothing excuses it.
const REFUSED: &str = "the kernel refused the program";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grade {
    /// The verdict, where and how it ended, and the cause.
    Right,
    /// No verdict, or the right one without where it ended or why; a hook is missing.
    Less,
    /// A verdict that is not so, or less than could be said with every hook there; or a program that was refused.
    Wrong,
    /// Nothing measured.
    Error,
}

impl Grade {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Less => "less",
            Self::Wrong => "WRONG",
            Self::Error => "ERROR",
        }
    }

    pub(super) const fn passes(self) -> bool {
        matches!(self, Self::Right | Self::Less)
    }
}

/// One scenario's line.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) scenario: String,
    pub(super) grade: Grade,
    pub(super) expected: String,
    pub(super) measured: String,
    pub(super) missing_hooks: BTreeSet<String>,
}

/// A row of `hostdns-probe/matrix/v1`.
pub(super) fn row(row: &Value) -> Line {
    let missing_hooks: BTreeSet<String> =
        row["missing_hooks"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let measured = match row["error"].as_str() {
        Some(error) => error.to_owned(),
        None => outcome(&row["measured"]),
    };
    Line {
        scenario: text(&row["scenario"]).to_owned(),
        grade: grade(row, &missing_hooks),
        expected: outcome(&row["expected"]),
        measured,
        missing_hooks,
    }
}

fn grade(row: &Value, missing_hooks: &BTreeSet<String>) -> Grade {
    if !row["error"].is_null() || row["measured"]["status"].is_null() {
        return Grade::Error;
    }
    if missing_hooks.iter().any(|hook| hook.contains(REFUSED)) {
        return Grade::Wrong;
    }
    let (expected, measured) = (&row["expected"], &row["measured"]);
    let same = |field: &str| expected[field] == measured[field];
    let cause = same("cause") || (expected["cause"].is_null() && measured["cause"] == SLOW);
    if same("status") && same("ended") && same("direction") && cause {
        return Grade::Right;
    }
    // Less said is right where a hook is missing; something else said is wrong everywhere.
    let unsaid = |field: &str| measured[field].is_null() || measured[field] == "unknown" || measured[field] == "none";
    let less = measured["status"] == "unknown"
        || (same("status") && ["ended", "direction"].into_iter().all(|field| same(field) || unsaid(field)));
    if less && !missing_hooks.is_empty() { Grade::Less } else { Grade::Wrong }
}

fn outcome(outcome: &Value) -> String {
    let mut words = text(&outcome["status"]).to_owned();
    for field in ["ended", "direction", "cause"] {
        let word = text(&outcome[field]);
        if !matches!(word, "" | "none") {
            words.push('/');
            words.push_str(word);
        }
    }
    words
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn graded(expected: [&str; 3], measured: [&str; 3], missing: &[&str]) -> Grade {
        let outcome = |[status, ended, cause]: [&str; 3]| {
            let optional = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
            json!({"status": status, "ended": optional(ended), "direction": "none", "cause": optional(cause)})
        };
        row(&json!({
            "scenario": "x", "expected": outcome(expected), "measured": outcome(measured), "missing_hooks": missing,
        }))
        .grade
    }

    const LEAK: [&str; 3] = ["fail", "leaked", "HDP101"];

    #[test]
    fn a_verdict_that_is_not_so_is_wrong_whatever_is_missing() {
        assert_eq!(graded(LEAK, LEAK, &[]), Grade::Right);
        assert_eq!(graded(LEAK, ["pass", "answered", ""], &["tcx"]), Grade::Wrong);
        assert_eq!(graded(["pass", "answered", ""], ["fail", "leaked", "HDP101"], &["tcx"]), Grade::Wrong);
        assert_eq!(graded(LEAK, ["fail", "dropped", "HDP101"], &["tcx"]), Grade::Wrong);
    }

    #[test]
    fn less_is_right_only_where_a_hook_is_missing() {
        for measured in [["unknown", "", "HDP901"], ["fail", "", "HDP101"], ["fail", "leaked", "HDP300"]] {
            assert_eq!(graded(LEAK, measured, &["tcx"]), Grade::Less, "{measured:?}");
            assert_eq!(graded(LEAK, measured, &[]), Grade::Wrong, "{measured:?}");
        }
    }

    #[test]
    fn a_program_of_ours_that_is_refused_is_no_missing_hook() {
        let refused = ["tcx: the kernel refused the program: Permission denied (os error 13)"];
        assert_eq!(graded(LEAK, ["unknown", "", "HDP003"], &refused), Grade::Wrong);
        assert_eq!(graded(LEAK, LEAK, &refused), Grade::Wrong);
    }

    #[test]
    fn slowness_is_the_emulations() {
        assert_eq!(graded(["pass", "answered", ""], ["pass", "answered", SLOW], &[]), Grade::Right);
    }

    #[test]
    fn nothing_measured_is_an_error() {
        assert_eq!(row(&json!({"scenario": "x", "error": "no veth"})).grade, Grade::Error);
        assert_eq!(row(&json!({})).grade, Grade::Error);
    }
}
