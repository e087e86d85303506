//! Saved reports, as commands read them.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use anyhow::Context as _;

use crate::report::{Report, saved};

/// The file's name in messages.
#[must_use]
pub fn name(path: &Path) -> String {
    if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() }
}

/// Reads a report from a file, or from stdin for `-`.
///
/// # Errors
/// The file cannot be read, or is no report of a version known here.
pub fn read(path: &Path) -> anyhow::Result<Report> {
    let name = name(path);
    let text = text(path).with_context(|| format!("cannot read {name}"))?;
    saved::parse(&text).with_context(|| format!("{name} is not a report that can be read"))
}

fn text(path: &Path) -> io::Result<String> {
    if path != Path::new("-") {
        return fs::read_to_string(path);
    }
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text)?;
    Ok(text)
}
