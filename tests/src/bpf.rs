//! What a process has in the kernel, by ids. The kernel gives out none twice, so others may load programs meanwhile.

use std::{collections::BTreeSet, fs};

/// Ids of BPF objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Objects {
    pub programs: BTreeSet<u32>,
    pub maps: BTreeSet<u32>,
    pub links: BTreeSet<u32>,
}

impl Objects {
    /// What a process holds: what its descriptors are, and the maps of its programs.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let mut held = Self::default();
        let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
        for text in infos.filter_map(|info| fs::read_to_string(info.path()).ok()) {
            for line in text.lines() {
                let Some((name, id)) = line.split_once(':') else { continue };
                let Ok(id) = id.trim().parse() else { continue };
                match name {
                    "prog_id" => held.programs.insert(id),
                    "map_id" => held.maps.insert(id),
                    "link_id" => held.links.insert(id),
                    _ => false,
                };
            }
        }
        for program in aya::programs::loaded_programs().flatten().filter(|one| held.programs.contains(&one.id())) {
            held.maps.extend(program.map_ids().ok().flatten().into_iter().flatten());
        }
        held
    }

    /// Those that the kernel still has.
    #[must_use]
    pub fn left(&self) -> Self {
        let both =
            |ids: &BTreeSet<u32>, all: &mut dyn Iterator<Item = u32>| all.filter(|id| ids.contains(id)).collect();
        Self {
            programs: both(&self.programs, &mut aya::programs::loaded_programs().flatten().map(|one| one.id())),
            maps: both(&self.maps, &mut aya::maps::loaded_maps().flatten().map(|one| one.id())),
            links: both(&self.links, &mut aya::programs::loaded_links().flatten().map(|one| one.id())),
        }
    }

    /// What either holds.
    pub fn extend(&mut self, other: Self) {
        self.programs.extend(other.programs);
        self.maps.extend(other.maps);
        self.links.extend(other.links);
    }
}
