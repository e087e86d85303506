//! Cilium's version numbers, and what changed where (cilium git, every patch tag from 1.15.0 to 1.19.0-pre.0).

use std::{cmp::Ordering, fmt};

/// `1.18.1`, `1.19.0-pre.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
    /// `pre.0`, `rc.1`; a vendor's suffix (`-cee.1`) is no pre-release and is left out.
    pre: Option<String>,
}

/// Of each branch, as of September 2025.
const NEWEST_READ: [Version; 4] =
    [Version::new(1, 15, 19), Version::new(1, 16, 14), Version::new(1, 17, 7), Version::new(1, 18, 2)];

impl Version {
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch, pre: None }
    }

    /// Reads the version at the head of what the agent says: `1.18.1 (v1.18.1-4a1a7b2)`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let word = text.split_whitespace().next()?;
        let word = word.strip_prefix('v').unwrap_or(word);
        let (numbers, suffix) = word.split_once('-').map_or((word, None), |(n, s)| (n, Some(s)));
        let mut parts = numbers.split('.');
        let mut next = || parts.next()?.parse::<u32>().ok();
        let (major, minor, patch) = (next()?, next()?, next()?);
        let pre = suffix
            .filter(|s| ["pre", "rc", "snapshot", "alpha", "beta", "dev"].iter().any(|p| s.starts_with(p)))
            .map(str::to_owned);
        Some(Self { major, minor, patch, pre })
    }

    const fn in_minor(&self, major: u32, minor: u32) -> bool {
        self.major == major && self.minor == minor
    }

    /// Newer than anything that was measured (1.19.0-pre.0).
    #[must_use]
    pub fn is_beyond_measured(&self) -> bool {
        *self > Self { pre: Some("pre.0".into()), ..Self::new(1, 19, 0) }
    }

    /// The newest release read of its branch, where this one is newer. Release notes of 1.17.8 and 1.18.3 to 1.18.12 name no
    /// change of what is predicted here.
    #[must_use]
    pub fn read_instead(&self) -> Option<Self> {
        let read = NEWEST_READ.into_iter().find(|read| self.in_minor(read.major, read.minor))?;
        (*self > read).then_some(read)
    }

    /// Older than anything whose source was read.
    #[must_use]
    pub fn is_before_known(&self) -> bool {
        *self < Self::new(1, 15, 0)
    }

    /// In tunnel mode a packet to an address without a tunnel endpoint goes to the stack (until 2932ac49db).
    #[must_use]
    pub fn tunnel_passes_to_stack(&self) -> bool {
        *self < Self::new(1, 16, 5)
    }

    /// A FIB lookup that says "local" is passed to the stack instead of dropped (4415e131d4, 3e9dc950e5).
    #[must_use]
    pub fn passes_local_fib_result(&self) -> bool {
        if self.in_minor(1, 18) { *self >= Self::new(1, 18, 2) } else { self.major > 1 || self.minor >= 19 }
    }

    /// Addresses on `lo` (127/8 aside) are taken for the host's.
    #[must_use]
    pub fn learns_from_lo(&self) -> bool {
        if self.in_minor(1, 15) { self.patch >= 8 } else { *self >= Self::new(1, 16, 1) }
    }

    /// Addresses on devices that Cilium was not given as its own are taken for the host's: always, only when the
    /// device is up, or never.
    #[must_use]
    pub fn learns_from_unselected(&self, up: bool) -> bool {
        if self.in_minor(1, 15) { self.patch < 8 && up } else { *self >= Self::new(1, 17, 0) }
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.major, self.minor, self.patch).cmp(&(other.major, other.minor, other.patch)).then_with(|| {
            match (&self.pre, &other.pre) {
                (None, None) => Ordering::Equal,
                (None, Some(_)) => Ordering::Greater,
                (Some(_), None) => Ordering::Less,
                (Some(a), Some(b)) => pre_key(a).cmp(&pre_key(b)),
            }
        })
    }
}

/// `rc.10` comes after `rc.9`.
fn pre_key(pre: &str) -> (String, u32) {
    let (name, number) = pre.split_once('.').unwrap_or((pre, "0"));
    (name.to_owned(), number.split(['-', '+']).next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        self.pre.as_ref().map_or(Ok(()), |pre| write!(f, "-{pre}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).expect(text)
    }

    #[test]
    fn reads_what_agents_say() {
        assert_eq!(version("1.16.4 (v1.16.4-0380724290)").to_string(), "1.16.4");
        assert_eq!(version("v1.19.0-pre.0").to_string(), "1.19.0-pre.0");
        assert_eq!(version("1.16.5-cee.1"), version("1.16.5"));
        for bad in ["", "latest", "1.18", "1.x.3"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn orders_releases() {
        let sorted = ["1.15.7", "1.16.0", "1.16.10", "1.18.1", "1.19.0-pre.0", "1.19.0-pre.1", "1.19.0-rc.0", "1.19.0"];
        assert!(sorted.map(version).is_sorted());
        assert!(!version("1.19.0-pre.0").is_beyond_measured());
        for newer in ["1.19.0-pre.1", "1.19.0-rc.0", "1.19.0", "1.20.1", "2.0.0"] {
            assert!(version(newer).is_beyond_measured(), "{newer}");
        }
    }

    #[test]
    fn patches_that_were_not_read_are_taken_for_those_that_were() {
        for read in ["1.15.0", "1.16.14", "1.17.7", "1.18.1", "1.18.2", "1.19.0-pre.0"] {
            assert_eq!(version(read).read_instead(), None, "{read}");
        }
        assert_eq!(version("1.17.8").read_instead(), Some(version("1.17.7")));
        assert_eq!(version("1.18.12").read_instead(), Some(version("1.18.2")));
    }

    #[test]
    fn knows_the_switches() {
        assert!(version("1.16.4").tunnel_passes_to_stack() && !version("1.16.5").tunnel_passes_to_stack());
        assert!(!version("1.18.1").passes_local_fib_result() && version("1.18.2").passes_local_fib_result());
        assert!(!version("1.17.9").passes_local_fib_result() && version("1.19.0-pre.0").passes_local_fib_result());
        assert_eq!(
            ["1.15.7", "1.15.8", "1.16.0", "1.16.1", "1.17.0"].map(|v| version(v).learns_from_lo()),
            [false, true, false, true, true]
        );
        assert_eq!(
            ["1.15.7", "1.15.8", "1.16.4", "1.17.0"].map(|v| version(v).learns_from_unselected(true)),
            [true, false, false, true]
        );
        assert!(version("1.17.0").learns_from_unselected(false) && !version("1.15.0").learns_from_unselected(false));
    }
}
