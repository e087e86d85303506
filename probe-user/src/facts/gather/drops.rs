//! Cilium's drop counters, with the map that they were read from: one that is made anew starts at zero.

use crate::facts::{DropCount, Fact};

/// One reading of `cilium_metrics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drops {
    pub counts: Fact<Vec<DropCount>>,
    /// The kernel's id of the map, given out once only; none: it could not be opened.
    pub map: Option<u32>,
}

impl Drops {
    /// The counts, if they go on from a reading of the map with this id. An agent that restarts in between may pin
    /// another map under the same name, and a difference across both would be made up.
    #[must_use]
    pub fn since(self, before: Option<u32>) -> Fact<Vec<DropCount>> {
        match (before, self.map) {
            (Some(before), Some(after)) if before != after => {
                let why =
                    format!("map {before} was replaced by map {after} meanwhile: the counts before are another's");
                Fact::unavailable(why, self.counts.source())
            }
            _ => self.counts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_another_map_are_not_compared() {
        let counts = Fact::known(vec![DropCount { reason: 169, direction: 2, packets: 7 }], "cilium_metrics");
        let drops = Drops { counts: counts.clone(), map: Some(12) };
        assert_eq!(drops.clone().since(Some(12)), counts);
        assert_eq!(drops.clone().since(None), counts, "nothing was read before, so nothing is compared");
        let replaced = drops.since(Some(11));
        assert!(replaced.why().is_some_and(|why| why.contains("map 11 was replaced by map 12")), "{replaced:?}");
        let gone = Drops { counts: Fact::unavailable("no such map", "cilium_metrics"), map: None };
        assert_eq!(gone.since(Some(11)).why(), Some("no such map"));
    }
}
