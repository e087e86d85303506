//! Reading bytes that the kernel wrote, never trusting their number.

/// `N` bytes at `offset`; `None` past the end.
pub(super) fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// A u8 at `offset`.
pub(super) fn byte(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

/// A u16 in host byte order.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_ne_bytes)
}

/// A u32 in host byte order.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_ne_bytes)
}

/// A u16 in network byte order.
pub(super) fn be16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_be_bytes)
}

/// A u32 in network byte order.
pub(super) fn be32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_be_bytes)
}

/// Text up to the first NUL, what is not UTF-8 replaced.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// An IP address of 4 or 16 bytes, network byte order.
pub(super) fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    match bytes.len() {
        4 => array::<4>(bytes, 0).map(Into::into),
        16 => array::<16>(bytes, 0).map(Into::into),
        _ => None,
    }
}

/// The attributes (`struct nlattr`, include/uapi/linux/netlink.h) in a netlink message: type without its two flag
/// bits, and payload. Ends at the first one that is malformed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The payload of the first attribute of this type.
    pub(super) fn find(self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter().find_map(|(k, payload)| (k == kind).then_some(payload))
    }

    /// The attributes nested in the first attribute of this type; none, when it is missing.
    pub(super) fn nested(self, kind: u16) -> Attributes<'a> {
        Attributes(self.find(kind).unwrap_or_default())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const FLAGS: u16 = 0xc000; // NLA_F_NESTED | NLA_F_NET_BYTEORDER
        let len = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & !FLAGS;
        let payload = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_to_four_and_lose_their_flag_bits() {
        let mut bytes = vec![];
        bytes.extend(6_u16.to_ne_bytes());
        bytes.extend((3 | 0x8000_u16).to_ne_bytes());
        bytes.extend(*b"lo\0\0");
        bytes.extend(8_u16.to_ne_bytes());
        bytes.extend(5_u16.to_ne_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        let found: Vec<_> = Attributes(&bytes).collect();
        assert_eq!(found, [(3, &b"lo"[..]), (5, &7_u32.to_ne_bytes()[..])]);
    }

    #[test]
    fn an_attribute_longer_than_the_message_ends_it() {
        let bytes = [200, 0, 1, 0, 1, 2];
        assert_eq!(Attributes(&bytes).count(), 0);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            proptest::prop_assert!(Attributes(&bytes).count() <= bytes.len() / 4);
        }
    }
}
