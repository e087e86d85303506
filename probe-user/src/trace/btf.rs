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

const SHORT: Error = Error::Malformed("it is cut short");

// BTF_KIND_* of include/uapi/linux/btf.h.
const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
/// 8 to 11: typedef, volatile, const, restrict.
const RESTRICT: u32 = 11;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// Anonymous structs and unions nest a few levels; more is not BTF of a kernel.
const MAX_DEPTH: u32 = 16;

/// One type in so many has its place noted; a kernel has some 150 000 of them, and a dozen are needed.
const STRIDE: u32 = 512;

/// BTF, walked only as far as something is looked for in it.
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Offsets in `types` of the types 1, 1 + [`STRIDE`], and so on.
    places: Vec<usize>,
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

/// The bytes of the BTF file: some six megabytes.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.display().to_string(), source })
}

impl Kernel {
    /// # Errors
    /// The bytes are no BTF of this machine's byte order, or lack a struct or field.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut btf = Btf::parse(bytes)?;
        let wanted = [(STRUCT, "sk_buff"), (STRUCT, "net_device"), (STRUCT, "net"), (ENUM, "skb_drop_reason")];
        let [skb, device, net, reasons] = btf.find_all(wanted)?;
        let mut offset = |head: Option<Head>, path: &[&str]| -> Result<u32, Error> {
            let head = head.ok_or_else(|| Error::Missing(path.join(".")))?;
            btf.offset(head, &path[1..])?.ok_or_else(|| Error::Missing(path.join(".")))
        };
        let offsets = Offsets {
            skb_dev: offset(skb, &["sk_buff", "dev"])?,
            skb_len: offset(skb, &["sk_buff", "len"])?,
            dev_ifindex: offset(device, &["net_device", "ifindex"])?,
            dev_net: offset(device, &["net_device", "nd_net", "net"])?,
            net_cookie: offset(net, &["net", "net_cookie"])?,
        };
        Ok(Self { offsets, drop_reasons: btf.drop_reasons(reasons)? })
    }
}

/// One type's head: `struct btf_type`.
#[derive(Clone, Copy, Debug)]
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
        Ok(Self { types, strings, places: vec![0] })
    }

    /// The type at `at`, and where the next one is; none at the end.
    fn walk(&self, at: usize) -> Result<Option<(Head, usize)>, Error> {
        if at >= self.types.len() {
            return Ok(None);
        }
        let head = self.head_at(at).ok_or(SHORT)?;
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
        Ok(Some((head, head.body + body)))
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

    fn head(&mut self, id: u32) -> Result<Option<Head>, Error> {
        let Some(target) = id.checked_sub(1) else { return Ok(None) };
        let nearest = (target / STRIDE).min(self.places.len().saturating_sub(1) as u32);
        let mut at = self.places.get(nearest as usize).copied().unwrap_or_default();
        let mut index = nearest * STRIDE;
        while let Some((head, next)) = self.walk(at)? {
            if index == target {
                return Ok(Some(head));
            }
            (at, index) = (next, index + 1);
            self.note(index, at);
        }
        Ok(None)
    }

    /// Remembers the place of a type that was come past.
    fn note(&mut self, index: u32, at: usize) {
        if index.is_multiple_of(STRIDE) && (index / STRIDE) as usize == self.places.len() {
            self.places.push(at);
        }
    }

    fn name_is(&self, offset: u32, name: &str) -> bool {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        rest.starts_with(name.as_bytes()) && rest.get(name.len()) == Some(&0)
    }

    fn name(&self, offset: u32) -> Option<&str> {
        let rest = self.strings.get(offset as usize..)?;
        std::str::from_utf8(&rest[..rest.iter().position(|&byte| byte == 0)?]).ok()
    }

    /// The first types of these kinds and names, in one pass that ends with the last of them.
    fn find_all<const N: usize>(&mut self, wanted: [(u32, &str); N]) -> Result<[Option<Head>; N], Error> {
        let mut found = [None; N];
        let (mut at, mut index) = (0, 0);
        while let Some((head, next)) = self.walk(at)? {
            // A forward-like empty struct of the same name would have no members.
            if matches!(head.kind, STRUCT | ENUM) && head.len > 0 {
                for (slot, (kind, name)) in found.iter_mut().zip(&wanted) {
                    if slot.is_none() && head.kind == *kind && self.name_is(head.name, name) {
                        *slot = Some(head);
                    }
                }
                if found.iter().all(Option::is_some) {
                    break;
                }
            }
            (at, index) = (next, index + 1);
            self.note(index, at);
        }
        Ok(found)
    }

    /// Offset in bytes of the field that `path` leads to, through named structs and anonymous ones.
    fn offset(&mut self, of: Head, path: &[&str]) -> Result<Option<u32>, Error> {
        let Some((name, rest)) = path.split_first() else { return Ok(Some(0)) };
        let Some((bits, of)) = self.member(of, name, 0)? else { return Ok(None) };
        if bits % 8 != 0 {
            return Err(Error::Malformed("a field that is needed is a bit field"));
        }
        let inner = match self.head(of)? {
            _ if rest.is_empty() => 0,
            Some(of) => match self.offset(of, rest)? {
                Some(inner) => inner,
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        Ok(bits.checked_div(8).and_then(|bytes| bytes.checked_add(inner)))
    }

    /// Offset in bits and type of member `name` of a struct or union.
    fn member(&mut self, head: Head, name: &str, depth: u32) -> Result<Option<(u32, u32)>, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::Malformed("structs nest too deeply"));
        }
        match head.kind {
            STRUCT | UNION => {}
            TYPEDEF..=RESTRICT | TYPE_TAG => {
                return self.head(head.of)?.map_or(Ok(None), |of| self.member(of, name, depth + 1));
            }
            _ => return Ok(None),
        }
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
                && let Some(of) = self.head(of)?
                && let Some((inner, of)) = self.member(of, name, depth + 1)?
            {
                return Ok(bits.checked_add(inner).map(|bits| (bits, of)));
            }
        }
        Ok(None)
    }

    /// The constants of `enum skb_drop_reason`; empty on kernels before 5.17, which have none.
    fn drop_reasons(&self, of: Option<Head>) -> Result<BTreeMap<u32, String>, Error> {
        let Some(head) = of else { return Ok(BTreeMap::new()) };
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
mod tests;
