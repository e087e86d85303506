use super::*;
use crate::netlink::attribute as nla;

/// `struct tcmsg`: device 7, a handle, clsact's ingress, priority 1 and protocol all.
fn header(handle: u32) -> Vec<u8> {
    let words = [0, 7, handle, 0xffff_fff2, 1 << 16 | u32::from(3_u16.to_be())];
    words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
}

fn message(handle: u32, kind: &[u8], options: &[u8]) -> Vec<u8> {
    [header(handle), nla(TCA_KIND, kind), nla(TCA_OPTIONS, options)].concat()
}

fn options() -> Vec<u8> {
    [nla(8, &1_u32.to_ne_bytes()), nla(TCA_BPF_NAME, b"cil_from_container\0"), nla(TCA_BPF_ID, &42_u32.to_ne_bytes())]
        .concat()
}

#[test]
fn a_filter_has_its_name_number_and_priority() {
    let expected = Filter { name: "cil_from_container".into(), id: Some(42), priority: 1, handle: 1 };
    assert_eq!(filter(&message(1, b"bpf\0", &options())).unwrap(), Some(expected));
}

#[test]
fn other_kinds_and_entries_without_a_handle_are_no_filters() {
    for bytes in [message(1, b"flower\0", &[]), message(0, b"bpf\0", &options()), header(1)] {
        assert_eq!(filter(&bytes).unwrap(), None, "{bytes:?}");
    }
}

#[test]
fn what_is_missing_stays_unknown() {
    let found = filter(&message(1, b"bpf\0", &nla(8, &[0; 4]))).unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.id), ("", None));
    // A name without its NUL, and one that is no text.
    let found = filter(&message(1, b"bpf", &nla(TCA_BPF_NAME, b"cil"))).unwrap().unwrap();
    assert_eq!(found.name, "cil");
    let found = filter(&message(1, b"bpf\0", &nla(TCA_BPF_NAME, b"\xffx\0"))).unwrap().unwrap();
    assert_eq!(found.name, "\u{fffd}x");
}

#[test]
fn malformed_attributes_are_errors_and_do_not_hide_other_filters() {
    let whole = message(1, b"bpf\0", &options());
    let short_id = message(1, b"bpf\0", &nla(TCA_BPF_ID, &[1, 2]));
    // An attribute that says to be longer than what is there, inside and outside of the options.
    let mut long = options();
    long[0] = 0xff;
    let inside = message(1, b"bpf\0", &long);
    let mut outside = whole.clone();
    outside[20] = 0xff;
    // Shorter than its own header.
    let mut tiny = whole.clone();
    tiny[20] = 2;
    let broken = [short_id, inside, outside, tiny, whole[..12].to_vec()];
    for bytes in &broken {
        filter(bytes).unwrap_err();
    }
    let messages: Vec<_> = broken.into_iter().chain([whole]).collect();
    let messages: Vec<_> =
        messages.into_iter().map(|payload| crate::netlink::Message { kind: libc::RTM_NEWTFILTER, payload }).collect();
    let read = Entries::decode(&messages, filter);
    assert_eq!(read.found.len(), 1);
    assert!(read.unread.is_some_and(|unread| unread.starts_with("5 of 6 entries could not be read")));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _filter = filter(&bytes);
        let _filter = filter(&message(1, b"bpf\0", &bytes));
    }
}

fn link(name: &str, index: u32, kind: Option<&str>) -> Link {
    Link {
        index,
        name: name.into(),
        kind: kind.map(str::to_owned),
        mac: None,
        up: true,
        peer_index: None,
        peer_nsid: None,
        master: None,
        layer3: false,
    }
}

#[test]
fn ciliums_own_devices_come_first_and_pods_last() {
    let links = vec![
        link("lo", 1, None),
        link("lxc1", 3, Some("veth")),
        link("dummy0", 4, Some("dummy")),
        link("eth0", 5, None),
        link("wg0", 6, Some("wireguard")),
        link("cilium_host", 7, Some("veth")),
        link("veth9", 8, Some("veth")),
    ];
    let names: Vec<_> = of_interest(links).into_iter().map(|link| link.name).collect();
    assert_eq!(names, ["cilium_host", "eth0", "wg0", "veth9", "lxc1"]);
}
