//! Everything, as `hostdns-probe/report/v1`.

use std::io::{self, Write};

use super::{Options, Report};

/// # Errors
/// `out` cannot be written.
pub fn render(report: &Report, _options: &Options, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::examples::{self, rendered};

    #[test]
    fn every_example() {
        for (name, report) in examples::all() {
            insta::assert_snapshot!(format!("json_{name}"), rendered(render, &report, &Options::default()));
        }
    }
}
