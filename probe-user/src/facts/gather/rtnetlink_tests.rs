use proptest::{collection::vec, num::u8::ANY, strategy::Strategy};

use super::*;
use crate::netlink::attribute;

fn message(header: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = header.to_vec();
    for (kind, payload) in attributes {
        bytes.extend(attribute(*kind, payload));
    }
    bytes
}

#[test]
fn a_veth_names_its_peer_and_its_namespace() {
    let mut header = [0; 16];
    header[2] = 1;
    header[4] = 7;
    header[8] = 1;
    let kind = attribute(1, b"veth\0");
    let bytes = message(
        &header,
        &[
            (3, b"lxc1\0"),
            (1, &[2, 0, 0, 0, 0, 0xff]),
            (5, &2_u32.to_ne_bytes()),
            (37, &4_i32.to_ne_bytes()),
            (18, &kind),
        ],
    );
    let link = link(&bytes).unwrap();
    assert_eq!((link.index, link.name.as_str(), link.kind.as_deref()), (7, "lxc1", Some("veth")));
    assert_eq!((link.peer_index, link.peer_nsid, link.up, link.layer3), (Some(2), Some(4), true, false));
    assert_eq!(link.mac.as_deref(), Some("02:00:00:00:00:ff"));
}

#[test]
fn talos_address_keeps_its_scope_and_flags() {
    let bytes = message(&[2, 32, 0x80, 254, 1, 0, 0, 0], &[(2, &[169, 254, 116, 108]), (8, &0x80_u32.to_ne_bytes())]);
    let (index, found) = interface_address(&bytes).unwrap();
    assert_eq!((index, found.scope, found.prefix_len), (1, 254, 32));
    assert_eq!(found.flags, ["permanent"]);
    assert_eq!(found.address.to_string(), "169.254.116.108");
}

#[test]
fn a_multipath_default_route_is_one_route_per_hop() {
    let mut hops = vec![];
    for (index, last) in [(2_u32, 1_u8), (3, 2)] {
        hops.extend(16_u16.to_ne_bytes());
        hops.extend([0, 0]);
        hops.extend(index.to_ne_bytes());
        hops.extend(attribute(5, &[10, 0, 0, last]));
    }
    let bytes = message(&[2, 0, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0], &[(9, &hops)]);
    let found = route(&bytes).unwrap();
    assert_eq!(found.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [Some(2), Some(3)]);
    assert_eq!(found[1].1.route.gateway, Some("10.0.0.2".parse().unwrap()));
    assert_eq!(found[0].1.route.destination, "0.0.0.0/0");
}

#[test]
fn a_route_covers_what_its_prefix_says() {
    let bytes = message(&[2, 16, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0], &[(1, &[169, 254, 0, 0]), (4, &2_u32.to_ne_bytes())]);
    let entry = &route(&bytes).unwrap()[0].1;
    assert!(entry.covers("169.254.116.108".parse().unwrap()));
    assert!(!entry.covers("169.253.116.108".parse().unwrap()));
    assert!(!entry.covers("fe80::1".parse().unwrap()));
}

#[test]
fn the_kernels_rules_are_left_out_and_ciliums_are_told() {
    let lookup = |table: u8| [2, 0, 0, 0, table, 0, 0, 1, 0, 0, 0, 0];
    assert_eq!(rule(&message(&lookup(255), &[])).unwrap(), None);
    assert_eq!(rule(&message(&lookup(254), &[(6, &32766_u32.to_ne_bytes())])).unwrap(), None);
    let cilium = message(
        &lookup(252),
        &[
            (6, &9_u32.to_ne_bytes()),
            (10, &0x200_u32.to_ne_bytes()),
            (16, &0xf00_u32.to_ne_bytes()),
            (15, &2004_u32.to_ne_bytes()),
        ],
    );
    let found = rule(&cilium).unwrap().unwrap();
    assert_eq!((found.priority, found.text.as_str()), (9, "from all fwmark 0x200/0xf00 lookup 2004"));
    let moved = rule(&message(&lookup(255), &[(6, &100_u32.to_ne_bytes())])).unwrap().unwrap();
    let multicast = message(&[129, 0, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0], &[(6, &32767_u32.to_ne_bytes())]);
    assert_eq!(rule(&multicast).unwrap(), None);
    assert_eq!((moved.priority, moved.text.as_str()), (100, "from all lookup local"));
}

#[test]
fn a_namespace_without_a_number_has_none() {
    assert_eq!(numbered(&message(&[0; 4], &[(1, &4_i32.to_ne_bytes())])).unwrap(), Some(4));
    assert_eq!(numbered(&message(&[0; 4], &[(1, &(-1_i32).to_ne_bytes())])).unwrap(), None);
}

#[test]
fn an_attribute_that_cannot_be_decoded_hides_no_other() {
    let mut header = [0; 16];
    header[2] = 1;
    header[4] = 7;
    // Data that the kind does not have, and an MTU of three bytes.
    let info = [attribute(1, b"vxlan\0"), attribute(2 | 0x8000, &attribute(1, b"?"))].concat();
    let bytes = message(&header, &[(4, b"mtu"), (18 | 0x8000, &info), (3, b"cilium_vxlan\0")]);
    let link = link(&bytes).unwrap();
    assert_eq!((link.name.as_str(), link.kind.as_deref()), ("cilium_vxlan", Some("vxlan")));
}

#[test]
fn a_message_without_its_header_is_an_error() {
    assert!(link(&[0; 15]).is_err());
    assert!(interface_address(&[2, 32, 0x80, 254, 1, 0, 0]).is_err());
    assert!(interface_address(&[2, 32, 0x80, 254, 1, 0, 0, 0]).is_err(), "no address in it");
    assert!(route(&[2; 11]).is_err());
    assert!(rule(&[2; 11]).is_err());
}

/// Well-formed attributes of any kind with anything in them.
fn attributes_of_any_kind() -> impl Strategy<Value = Vec<u8>> {
    vec((0_u16..80, vec(ANY, 0..40)), 0..6)
        .prop_map(|all| all.iter().flat_map(|(kind, payload)| attribute(*kind, payload)).collect())
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in vec(ANY, 0..160), prefix_len: u8) {
        let _link = link(&bytes);
        let _address = interface_address(&bytes);
        let _rule = rule(&bytes);
        let _nsid = numbered(&bytes);
        for (_, mut entry) in route(&bytes).unwrap_or_default() {
            entry.prefix_len = prefix_len;
            let _covers = entry.covers("169.254.116.108".parse().unwrap());
        }
    }

    #[test]
    fn any_attributes_are_survived(family in 0_u8..32, kind in 0_u8..12, attributes in attributes_of_any_kind()) {
        for len in [4, 8, 12, 16] {
            let mut bytes = vec![0; len];
            bytes[0] = family;
            if let Some(byte) = bytes.get_mut(7) {
                *byte = kind;
            }
            bytes.extend(&attributes);
            let _link = link(&bytes);
            let _address = interface_address(&bytes);
            let _rule = rule(&bytes);
            let _nsid = numbered(&bytes);
            let _route = route(&bytes);
        }
    }
}
