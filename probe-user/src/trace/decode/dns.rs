//! The head of a DNS message (RFC 1035, section 4.1), as far as it was captured.

use std::fmt::Write as _;

use crate::{facts::Transport, trace::event::DnsHead};

/// Header and first question of the message at the start of a UDP or TCP payload.
#[must_use]
pub fn head(payload: &[u8], transport: Transport) -> Option<DnsHead> {
    match transport {
        Transport::Udp => message_head(payload),
        // A length goes before (RFC 1035, section 4.2.2). Some senders put it into a segment of its own; then the next
        // one begins with the message. A first word below 12 cannot be a length.
        Transport::Tcp => {
            let behind_length = match payload {
                [high, low, message @ ..] if u16::from_be_bytes([*high, *low]) >= 12 => message_head(message),
                _ => None,
            };
            let bare = || message_head(payload).filter(|head| asks_one(payload) && head.qname.is_some());
            match behind_length {
                Some(head) if asks_one(&payload[2..]) => Some(head),
                other => bare().or(other),
            }
        }
    }
}

/// One question, as every query has that resolvers answer.
fn asks_one(message: &[u8]) -> bool {
    message.get(4..6) == Some(&[0, 1])
}

fn message_head(message: &[u8]) -> Option<DnsHead> {
    let header = message.get(..12)?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (qname, qtype) = if word(4) == 0 { (None, None) } else { question(&message[12..]) };
    Some(DnsHead { id: word(0), flags: word(2), qname, qtype })
}

/// The mnemonic of a response code as dig prints it (IANA, DNS RCODEs).
#[must_use]
pub fn rcode(code: u16) -> String {
    let name = match code {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        16 => "BADVERS",
        23 => "BADCOOKIE",
        other => return format!("RCODE{other}"),
    };
    name.to_owned()
}

/// Name and type of a question; none for what was cut off. The first name of a message has nothing to point back to.
fn question(mut bytes: &[u8]) -> (Option<String>, Option<u16>) {
    let mut name = String::new();
    loop {
        match bytes {
            [0, rest @ ..] => {
                if name.is_empty() {
                    name.push('.');
                }
                let qtype = rest.get(..2).map(|word| u16::from_be_bytes([word[0], word[1]]));
                return (Some(name), qtype);
            }
            [len @ 1..=63, rest @ ..] if rest.len() >= usize::from(*len) && name.len() <= 1024 => {
                let (label, rest) = rest.split_at(usize::from(*len));
                for &byte in label {
                    push_escaped(&mut name, byte);
                }
                name.push('.');
                bytes = rest;
            }
            _ => return (None, None),
        }
    }
}

/// The first name of a message cannot be one, however it goes on where it was cut off: a label of an impossible length, or
/// too many of them (RFC 1035, section 2.3.4).
#[must_use]
pub fn is_broken(message: &[u8]) -> bool {
    let mut rest = message.get(12..).unwrap_or_default();
    let mut length = 0;
    while let [label, behind @ ..] = rest {
        length += 1 + usize::from(*label);
        match label {
            0 => return length > 255,
            1..=63 if length <= 255 => rest = behind.get(usize::from(*label)..).unwrap_or_default(),
            _ => return true,
        }
    }
    false
}

/// RFC 1035, section 5.1: a dot or backslash within a label, and what cannot be printed.
fn push_escaped(name: &mut String, byte: u8) {
    match byte {
        b'.' | b'\\' => {
            name.push('\\');
            name.push(char::from(byte));
        }
        0x21..=0x7e => name.push(char::from(byte)),
        _ => {
            // Writing to a String does not fail.
            let _ = write!(name, "\\{byte:03}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\xab\xcd\x81\x83\x00\x01\x00\x00\x00\x00\x00\x00\x03w.w\x02\x07x\x00\x00\x1c\x00\x01";

    #[test]
    fn names_are_escaped() {
        let head = head(QUERY, Transport::Udp).unwrap();
        assert_eq!(head.qname.as_deref(), Some(r"w\.w.\007x."));
        assert_eq!((head.id, head.rcode(), head.is_response(), head.qtype), (0xabcd, 3, true, Some(28)));
    }

    #[test]
    fn tcp_has_a_length_before_it() {
        let mut stream = (QUERY.len() as u16).to_be_bytes().to_vec();
        stream.extend(QUERY);
        assert_eq!(head(&stream, Transport::Tcp).unwrap().id, 0xabcd);
        assert_eq!(head(&stream[..2], Transport::Tcp), None);
    }

    #[test]
    fn a_length_may_come_in_a_segment_of_its_own() {
        assert_eq!(head(QUERY, Transport::Tcp), head(QUERY, Transport::Udp));
    }

    #[test]
    fn what_was_cut_off_is_not_made_up() {
        assert_eq!(head(&QUERY[..11], Transport::Udp), None);
        let cut = head(&QUERY[..18], Transport::Udp).unwrap();
        assert_eq!((cut.qname, cut.qtype), (None, None));
    }

    #[test]
    fn a_name_that_cannot_be_one_is_told_from_one_that_was_cut_off() {
        assert!(!is_broken(QUERY) && !is_broken(&QUERY[..18]) && !is_broken(&QUERY[..9]));
        let with = |name: &[u8]| [&QUERY[..12], name].concat();
        assert!(is_broken(&with(b"\x03abc\xc0\x0c")) && is_broken(&with(b"\x40")));
        assert!(is_broken(&with(&[&[63; 64][..]; 4].concat())) && !is_broken(&with(&[63; 64])));
    }

    #[test]
    fn a_pointer_is_no_first_name() {
        let mut query = QUERY.to_vec();
        query[12] = 0xc0;
        assert_eq!(head(&query, Transport::Udp).unwrap().qname, None);
    }
}
