//! Sequence numbers in the names asked for: what a tracer prints is searched for them, whatever else it prints.

/// `q0000123.bench.test`: of one length, so that the number stands at one place in the packet.
const SUFFIX: &[u8] = b"\x05bench\x04test\x00";
const DIGITS: usize = 7;

/// A query for sequence number `number`, type A. Its DNS id is the number's low half.
pub fn query(number: u32) -> Vec<u8> {
    let mut message = (number as u16).to_be_bytes().to_vec();
    message.extend_from_slice(b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x08");
    message.extend_from_slice(label(number).as_bytes());
    message.extend_from_slice(SUFFIX);
    message.extend_from_slice(b"\x00\x01\x00\x01");
    message
}

/// The same name in presentation form.
pub fn name(number: u32) -> String {
    format!("{}.bench.test", label(number))
}

pub fn label(number: u32) -> String {
    format!("q{number:0DIGITS$}")
}

/// The number in a message of ours, query or answer.
pub fn number(message: &[u8]) -> Option<u32> {
    parse(message.get(13..13 + 1 + DIGITS)?)
}

fn parse(label: &[u8]) -> Option<u32> {
    let (b'q', digits) = label.split_first()? else { return None };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Which numbers were seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    bits: Vec<u64>,
}

impl Seen {
    pub fn insert(&mut self, number: u32) {
        let (word, bit) = (number as usize / 64, number % 64);
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= 1 << bit;
    }

    pub fn contains(&self, number: u32) -> bool {
        self.bits.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// How many of a range.
    pub fn count(&self, range: std::ops::Range<u32>) -> u32 {
        u32::try_from(range.filter(|number| self.contains(*number)).count()).unwrap_or(u32::MAX)
    }

    /// Takes in every number in a piece of output. What may be the beginning of one at its end is handed back, to be
    /// put before the next piece.
    pub fn scan<'a>(&mut self, text: &'a [u8]) -> &'a [u8] {
        const LEN: usize = 1 + DIGITS;
        for window in text.windows(LEN) {
            if let Some(number) = parse(window) {
                self.insert(number);
            }
        }
        &text[text.len() - text.len().min(LEN - 1)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_carries_its_number() {
        let message = query(1_234_567);
        assert_eq!(number(&message), Some(1_234_567));
        assert_eq!(message.len(), 12 + 9 + SUFFIX.len() + 4);
        assert_eq!(number(&message[..20]), None);
        assert_eq!(number(b"something else that is long enough"), None);
    }

    #[test]
    fn numbers_are_found_in_what_tcpdump_and_bpftrace_print() {
        let mut seen = Seen::default();
        seen.scan(b"IP 10.0.0.2.4000 > 10.0.0.1.53: 57+ A? q0000057.bench.test. (38)\n");
        seen.scan(b"\\x01\\x08q0000058\\x05bench\n q00x0059 q000006");
        assert_eq!((0..100).filter(|number| seen.contains(*number)).collect::<Vec<_>>(), [57, 58]);
        assert_eq!(seen.count(0..58), 1);
    }

    #[test]
    fn a_number_cut_in_two_is_found_once() {
        let (mut seen, text) = (Seen::default(), b"A? q0000001.bench A? q0000002.bench");
        for cut in 0..text.len() {
            let mut rest = seen.scan(&text[..cut]).to_vec();
            rest.extend_from_slice(&text[cut..]);
            seen.scan(&rest);
            assert_eq!((0..100).filter(|number| seen.contains(*number)).collect::<Vec<_>>(), [1, 2]);
            seen = Seen::default();
        }
    }
}
