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
    let kernel = Kernel::parse(&read(path).unwrap()).unwrap();
    assert!(kernel.offsets.skb_dev > 0 && kernel.offsets.dev_ifindex > 0 && kernel.offsets.dev_net > 0);
    assert!(kernel.drop_reasons.values().any(|name| name == "NO_SOCKET"));
}
