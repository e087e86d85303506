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

/// A u32 in network byte order.
pub(super) fn be32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_be_bytes)
}

/// Text up to the first NUL, what is not UTF-8 replaced.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_past_the_end() {
        assert_eq!(u32_at(&[1, 2, 3], 0), None);
        assert_eq!(array::<2>(&[1, 2, 3], usize::MAX), None);
        assert_eq!(be32_at(&[0, 0, 0, 1, 2], 1), Some(0x0102));
        assert_eq!(text(b"lo\0garbage"), "lo");
    }
}
