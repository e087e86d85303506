//! The node's packet filter: base chains of nftables that can drop what comes in (include/uapi/linux/netfilter/
//! nf_tables.h; numbers in attributes are in network order). iptables-nft is among them; legacy iptables is not.
//!
//! The few attributes wanted are read here: netlink-packet-netfilter 0.4 knows these messages, but panics where an
//! expression's data is cut short (`Immediate`, `Cmp`, `Bitwise`), and gives a rule up for one expression it cannot read.

use std::{collections::HashMap, io, time::Duration};

use netlink_packet_core::{NLA_HEADER_SIZE, NlasIterator};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::bytes::{be32_at, byte, text};
use crate::{
    facts::{Fact, Firewall, FirewallChain},
    netlink::{Error, Message, Netlink},
};

const SOURCE: &str = "nf_tables";
const LIMIT: Duration = Duration::from_millis(500);
const NFNL_SUBSYS_NFTABLES: u16 = 10 << 8;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETRULE: u16 = 7;

/// Reads the filter of the calling thread's namespace. A drop in a chain that a base chain jumps to is not counted.
pub(super) fn read() -> Fact<Firewall> {
    match tables_and_chains() {
        Ok((tables, chains)) => Fact::known(Firewall { tables, chains }, SOURCE),
        Err(Error::Refused(e) | Error::Socket { source: e, .. }) if is_absent(&e) => {
            Fact::unavailable(format!("this kernel has no nf_tables ({e})"), SOURCE)
        }
        Err(Error::Refused(e)) if e.kind() == io::ErrorKind::PermissionDenied => {
            Fact::unavailable(format!("{e}; CAP_NET_ADMIN is needed"), SOURCE)
        }
        Err(e) => Fact::unavailable(e, SOURCE),
    }
}

fn is_absent(error: &io::Error) -> bool {
    let absent = [libc::EINVAL, libc::EOPNOTSUPP, libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT, libc::ENOENT];
    error.raw_os_error().is_some_and(|code| absent.contains(&code))
}

fn tables_and_chains() -> Result<(Vec<String>, Vec<FirewallChain>), Error> {
    let netlink = Netlink::open(NETLINK_NETFILTER, LIMIT)?;
    let every = |kind| Message {
        kind: NFNL_SUBSYS_NFTABLES | kind,
        payload: vec![0; 4], // struct nfgenmsg, NFPROTO_UNSPEC: of every family
    };
    let tables = netlink.dump(every(NFT_MSG_GETTABLE))?.iter().filter_map(|m| table(&m.payload)).collect();
    let found = netlink.dump(every(NFT_MSG_GETCHAIN))?;
    let mut chains: Vec<_> = found.iter().filter_map(|m| base_chain(&m.payload)).filter(is_on_the_way_in).collect();
    if chains.is_empty() {
        return Ok((tables, chains));
    }
    count(netlink.dump(every(NFT_MSG_GETRULE))?.iter().map(|message| message.payload.as_slice()), &mut chains);
    chains.retain(|chain| chain.drops_by_default || chain.dropping_rules > 0);
    Ok((tables, chains))
}

/// Counts the rules that drop or reject, each in its chain.
fn count<'a>(rules: impl Iterator<Item = &'a [u8]>, chains: &mut [FirewallChain]) {
    let mut found = HashMap::<_, (u32, u32)>::new();
    for (place, end) in rules.filter_map(dropping_rule) {
        let (dropping, rejecting) = found.entry(place).or_default();
        *dropping += 1;
        *rejecting += u32::from(end == End::Reject);
    }
    for chain in chains {
        let place = (chain.family.clone(), chain.table.clone(), chain.chain.clone());
        (chain.dropping_rules, chain.rejecting_rules) = found.get(&place).copied().unwrap_or_default();
    }
}

/// `family name`: NFTA_TABLE_NAME 1.
fn table(payload: &[u8]) -> Option<String> {
    let name = text(Attributes(payload.get(4..)?).find(1)?);
    Some(format!("{} {name}", family(byte(payload, 0)?)?))
}

/// The attributes of a message, or in another attribute. Ends at the first one that is malformed.
#[derive(Clone, Copy)]
struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Types, and what is in them.
    fn all(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let whole = NlasIterator::new(self.0).map_while(Result::ok);
        whole.filter_map(|nla| Some((nla.kind(), nla.into_inner().get(NLA_HEADER_SIZE..nla.length().into())?)))
    }

    fn find(self, kind: u16) -> Option<&'a [u8]> {
        self.all().find_map(|(found, payload)| (found == kind).then_some(payload))
    }

    /// Those nested in the first attribute of this type; none, when it is missing.
    fn nested(self, kind: u16) -> Self {
        Self(self.find(kind).unwrap_or_default())
    }
}

fn is_on_the_way_in(chain: &FirewallChain) -> bool {
    matches!(chain.hook.as_str(), "input" | "prerouting" | "ingress" | "forward")
}

/// NFPROTO_* that IP packets pass (include/uapi/linux/netfilter.h).
fn family(number: u8) -> Option<&'static str> {
    Some(match number {
        1 => "inet",
        2 => "ip",
        5 => "netdev",
        10 => "ip6",
        _ => return None,
    })
}

/// A chain with a hook. After `struct nfgenmsg` (family 0:1, version 1:1, res_id 2:2): NFTA_CHAIN_TABLE 1, NAME 3,
/// HOOK 4 (HOOKNUM 1, PRIORITY 2), POLICY 5.
fn base_chain(payload: &[u8]) -> Option<FirewallChain> {
    const NF_DROP: u32 = 0;
    let family = family(byte(payload, 0)?)?;
    let attributes = Attributes(payload.get(4..)?);
    let hook = Attributes(attributes.find(4)?);
    let number = be32_at(hook.find(1)?, 0)?;
    let names = match family {
        "netdev" => ["ingress", "egress", "", "", "", ""],
        _ => ["prerouting", "input", "forward", "output", "postrouting", "ingress"],
    };
    Some(FirewallChain {
        family: family.into(),
        table: text(attributes.find(1)?),
        chain: text(attributes.find(3)?),
        hook: (*names.get(usize::try_from(number).ok()?)?).into(),
        priority: hook.find(2).and_then(|b| be32_at(b, 0)).map_or(0, u32::cast_signed),
        drops_by_default: attributes.find(5).and_then(|b| be32_at(b, 0)) == Some(NF_DROP),
        dropping_rules: 0,
        rejecting_rules: 0,
    })
}

/// What a rule does to a packet that it does not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Drop,
    Reject,
}

/// Family, table and chain of a rule that drops or rejects, and which. NFTA_RULE_TABLE 1, CHAIN 2, EXPRESSIONS 4: a list of
/// NFTA_LIST_ELEM 1 with NFTA_EXPR_NAME 1 and DATA 2.
fn dropping_rule(payload: &[u8]) -> Option<((String, String, String), End)> {
    let family = family(byte(payload, 0)?)?;
    let attributes = Attributes(payload.get(4..)?);
    let mut expressions = attributes.nested(4).all().filter(|(kind, _)| *kind == 1);
    let end = expressions.find_map(|(_, expression)| ends(Attributes(expression)))?;
    Some(((family.into(), text(attributes.find(1)?), text(attributes.find(2)?)), end))
}

fn ends(expression: Attributes<'_>) -> Option<End> {
    let data = expression.nested(2);
    match text(expression.find(1).unwrap_or_default()).as_str() {
        "reject" => Some(End::Reject),
        // NFTA_IMMEDIATE_DREG 1 is the verdict register (0), and DATA 2, VERDICT 2, CODE 1 is NF_DROP (0).
        "immediate" => {
            let number = |bytes: Option<&[u8]>| bytes.and_then(|b| be32_at(b, 0));
            let drops = number(data.find(1)) == Some(0) && number(data.nested(2).nested(2).find(1)) == Some(0);
            drops.then_some(End::Drop)
        }
        // iptables-nft: NFTA_TARGET_NAME 1.
        "target" => data.find(1).filter(|name| text(name) == "REJECT").map(|_| End::Reject),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attribute;

    fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
        parts.concat()
    }

    fn chain(family: u8, hook: u32, policy: u32) -> Vec<u8> {
        let hook = joined(&[attribute(1, &hook.to_be_bytes()), attribute(2, &(-5_i32).to_be_bytes())]);
        joined(&[
            vec![family, 0, 0, 0],
            attribute(1, b"talos\0"),
            attribute(3, b"ingress\0"),
            attribute(4 | 0x8000, &hook),
            attribute(5, &policy.to_be_bytes()),
        ])
    }

    fn rule(name: &[u8], data: &[u8]) -> Vec<u8> {
        let expression = joined(&[attribute(1, name), attribute(2 | 0x8000, data)]);
        let other = attribute(1, b"counter\0");
        let list = joined(&[attribute(1 | 0x8000, &other), attribute(1 | 0x8000, &expression)]);
        joined(&[vec![1, 0, 0, 0], attribute(1, b"talos\0"), attribute(2, b"ingress\0"), attribute(4 | 0x8000, &list)])
    }

    fn verdict(code: i32) -> Vec<u8> {
        let verdict = attribute(2, &attribute(1, &code.to_be_bytes()));
        joined(&[attribute(1, &0_u32.to_be_bytes()), attribute(2, &verdict)])
    }

    #[test]
    fn an_ingress_firewall_is_an_input_chain_that_drops() {
        let found = base_chain(&chain(1, 1, 0)).unwrap();
        assert_eq!((found.family.as_str(), found.hook.as_str(), found.priority), ("inet", "input", -5));
        assert!(found.drops_by_default && is_on_the_way_in(&found));
        assert!(!base_chain(&chain(1, 0, 1)).unwrap().drops_by_default);
        assert_eq!(base_chain(&chain(5, 0, 1)).unwrap().hook, "ingress");
        assert_eq!(base_chain(&chain(3, 0, 1)), None, "ARP is not IP");
        assert_eq!(base_chain(&chain(1, 77, 1)), None);
    }

    #[test]
    fn drop_and_reject_drop_and_accept_does_not() {
        let place = || ("inet".into(), "talos".into(), "ingress".into());
        assert_eq!(dropping_rule(&rule(b"immediate\0", &verdict(0))), Some((place(), End::Drop)));
        assert_eq!(dropping_rule(&rule(b"immediate\0", &verdict(1))), None);
        assert_eq!(dropping_rule(&rule(b"reject\0", &[])), Some((place(), End::Reject)));
        assert_eq!(dropping_rule(&rule(b"target\0", &attribute(1, b"REJECT\0"))), Some((place(), End::Reject)));
        assert_eq!(dropping_rule(&rule(b"target\0", &attribute(1, b"LOG\0"))), None);
    }

    #[test]
    fn those_that_reject_are_counted_among_those_that_drop() {
        let mut chains = vec![base_chain(&chain(1, 1, 1)).unwrap()];
        let rules = [rule(b"immediate\0", &verdict(0)), rule(b"reject\0", &[]), rule(b"immediate\0", &verdict(1))];
        count(rules.iter().map(Vec::as_slice), &mut chains);
        assert_eq!((chains[0].dropping_rules, chains[0].rejecting_rules), (2, 1));
        count([].into_iter(), &mut chains);
        assert_eq!((chains[0].dropping_rules, chains[0].rejecting_rules), (0, 0));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120)) {
            let _table = table(&bytes);
            let _chain = base_chain(&bytes);
            let _rule = dropping_rule(&bytes);
        }

        #[test]
        fn an_expression_cut_short_is_survived(data in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            let _rule = dropping_rule(&rule(b"immediate\0", &data));
        }
    }
}
