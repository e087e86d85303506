//! Cilium's own drop reasons, as `cilium_metrics` counts them.

use super::CiliumReason;
use crate::facts::DropCount;

/// Text of a reason (cilium `pkg/monitor/api/drop.go`, v1.15.0 to v1.18.1), or none for one that is not known here.
#[must_use]
pub fn text(code: u8) -> Option<&'static str> {
    REASONS.binary_search_by_key(&code, |&(code, _)| code).ok().map(|at| REASONS[at].1)
}

/// Reasons up to this are not drops but forwarding marks.
pub const LAST_NON_DROP: u8 = 129;

/// Router solicitations of pods that have no IPv6: noise on every node (`DROP_UNKNOWN_L3`).
pub const UNKNOWN_L3: u8 = 139;

/// `DROP_NO_FIB`, "FIB lookup failed".
pub const NO_FIB: u8 = 169;

/// `METRIC_EGRESS` (cilium bpf/lib/common.h): what a pod sends.
pub const EGRESS: u8 = 2;

/// Reasons that may explain so many packets dropped between two readings of `cilium_metrics`: those whose count rose by
/// as many at least. The counters are the whole node's, so that one which rose by less has another story.
#[must_use]
pub fn candidates(before: &[DropCount], after: &[DropCount], packets: u64) -> Vec<CiliumReason> {
    let was = |count: &DropCount| {
        let same = before.iter().find(|old| (old.reason, old.direction) == (count.reason, count.direction));
        same.map_or(0, |old| old.packets)
    };
    let mut codes: Vec<u8> = after
        .iter()
        .filter(|count| count.reason > LAST_NON_DROP && count.reason != UNKNOWN_L3)
        .filter(|count| count.packets.saturating_sub(was(count)) >= packets.max(1))
        .map(|count| count.reason)
        .collect();
    codes.sort_unstable();
    codes.dedup();
    codes.into_iter().map(reason).collect()
}

/// The one reason that explains them; none where several may.
#[must_use]
pub fn only(before: &[DropCount], after: &[DropCount], packets: u64) -> Option<CiliumReason> {
    let mut all = candidates(before, after, packets);
    all.pop().filter(|_| all.is_empty())
}

fn reason(code: u8) -> CiliumReason {
    CiliumReason { code, text: text(code).map_or_else(|| format!("reason {code}"), ToOwned::to_owned) }
}

const REASONS: &[(u8, &str)] = &[
    (0, "Success"),
    (2, "Invalid packet"),
    (3, "Interface"),
    (4, "Interface Decrypted"),
    (5, "LB, sock cgroup: No backend slot entry found"),
    (6, "LB, sock cgroup: No backend entry found"),
    (7, "LB, sock cgroup: Reverse entry update failed"),
    (8, "LB, sock cgroup: Reverse entry stale"),
    (9, "Fragmented packet"),
    (10, "Fragmented packet entry update failed"),
    (11, "Missed tail call to custom program"),
    (12, "Interface Decrypting"),
    (13, "Interface Encrypting"),
    (14, "LB: sock cgroup: Reverse entry delete succeeded"),
    (130, "Invalid source mac"),
    (131, "Invalid destination mac"),
    (132, "Invalid source ip"),
    (133, "Policy denied"),
    (134, "Invalid packet"),
    (135, "CT: Truncated or invalid header"),
    (136, "Fragmentation needed"),
    (137, "CT: Unknown L4 protocol"),
    (138, "CT: Can't create entry from packet"),
    (139, "Unsupported L3 protocol"),
    (140, "Missed tail call"),
    (141, "Error writing to packet"),
    (142, "Unknown L4 protocol"),
    (143, "Unknown ICMPv4 code"),
    (144, "Unknown ICMPv4 type"),
    (145, "Unknown ICMPv6 code"),
    (146, "Unknown ICMPv6 type"),
    (147, "Error retrieving tunnel key"),
    (148, "Error retrieving tunnel options"),
    (149, "Invalid Geneve option"),
    (150, "Unknown L3 target address"),
    (151, "Stale or unroutable IP"),
    (152, "No matching local container found"),
    (153, "Error while correcting L3 checksum"),
    (154, "Error while correcting L4 checksum"),
    (155, "CT: Map insertion failed"),
    (156, "Invalid IPv6 extension header"),
    (157, "IP fragmentation not supported"),
    (158, "Service backend not found"),
    (160, "No tunnel/encapsulation endpoint (datapath BUG!)"),
    (161, "NAT 46/64 not enabled"),
    (162, "Reached EDT rate-limiting drop horizon"),
    (163, "Unknown connection tracking state"),
    (164, "Local host is unreachable"),
    (165, "No configuration available to perform policy decision"),
    (166, "Unsupported L2 protocol"),
    (167, "No mapping for NAT masquerade"),
    (168, "Unsupported protocol for NAT masquerade"),
    (169, "FIB lookup failed"),
    (170, "Encapsulation traffic is prohibited"),
    (171, "Invalid identity"),
    (172, "Unknown sender"),
    (173, "NAT not needed"),
    (174, "Is a ClusterIP"),
    (175, "First logical datagram fragment not found"),
    (176, "Forbidden ICMPv6 message"),
    (177, "Denied by LB src range check"),
    (178, "Socket lookup failed"),
    (179, "Socket assign failed"),
    (180, "Proxy redirection not supported for protocol"),
    (181, "Policy denied by denylist"),
    (182, "VLAN traffic disallowed by VLAN filter"),
    (183, "Incorrect VNI from VTEP"),
    (184, "Failed to update or lookup TC buffer"),
    (185, "No SID was found for the IP address"),
    (186, "SRv6 state was removed during tail call"),
    (187, "L3 translation from IPv4 to IPv6 failed (NAT46)"),
    (188, "L3 translation from IPv6 to IPv4 failed (NAT64)"),
    (189, "Authentication required"),
    (190, "No conntrack map found"),
    (191, "No nat map found"),
    (192, "Invalid ClusterID"),
    (193, "Unsupported packet protocol for DSR encapsulation"),
    (194, "No egress gateway found"),
    (195, "Traffic is unencrypted"),
    (196, "TTL exceeded"),
    (197, "No node ID found"),
    (198, "Rate limited"),
    (199, "IGMP handled"),
    (200, "IGMP subscribed"),
    (201, "Multicast handled"),
    (202, "Host datapath not ready"),
    (203, "Endpoint policy program not available"),
    (204, "No Egress IP configured"),
    (205, "Punt to proxy"),
];

#[cfg(test)]
mod tests {
    use super::{REASONS, candidates, only, text};
    use crate::facts::DropCount;

    const fn count(reason: u8, packets: u64) -> DropCount {
        DropCount { reason, direction: 2, packets }
    }

    #[test]
    fn the_reason_that_rose_is_the_one_and_noise_is_not() {
        let before = [count(0, 10), count(139, 5), count(133, 7)];
        let after = [count(0, 99), count(139, 50), count(133, 7), count(169, 4)];
        assert_eq!(only(&before, &after, 4).map(|reason| reason.code), Some(169));
        assert_eq!(only(&after, &after, 1), None);
    }

    #[test]
    fn a_count_that_rose_by_less_than_what_was_dropped_is_another_story() {
        assert_eq!(only(&[], &[count(133, 3), count(169, 5)], 4).map(|reason| reason.code), Some(169));
        // The other one may have nothing to do with it, and may be all of it.
        assert_eq!(only(&[], &[count(133, 400), count(169, 5)], 4), None);
        let both: Vec<u8> = candidates(&[], &[count(133, 400), count(169, 5)], 4).iter().map(|r| r.code).collect();
        assert_eq!(both, [133, 169]);
    }

    #[test]
    fn the_table_is_sorted_so_that_it_can_be_searched() {
        assert!(REASONS.is_sorted_by_key(|&(code, _)| code));
    }

    #[test]
    fn the_reasons_of_issue_36761_have_their_names() {
        assert_eq!(text(169), Some("FIB lookup failed"));
        assert_eq!(text(196), Some("TTL exceeded"));
        assert_eq!(text(133), Some("Policy denied"));
        assert_eq!(text(255), None);
    }
}
