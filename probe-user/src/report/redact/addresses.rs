//! IP and Ethernet addresses within a text.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::target::HOST_DNS_V6;

/// RFC 2544's range for benchmarks, 131 072 addresses: the ranges for documentation are too small for a cluster.
const V4_BASE: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// RFC 3849.
const V6_BASE: u128 = 0x2001_0db8 << 96;
/// Locally administered.
const MAC_BASE: u64 = 0x0200_0000_0000;

/// What stands for which address.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    ips: BTreeMap<IpAddr, IpAddr>,
    macs: BTreeMap<String, String>,
}

impl Addresses {
    /// The text with each address in it replaced.
    pub(super) fn replace(&mut self, text: &str) -> String {
        let mut replaced = String::with_capacity(text.len());
        let mut rest = text;
        let mut before = None;
        while let Some(first) = rest.chars().next() {
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            if end == 0 {
                replaced.push(first);
                before = Some(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let (run, after) = rest.split_at(end);
            // Letters right before or behind: a word that only looks like one.
            let within_word = before.is_some_and(char::is_alphanumeric) || after.starts_with(char::is_alphanumeric);
            replaced.push_str(&if within_word { run.to_owned() } else { self.run(run) });
            before = run.chars().next_back();
            rest = after;
        }
        replaced
    }

    /// A run of digits, letters up to f, dots and colons; punctuation may hang on to it, and a port.
    fn run(&mut self, run: &str) -> String {
        let core = run.trim_end_matches(['.', ':']);
        let (tail, lead) = (&run[core.len()..], core.len() - core.trim_start_matches('.').len());
        let (lead, core) = core.split_at(lead);
        format!("{lead}{}{tail}", self.address(core).unwrap_or_else(|| core.to_owned()))
    }

    fn address(&mut self, text: &str) -> Option<String> {
        if let Ok(ip) = text.parse() {
            return Some(self.ip(ip).to_string());
        }
        if let Some((ip, port)) = text.split_once(':')
            && let Ok(ip) = ip.parse::<Ipv4Addr>()
        {
            return Some(format!("{}:{port}", self.ip(ip.into())));
        }
        let is_mac = text.len() == 17 && text.split(':').count() == 6 && text.split(':').all(|part| part.len() == 2);
        is_mac.then(|| self.mac(text))
    }

    fn ip(&mut self, ip: IpAddr) -> IpAddr {
        if is_well_known(ip) {
            return ip;
        }
        let (v4, v6) =
            self.ips.keys().fold((1, 1), |(v4, v6), ip| if ip.is_ipv4() { (v4 + 1, v6) } else { (v4, v6 + 1) });
        *self.ips.entry(ip).or_insert_with(|| match ip {
            IpAddr::V4(_) => Ipv4Addr::from_bits(V4_BASE + v4).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(V6_BASE + v6).into(),
        })
    }

    fn mac(&mut self, mac: &str) -> String {
        if mac == "00:00:00:00:00:00" {
            return mac.to_owned();
        }
        let number = MAC_BASE + self.macs.len() as u64 + 1;
        let made = || number.to_be_bytes()[2..].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
        self.macs.entry(mac.to_ascii_lowercase()).or_insert_with(made).clone()
    }
}

const fn is_part(c: char) -> bool {
    c.is_ascii_hexdigit() || c == '.' || c == ':'
}

/// The same on every node, so that it tells nothing of this one.
fn is_well_known(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified() || v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || ip == HOST_DNS_V6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_sentences_flows_and_prefixes() {
        let mut all = Addresses::default();
        for (text, expected) in [
            ("10.0.0.1:41334 → 169.254.116.108:53", "198.18.0.1:41334 → 169.254.116.108:53"),
            ("from 10.0.0.1, then 10.0.0.2.", "from 198.18.0.1, then 198.18.0.2."),
            ("10.0.0.0/16", "198.18.0.3/16"),
            ("[fd00::1]:53 and fd00::1%eth0", "[2001:db8::1]:53 and 2001:db8::1%eth0"),
            ("fe80::1: timed out", "2001:db8::2: timed out"),
            ("dns://10.0.0.2:53", "dns://198.18.0.2:53"),
            ("aa:bb:cc:dd:ee:ff, AA:BB:CC:DD:EE:FF", "02:00:00:00:00:01, 02:00:00:00:00:01"),
            ("0.0.0.0/0 ::/0 127.0.0.53:53 ::1", "0.0.0.0/0 ::/0 127.0.0.53:53 ::1"),
            (
                "Cilium 1.16.5, 09:26:53, lxc5f2a1, x10.0.0.1, cafe",
                "Cilium 1.16.5, 09:26:53, lxc5f2a1, x10.0.0.1, cafe",
            ),
        ] {
            assert_eq!(all.replace(text), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived_and_no_address_is(ip: [u8; 4], around in "[a-z ,.:/→()]{0,5}") {
            let ip = Ipv4Addr::from(ip);
            proptest::prop_assume!(!is_well_known(ip.into()) && !around.ends_with(|c: char| c.is_alphanumeric() || ".:".contains(c)));
            proptest::prop_assume!(ip.octets()[0] != 198);
            let replaced = Addresses::default().replace(&format!("{around}{ip}"));
            proptest::prop_assert!(!replaced.contains(&ip.to_string()), "{}", replaced);
        }
    }
}
