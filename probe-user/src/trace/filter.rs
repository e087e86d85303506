//! Which transactions are shown.

use std::{net::IpAddr, str::FromStr, time::Duration};

use glob::Pattern;

use super::transaction::Transaction;
use crate::ended::Ended;

/// All that was asked for must hold; of what was given several times, one.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub from: Vec<From>,
    pub qname: Vec<NameFilter>,
    /// As `A`, `AAAA`, `TYPE65`; compared without case.
    pub qtype: Vec<String>,
    pub rcode: Vec<String>,
    pub ended: Vec<Ended>,
    pub slower_than: Option<Duration>,
}

impl Filter {
    #[must_use]
    pub fn matches(&self, transaction: &Transaction) -> bool {
        let any = |wanted: &[String], is: Option<&str>| {
            wanted.is_empty() || is.is_some_and(|is| wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(is)))
        };
        let slow =
            |limit: Duration| transaction.latency.total_us.is_some_and(|total| u128::from(total) > limit.as_micros());
        (self.from.is_empty() || self.from.iter().any(|from| from.matches(transaction)))
            && (self.qname.is_empty()
                || transaction
                    .qname
                    .as_deref()
                    .is_some_and(|name| self.qname.iter().any(|wanted| wanted.matches(name))))
            && any(&self.qtype, transaction.qtype.as_deref())
            && any(&self.rcode, transaction.rcode.as_deref())
            && (self.ended.is_empty() || self.ended.contains(&transaction.ended))
            && self.slower_than.is_none_or(slow)
    }
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A pod's name, or `namespace/name`; `node` for the node itself.
    Name(Pattern),
    /// An address, or all of a network.
    Network { address: IpAddr, prefix: u8 },
}

/// Why something is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("`{0}` is no glob: {1}; * and ? stand for anything, [ab] for one of several")]
    Glob(String, String),
    #[error("`/{0}` is no prefix length for {1}")]
    Prefix(String, IpAddr),
    #[error("it is empty")]
    Empty,
}

impl FromStr for From {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network { address, prefix: bits(address) });
        }
        if let Some((address, len)) = text.split_once('/')
            && let Ok(address) = address.parse::<IpAddr>()
        {
            let prefix = len.parse::<u8>().ok().filter(|&prefix| prefix <= bits(address));
            return prefix
                .map(|prefix| Self::Network { address, prefix })
                .ok_or_else(|| Error::Prefix(len.to_owned(), address));
        }
        glob(text).map(Self::Name)
    }
}

impl From {
    fn matches(&self, transaction: &Transaction) -> bool {
        match self {
            Self::Name(glob) => match &transaction.pod {
                Some(pod) => glob.matches(&pod.name) || glob.matches(&pod.to_string()),
                None => glob.matches(&transaction.netns),
            },
            Self::Network { address, prefix } => within(transaction.flow.src.ip(), *address, *prefix),
        }
    }
}

const fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn within(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(prefix),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(prefix),
        _ => false,
    }
}

/// Which names, without case and the last dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameFilter {
    Exact(String),
    /// `.example.com`: that name and all below it.
    Suffix(String),
    Glob(Pattern),
}

impl FromStr for NameFilter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let name = normal(text);
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if text.contains(['*', '?', '[']) {
            return glob(&name).map(Self::Glob);
        }
        Ok(match name.strip_prefix('.') {
            Some(suffix) if !suffix.is_empty() => Self::Suffix(suffix.to_owned()),
            _ => Self::Exact(name),
        })
    }
}

impl NameFilter {
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let name = normal(name);
        match self {
            Self::Exact(wanted) => name == *wanted,
            Self::Suffix(suffix) => {
                name.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Self::Glob(glob) => glob.matches(&name),
        }
    }
}

/// Lower case, without the last dot (the root keeps its own).
fn normal(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.strip_suffix('.') {
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => name,
    }
}

fn glob(text: &str) -> Result<Pattern, Error> {
    if text.is_empty() {
        return Err(Error::Empty);
    }
    Pattern::new(text).map_err(|error| Error::Glob(text.to_owned(), error.msg.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_a_suffix_or_a_glob() {
        let matches = |filter: &str, name: &str| filter.parse::<NameFilter>().expect("a filter").matches(name);
        assert!(matches("Example.com", "example.COM."));
        assert!(!matches("example.com", "www.example.com."));
        assert!(matches(".example.com", "www.example.com.") && matches(".example.com.", "example.com."));
        assert!(!matches(".example.com", "badexample.com."));
        assert!(matches("*.svc.*", "a.b.svc.cluster.local.") && matches(".", "."));
        assert_eq!("".parse::<NameFilter>(), Err(Error::Empty));
        assert!("[a".parse::<NameFilter>().is_err());
    }

    #[test]
    fn askers_are_pods_addresses_or_networks() {
        let network = |text: &str| match text.parse::<From>() {
            Ok(From::Network { address, prefix }) => (address, prefix),
            other => panic!("{other:?}"),
        };
        assert_eq!(network("10.244.1.0/24").1, 24);
        assert_eq!(network("fd00::1").1, 128);
        assert!(matches!("kube-system/coredns-*".parse(), Ok(From::Name(_))));
        assert!(matches!("10.0.0.0/33".parse::<From>(), Err(Error::Prefix(..))));
        let ip = |text: &str| text.parse().expect("an address");
        assert!(within(ip("10.244.1.9"), ip("10.244.1.0"), 24) && !within(ip("10.244.2.9"), ip("10.244.1.0"), 24));
        assert!(within(ip("10.0.0.1"), ip("192.168.0.1"), 0) && !within(ip("::1"), ip("0.0.0.0"), 0));
    }
}
