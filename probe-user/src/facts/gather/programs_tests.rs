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
    Link { kind: kind.map(str::to_owned), ..crate::checks::testing::link(index, name) }
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

fn failed(errno: i32) -> io::Result<Vec<Program>> {
    Err(io::Error::from_raw_os_error(errno))
}

fn one(id: u32, name: &str) -> io::Result<Vec<Program>> {
    Ok(vec![Program { id, name: name.into() }])
}

fn said(found: &[AttachedProgram]) -> Vec<String> {
    found.iter().map(|one| format!("{} {} {}", one.interface, one.hook.as_str(), one.name)).collect()
}

#[test]
fn both_ends_programs_of_a_netkit_pair_are_its_primarys() {
    let (link, mut told) = (link("lxc1", 3, Some("netkit")), Vec::new());
    let (first, last) = netkit(&link, &mut told, || one(7, "cil_from_contai"), || one(8, "cil_to_containe")).unwrap();
    assert_eq!(said(&first), ["lxc1 netkit peer cil_from_contai"]);
    assert_eq!(said(&last), ["lxc1 netkit primary cil_to_containe"]);
    assert_eq!((first[0].id, told.len()), (Some(7), 0));
}

#[test]
fn the_peer_of_a_netkit_pair_cannot_be_asked() {
    let mut link = link("eth0", 3, Some("netkit"));
    let mut told = Vec::new();
    for (nsid, notes) in [(None, 0), (Some(1), 1)] {
        link.peer_nsid = nsid;
        let (first, last) = netkit(&link, &mut told, || failed(libc::EACCES), || failed(libc::EACCES)).unwrap();
        assert!(first.is_empty() && last.is_empty());
        assert_eq!(told.len(), notes, "{told:?}");
    }
    assert_eq!(told, ["eth0: what runs inside of this netkit pair can be read at its other end alone"]);
}

#[test]
fn other_devices_are_not_asked_for_netkit() {
    let asked = netkit(&link("lxc1", 3, Some("veth")), &mut Vec::new(), || unreachable!(), || unreachable!());
    assert_eq!(asked, Ok((Vec::new(), Vec::new())));
}

#[test]
fn a_kernel_without_the_attach_type_has_nothing_there() {
    let link = link("lxc1", 3, Some("netkit"));
    for errno in [libc::EINVAL, libc::EOPNOTSUPP, libc::ENODEV, libc::ENXIO] {
        assert_eq!(chained(&link, AttachPoint::NetkitPeer, || failed(errno)).unwrap(), []);
    }
}

#[test]
fn a_program_that_went_away_meanwhile_is_looked_for_again() {
    let link = link("lxc1", 3, None);
    let mut answers = [one(7, "audit"), failed(libc::ENOENT), failed(libc::ENOENT)].into_iter().collect::<Vec<_>>();
    let found = chained(&link, AttachPoint::TcxIngress, || answers.pop().unwrap()).unwrap();
    assert_eq!(said(&found), ["lxc1 tcx ingress audit"]);

    let mut asked = 0;
    let error = chained(&link, AttachPoint::TcxIngress, || {
        asked += 1;
        failed(libc::ENOENT)
    });
    let error = why(AttachPoint::TcxIngress, &error.unwrap_err());
    assert!(error.starts_with("tcx ingress: they change faster than they can be read: No such file"), "{error}");
    assert_eq!(asked, ATTEMPTS);
}

#[test]
fn without_the_right_the_capabilities_are_named() {
    let link = link("lxc1", 3, Some("netkit"));
    let error = netkit(&link, &mut Vec::new(), || failed(libc::EPERM), || unreachable!()).unwrap_err();
    assert!(error.starts_with("netkit peer: Operation not permitted"), "{error}");
    assert!(error.ends_with("CAP_NET_ADMIN and CAP_SYS_ADMIN are needed"), "{error}");
}
