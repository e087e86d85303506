//! `lab down`.

use crate::{
    commands::Exit,
    lab::{self, standing},
};

pub(super) fn run(name: Option<&str>, all: bool) -> anyhow::Result<Exit> {
    for lab in standing::all().iter().filter(|lab| all || name == Some(lab.name.as_str())) {
        lab.down()?;
        eprintln!("lab {} is down", lab.name);
        if !all {
            return Ok(Exit::Ok);
        }
    }
    match name {
        Some(name) => Err(lab::Error::NoSuchLab(name.into()).into()),
        None => {
            standing::clear_leftovers()?;
            Ok(Exit::Ok)
        }
    }
}
