//! The one way to stdout.

use std::{
    fs,
    io::{self, IsTerminal as _, Write},
    path::{Path, PathBuf},
};

use crate::{
    cli::{
        Color, Global,
        args::{Format, OutputArgs},
    },
    report::{self, Options, Report},
};

/// Width of a report that goes elsewhere than to a terminal, and the widest one on a terminal: prose wider than this
/// is hard to read.
const WIDTH: usize = 100;
/// Narrower than this, wrapping makes nothing readable.
const NARROWEST: usize = 40;

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot write to stdout: {0}")]
    Stdout(io::Error),
    #[error("cannot redact this report, so nothing is written: {0}")]
    Redact(serde_json::Error),
    #[error("cannot write {path}: {source}; name a file in a directory that exists and is writable")]
    File { path: PathBuf, source: io::Error },
}

/// Writes what a command has to say to stdout, or to the file that was asked for.
#[derive(Clone, Debug)]
pub struct Printer {
    file: Option<PathBuf>,
    options: Options,
}

impl Printer {
    #[must_use]
    pub fn new(global: &Global, file: Option<&Path>) -> Self {
        let terminal = file.is_none() && io::stdout().is_terminal();
        let width = match terminal_size::terminal_size() {
            Some((terminal_size::Width(width), _)) if terminal => usize::from(width).clamp(NARROWEST, WIDTH),
            _ => WIDTH,
        };
        let options = Options { width, color: colored(global.color, terminal), verbose: global.verbose > 0 };
        Self { file: file.map(Path::to_owned), options }
    }

    /// How text should look where this printer's output goes.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// Prints what `render` writes. A reader that has gone away (`| head`) is not an error.
    ///
    /// # Errors
    /// The file, or stdout, cannot be written.
    pub fn print(&self, render: impl FnOnce(&Options, &mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
        match &self.file {
            Some(path) => write_file(path, |out| render(&self.options, out)),
            None => {
                let mut out = io::BufWriter::new(io::stdout().lock());
                quietly(render(&self.options, &mut out).and_then(|()| out.flush())).map_err(Error::Stdout)
            }
        }
    }

    /// For what has no end: written piece by piece, to stdout or the file.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn stream(&self) -> Result<Stream, Error> {
        let out: Box<dyn Write> = match &self.file {
            Some(path) => {
                let file = fs::File::create(path).map_err(|source| Error::File { path: path.clone(), source })?;
                Box::new(io::BufWriter::new(file))
            }
            None => Box::new(io::BufWriter::new(io::stdout())),
        };
        Ok(Stream { out, file: self.file.clone(), options: self.options })
    }
}

/// A printer that goes on.
pub struct Stream {
    out: Box<dyn Write>,
    file: Option<PathBuf>,
    options: Options,
}

impl Stream {
    /// Writes what `render` writes, and hands it on at once. False: the reader has gone away (`| head`), which is no
    /// error, and nothing need be written any more.
    ///
    /// # Errors
    /// The file, or stdout, cannot be written.
    pub fn print(&mut self, render: impl FnOnce(&Options, &mut dyn Write) -> io::Result<()>) -> Result<bool, Error> {
        match render(&self.options, &mut self.out).and_then(|()| self.out.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(source) => Err(match &self.file {
                Some(path) => Error::File { path: path.clone(), source },
                None => Error::Stdout(source),
            }),
        }
    }
}

/// Writes a report where, and in the form, its user asked for.
///
/// # Errors
/// A file, or stdout, cannot be written.
pub fn print_report(report: &Report, args: &OutputArgs, global: &Global) -> Result<(), Error> {
    let redacted = args.redact.then(|| report::redact::redact(report)).transpose().map_err(Error::Redact)?;
    let report = redacted.as_ref().unwrap_or(report);
    if let Some(path) = &args.junit {
        write_file(path, |out| report::junit::render(report, &Options::default(), out))?;
    }
    let render = match args.output {
        Format::Text => report::text::render,
        Format::Json => report::json::render,
        Format::Junit => report::junit::render,
        Format::Markdown => report::markdown::render,
        Format::Oneline => report::oneline::render,
    };
    Printer::new(global, args.output_file.as_deref()).print(|options, out| render(report, options, out))
}

/// Renders first and writes then, so that a file never holds half a report for longer than a write takes.
fn write_file(path: &Path, render: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let mut text = Vec::new();
    render(&mut text)
        .and_then(|()| fs::write(path, &text))
        .map_err(|source| Error::File { path: path.to_owned(), source })
}

fn quietly(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// <https://no-color.org>: set and not empty turns colours off, an explicit flag wins.
fn colored(color: Color, terminal: bool) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            terminal && !forbidden && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_not_an_error_and_a_full_disk_is() {
        assert!(quietly(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        assert!(quietly(Err(io::ErrorKind::StorageFull.into())).is_err());
    }

    #[test]
    fn a_file_gets_no_colours_unless_asked_for() {
        assert!(!colored(Color::Auto, false));
        assert!(colored(Color::Always, false));
        assert!(!colored(Color::Never, true));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let error = write_file(Path::new("/nonexistent/report.xml"), |_| Ok(())).expect_err("no such directory");
        assert!(error.to_string().contains("/nonexistent/report.xml"), "{error}");
    }
}
