//! The running kernel's own type information (BTF, Documentation/bpf/btf.rst): where fields lie, and what drop reasons
//! are called. Nothing read is trusted: every access is bounds-checked, and the depth of nesting is bounded.

use std::{collections::BTreeMap, io, path::Path};

/// Why offsets are not known. Without them packets cannot be followed past address translation, and drops not at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the kernel's BTF at {path}: {source}; a kernel with CONFIG_DEBUG_INFO_BTF is needed")]
    Read { path: String, source: io::Error },
    #[error("the kernel's BTF is not understood: {0}")]
    Malformed(&'static str),
    #[error("the kernel's BTF has no {0}")]
    Missing(String),
}

/// Where the kernel shows its BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;

// BTF_KIND_* of include/uapi/linux/btf.h.
const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const CONST: u32 = 10;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// Anonymous structs and unions nest a few levels; more is not BTF of a kernel.
const MAX_DEPTH: u32 = 16;

/// BTF, with the place of every type.
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Offset of type `id` in `types`, at `id - 1`.
    index: Vec<u32>,
}

/// The offsets that the programs need, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    pub skb_dev: u32,
    pub skb_len: u32,
    pub dev_ifindex: u32,
    /// `net_device.nd_net.net`.
    pub dev_net: u32,
    pub net_cookie: u32,
}

/// What is taken from the kernel's BTF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    pub offsets: Offsets,
    /// `enum skb_drop_reason`, without the prefix.
    pub drop_reasons: BTreeMap<u32, String>,
}

impl Kernel {
    /// Reads the BTF file.
    ///
    /// # Errors
    /// It cannot be read, or does not hold what is needed.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.display().to_string(), source })?;
        Self::parse(&bytes)
    }

    /// # Errors
    /// The bytes are no BTF of this machine's byte order, or lack a struct or field.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let btf = Btf::parse(bytes)?;
        let [skb, device, net, netns] =
            btf.find_all([(STRUCT, "sk_buff"), (STRUCT, "net_device"), (STRUCT, "net"), (STRUCT, "possible_net_t")])?;
        let offset = |id: Option<u32>, path: &[&str]| -> Result<u32, Error> {
            let id = id.ok_or_else(|| Error::Missing(path.join(".")))?;
            btf.offset(id, &path[1..])?.ok_or_else(|| Error::Missing(path.join(".")))
        };
        let _ = netns; // a typedef of an anonymous struct in every kernel so far; reached through net_device
        let offsets = Offsets {
            skb_dev: offset(skb, &["sk_buff", "dev"])?,
            skb_len: offset(skb, &["sk_buff", "len"])?,
            dev_ifindex: offset(device, &["net_device", "ifindex"])?,
            dev_net: offset(device, &["net_device", "nd_net", "net"])?,
            net_cookie: offset(net, &["net", "net_cookie"])?,
        };
        Ok(Self { offsets, drop_reasons: btf.drop_reasons()? })
    }
}

/// One type's head: `struct btf_type`.
#[derive(Clone, Copy)]
struct Head {
    name: u32,
    kind: u32,
    /// Members that follow.
    len: u32,
    /// `kind_flag`: member offsets carry a bit-field size in the upper byte.
    flag: bool,
    /// Type referred to, or size.
    of: u32,
    /// Offset of what follows.
    body: usize,
}

impl<'a> Btf<'a> {
    /// # Errors
    /// The bytes are no BTF of this machine's byte order.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        const SHORT: Error = Error::Malformed("it is cut short");
        let magic = bytes.get(..2).map(|magic| u16::from_ne_bytes([magic[0], magic[1]]));
        if magic != Some(MAGIC) {
            return Err(Error::Malformed("it does not begin with BTF's magic number"));
        }
        let field = |at| word(bytes, at).map(|value| value as usize).ok_or(SHORT);
        let header = field(4)?;
        let section = |offset: usize, len: usize| {
            let start = header.checked_add(offset)?;
            bytes.get(start..start.checked_add(len)?)
        };
        let types = section(field(8)?, field(12)?).ok_or(SHORT)?;
        let strings = section(field(16)?, field(20)?).ok_or(SHORT)?;
        let mut btf = Self { types, strings, index: Vec::with_capacity(types.len() / 24) };
        let mut at = 0;
        while at < types.len() {
            let head = btf.head_at(at).ok_or(SHORT)?;
            let len = head.len as usize;
            let body = match head.kind {
                INT | VAR | DECL_TAG => 4,
                ARRAY => 12,
                STRUCT | UNION | DATASEC | ENUM64 => 12 * len,
                ENUM | FUNC_PROTO => 8 * len,
                0 => return Err(Error::Malformed("a type of kind 0")),
                kind if kind > ENUM64 => return Err(Error::Malformed("a kind of type newer than this program")),
                _ => 0,
            };
            btf.index.push(u32::try_from(at).map_err(|_too_large| SHORT)?);
            at = head.body + body;
        }
        Ok(btf)
    }

    fn head_at(&self, at: usize) -> Option<Head> {
        let info = word(self.types, at + 4)?;
        Some(Head {
            name: word(self.types, at)?,
            kind: info >> 24 & 0x1f,
            len: info & 0xffff,
            flag: info >> 31 != 0,
            of: word(self.types, at + 8)?,
            body: at + 12,
        })
    }

    fn head(&self, id: u32) -> Option<Head> {
        let at = self.index.get(id.checked_sub(1)? as usize)?;
        self.head_at(*at as usize)
    }

    fn name_is(&self, offset: u32, name: &str) -> bool {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        rest.starts_with(name.as_bytes()) && rest.get(name.len()) == Some(&0)
    }

    fn name(&self, offset: u32) -> Option<&str> {
        let rest = self.strings.get(offset as usize..)?;
        std::str::from_utf8(&rest[..rest.iter().position(|&byte| byte == 0)?]).ok()
    }

    /// Ids of the first types of these kinds and names, in one pass.
    fn find_all<const N: usize>(&self, wanted: [(u32, &str); N]) -> Result<[Option<u32>; N], Error> {
        let mut found = [None; N];
        for (id, &at) in (1..).zip(&self.index) {
            let Some(head) = self.head_at(at as usize) else { continue };
            for (slot, (kind, name)) in found.iter_mut().zip(&wanted) {
                // A forward-like empty struct of the same name would have no members.
                if slot.is_none() && head.kind == *kind && head.len > 0 && self.name_is(head.name, name) {
                    *slot = Some(id);
                }
            }
        }
        Ok(found)
    }

    /// Offset in bytes of the field that `path` leads to, through named structs and anonymous ones.
    fn offset(&self, id: u32, path: &[&str]) -> Result<Option<u32>, Error> {
        let Some((name, rest)) = path.split_first() else { return Ok(Some(0)) };
        let Some((bits, of)) = self.member(id, name, 0)? else { return Ok(None) };
        if bits % 8 != 0 {
            return Err(Error::Malformed("a field that is needed is a bit field"));
        }
        let Some(inner) = self.offset(of, rest)? else { return Ok(None) };
        Ok(bits.checked_div(8).and_then(|bytes| bytes.checked_add(inner)))
    }

    /// Offset in bits and type of member `name` of struct or union `id`.
    fn member(&self, id: u32, name: &str, depth: u32) -> Result<Option<(u32, u32)>, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::Malformed("structs nest too deeply"));
        }
        let Some(head) = self.head(id) else { return Ok(None) };
        match head.kind {
            STRUCT | UNION => {}
            TYPEDEF..=11 | TYPE_TAG => return self.member(head.of, name, depth + 1),
            _ => return Ok(None),
        }
        debug_assert!(TYPEDEF < CONST);
        for member in 0..head.len as usize {
            let at = head.body + 12 * member;
            let (Some(named), Some(of), Some(offset)) =
                (word(self.types, at), word(self.types, at + 4), word(self.types, at + 8))
            else {
                return Err(Error::Malformed("a struct is cut short"));
            };
            let bits = if head.flag { offset & 0x00ff_ffff } else { offset };
            if self.name_is(named, name) {
                return Ok(Some((bits, of)));
            }
            if self.name_is(named, "")
                && let Some((inner, of)) = self.member(of, name, depth + 1)?
            {
                return Ok(bits.checked_add(inner).map(|bits| (bits, of)));
            }
        }
        Ok(None)
    }

    /// The constants of `enum skb_drop_reason`; empty on kernels before 5.17, which have none.
    fn drop_reasons(&self) -> Result<BTreeMap<u32, String>, Error> {
        let [id] = self.find_all([(ENUM, "skb_drop_reason")])?;
        let Some(head) = id.and_then(|id| self.head(id)) else { return Ok(BTreeMap::new()) };
        let mut names = BTreeMap::new();
        for member in 0..head.len as usize {
            let at = head.body + 8 * member;
            let (Some(name), Some(value)) = (word(self.types, at), word(self.types, at + 4)) else {
                return Err(Error::Malformed("an enum is cut short"));
            };
            if let Some(name) = self.name(name) {
                names.insert(value, name.strip_prefix("SKB_DROP_REASON_").unwrap_or(name).to_owned());
            }
        }
        Ok(names)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a small BTF blob.
    #[derive(Default)]
    struct Blob {
        types: Vec<u8>,
        strings: Vec<u8>,
    }

    impl Blob {
        fn name(&mut self, name: &str) -> u32 {
            if self.strings.is_empty() {
                self.strings.push(0);
            }
            if name.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend(name.as_bytes());
            self.strings.push(0);
            at
        }

        fn words(&mut self, words: &[u32]) {
            for word in words {
                self.types.extend(word.to_ne_bytes());
            }
        }

        /// Members: name, type, offset in bits.
        fn composite(&mut self, kind: u32, name: &str, flag: bool, members: &[(&str, u32, u32)]) {
            let name = self.name(name);
            self.words(&[name, u32::from(flag) << 31 | kind << 24 | members.len() as u32, 0]);
            for (name, of, bits) in members {
                let name = self.name(name);
                self.words(&[name, *of, *bits]);
            }
        }

        fn bytes(&self) -> Vec<u8> {
            let mut bytes = Vec::new();
            bytes.extend(MAGIC.to_ne_bytes());
            bytes.extend([1, 0]);
            for word in [24, 0, self.types.len(), self.types.len(), self.strings.len()] {
                bytes.extend((word as u32).to_ne_bytes());
            }
            bytes.extend(&self.types);
            bytes.extend(&self.strings);
            bytes
        }
    }

    fn kernel() -> Blob {
        let mut blob = Blob::default();
        let int = blob.name("int");
        blob.words(&[int, INT << 24, 4, 32]); // 1
        blob.composite(UNION, "", false, &[("dev", 1, 0), ("dev_scratch", 1, 0)]); // 2
        blob.composite(STRUCT, "", true, &[("next", 1, 0), ("", 2, 3 << 24 | 128)]); // 3
        blob.composite(STRUCT, "sk_buff", false, &[("", 3, 0), ("len", 1, 192)]); // 4
        blob.composite(STRUCT, "", false, &[("net", 1, 64)]); // 5
        let typedef = blob.name("possible_net_t");
        blob.words(&[typedef, TYPEDEF << 24, 5]); // 6
        blob.composite(STRUCT, "net_device", false, &[("ifindex", 1, 32), ("nd_net", 6, 640)]); // 7
        blob.composite(STRUCT, "net", false, &[("net_cookie", 1, 88 * 8)]); // 8
        let reasons = blob.name("skb_drop_reason");
        let none = blob.name("SKB_NOT_DROPPED_YET");
        let socket = blob.name("SKB_DROP_REASON_NO_SOCKET");
        blob.words(&[reasons, ENUM << 24 | 2, 4, none, 0, socket, 3]); // 9
        blob
    }

    #[test]
    fn fields_are_found_through_anonymous_members_and_typedefs() {
        let kernel = Kernel::parse(&kernel().bytes()).unwrap();
        let expected = Offsets { skb_dev: 16, skb_len: 24, dev_ifindex: 4, dev_net: 88, net_cookie: 88 };
        assert_eq!(kernel.offsets, expected);
        assert_eq!(kernel.drop_reasons[&3], "NO_SOCKET");
        assert_eq!(kernel.drop_reasons[&0], "SKB_NOT_DROPPED_YET");
    }

    #[test]
    fn a_struct_that_contains_itself_is_refused() {
        let mut blob = kernel();
        blob.types.clear();
        blob.composite(STRUCT, "sk_buff", false, &[("", 1, 0)]);
        assert!(Kernel::parse(&blob.bytes()).is_err());
    }

    #[test]
    fn every_cut_is_an_error_and_never_a_panic() {
        let bytes = kernel().bytes();
        for len in 0..bytes.len() {
            assert!(Kernel::parse(&bytes[..len]).is_err(), "{len} bytes passed for the whole");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_flipped_byte_is_survived(at in 0..400_usize, value: u8) {
            let mut bytes = kernel().bytes();
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = Kernel::parse(&bytes);
        }
    }

    #[test]
    fn the_running_kernel_is_understood() {
        let path = Path::new(VMLINUX);
        if !path.exists() {
            eprintln!("left out: {VMLINUX} is not there");
            return;
        }
        let kernel = Kernel::read(path).unwrap();
        assert!(kernel.offsets.skb_dev > 0 && kernel.offsets.dev_ifindex > 0 && kernel.offsets.dev_net > 0);
        assert!(kernel.drop_reasons.values().any(|name| name == "NO_SOCKET"));
    }
}
