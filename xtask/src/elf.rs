//! Is a binary static? Read from its ELF program headers: a dynamic one names its interpreter (PT_INTERP).
//! Layout: elf(5), `Elf64_Ehdr` and `Elf64_Phdr`, little endian on every target we build.

/// Offset of `e_phoff` (u64), `e_phentsize` (u16) and `e_phnum` (u16) in `Elf64_Ehdr`.
const PHOFF: usize = 32;
const PHENTSIZE: usize = 54;
const PHNUM: usize = 56;
const PT_INTERP: u32 = 3;

/// Whether this ELF file needs nothing beside it; `None` when it is not a 64-bit little-endian ELF file.
pub(crate) fn is_static(file: &[u8]) -> Option<bool> {
    // Magic, ELFCLASS64, ELFDATA2LSB.
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let offset = usize::try_from(u64::from_le_bytes(array(file, PHOFF)?)).ok()?;
    let size = usize::from(u16::from_le_bytes(array(file, PHENTSIZE)?));
    let count = usize::from(u16::from_le_bytes(array(file, PHNUM)?));
    for index in 0..count {
        let header = offset.checked_add(size.checked_mul(index)?)?;
        if u32::from_le_bytes(array(file, header)?) == PT_INTERP {
            return Some(false);
        }
    }
    Some(true)
}

fn array<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header and program headers of these types.
    fn elf(types: &[u32]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[PHOFF..PHOFF + 8].copy_from_slice(&64u64.to_le_bytes());
        file[PHENTSIZE..PHENTSIZE + 2].copy_from_slice(&56u16.to_le_bytes());
        file[PHNUM..PHNUM + 2].copy_from_slice(&u16::try_from(types.len()).unwrap_or(u16::MAX).to_le_bytes());
        for kind in types {
            file.extend(kind.to_le_bytes());
            file.extend([0; 52]);
        }
        file
    }

    #[test]
    fn an_interpreter_makes_it_dynamic() {
        assert_eq!(is_static(&elf(&[1, 2, 6])), Some(true));
        assert_eq!(is_static(&elf(&[6, PT_INTERP, 1])), Some(false));
    }

    #[test]
    fn anything_else_is_not_judged() {
        assert_eq!(is_static(b"#!/bin/sh\n"), None);
        assert_eq!(is_static(b"\x7fELF\x01\x01"), None);
        let whole = elf(&[1, PT_INTERP]);
        assert_eq!(is_static(&whole[..100]), None, "cut within the program headers");
        let mut far = elf(&[1]);
        far[PHOFF..PHOFF + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(is_static(&far), None);
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn this_very_test_is_dynamic() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(is_static(&own), Some(cfg!(target_feature = "crt-static")));
    }
}
