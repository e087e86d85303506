//! `lab list`.

use std::io::{self, Write};

use crate::{
    cli::{
        Global,
        args::{PlainFormat, PlainOutputArgs},
    },
    commands::Exit,
    lab::listing::Listing,
    printer::Printer,
};

pub(super) fn run(args: &PlainOutputArgs, global: &Global) -> anyhow::Result<Exit> {
    let listing = Listing::now();
    Printer::new(global, args.output_file.as_deref()).print(|_, out| match args.output {
        PlainFormat::Text => text(&listing, out),
        PlainFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &listing)?;
            writeln!(out)
        }
    })?;
    Ok(Exit::Ok)
}

fn text(listing: &Listing, out: &mut dyn Write) -> io::Result<()> {
    for row in &listing.scenarios {
        writeln!(out, "{:<30} {}", row.scenario, row.description)?;
    }
    if !listing.labs.is_empty() {
        writeln!(out, "\nStanding:")?;
    }
    for lab in &listing.labs {
        let state = if lab.standing { lab.pods.join(" ") } else { "left by a killed run; `lab down --all`".into() };
        writeln!(out, "{:<30} {} ({state})", lab.name, lab.scenario)?;
    }
    Ok(())
}
