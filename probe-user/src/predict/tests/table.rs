//! The decision table of Cilium's `handle_ipv4_from_lxc` (bpf/bpf_lxc.c), to be read beside the source: what becomes of a
//! pod's packet to an address of the node, by release.

use proptest::prelude::*;

use super::*;
use crate::facts::Listener;

/// What happens at the pod's device.
#[derive(Clone, Copy, Debug)]
enum To {
    Stack,
    /// FIB lookup failed, reason 169.
    Drop,
    /// Redirected out of the only device.
    Leak,
}
use To::{Drop, Leak, Stack};

/// Releases that do alike: up to 1.16.4; up to 1.18.1 (tunnel mode looks the route up too, commit 2932ac49db); later
/// ones (what the kernel calls local goes to the stack, 4415e131d4).
const RELEASES: [&[&str]; 3] = [
    &["1.15.0", "1.15.7", "1.15.8", "1.15.99", "1.16.0", "1.16.1", "1.16.4"],
    &["1.16.5", "1.16.99", "1.17.0", "1.17.99", "1.18.0", "1.18.1"],
    &["1.18.2", "1.18.99", "1.19.0-pre.0"],
];

/// A node: what it is like, and what becomes of the packet in each of [`RELEASES`].
struct Case {
    name: &'static str,
    legacy: bool,
    known: bool,
    routing: RoutingMode,
    /// One device, and endpoint routes off: the route lookup is skipped (ENABLE_SKIP_FIB).
    shortcut: bool,
    to: [To; 3],
}

const fn case(name: &'static str, routing: RoutingMode, shortcut: bool, to: [To; 3]) -> Case {
    Case { name, legacy: false, known: false, routing, shortcut, to }
}

const TABLE: [Case; 10] = {
    use RoutingMode::{Native, Tunnel};
    let all = [Stack; 3];
    [
        Case { legacy: true, ..case("legacy, native", Native, true, all) },
        Case { legacy: true, ..case("legacy, tunnel", Tunnel, false, all) },
        Case { known: true, ..case("known, native, shortcut", Native, true, all) },
        Case { known: true, ..case("known, native", Native, false, all) },
        Case { known: true, ..case("known, tunnel, shortcut", Tunnel, true, all) },
        Case { known: true, ..case("known, tunnel", Tunnel, false, all) },
        case("unknown, tunnel, shortcut", Tunnel, true, [Stack, Leak, Leak]),
        case("unknown, tunnel", Tunnel, false, [Stack, Drop, Stack]),
        case("unknown, native, shortcut", Native, true, [Leak, Leak, Leak]),
        case("unknown, native", Native, false, [Drop, Drop, Stack]),
    ]
};

#[test]
fn every_case_in_every_release() {
    for case in &TABLE {
        for (releases, to) in RELEASES.iter().zip(case.to) {
            // Either turns the shortcut off.
            let without: &[(usize, bool)] = if case.shortcut { &[(1, false)] } else { &[(2, false), (1, true)] };
            for (&release, &(devices, endpoint_routes)) in
                releases.iter().flat_map(|release| without.iter().map(move |how| (release, how)))
            {
                let mut facts = facts();
                hide(&mut facts);
                let entry = case.known.then_some(LxcEntry { ifindex: 0, lxc_id: 0, flags: 1 });
                let cilium = &mut facts.cilium;
                cilium.version = known(release.into());
                cilium.host_routing = known(if case.legacy { HostRouting::Legacy } else { HostRouting::Bpf });
                cilium.routing_mode = known(case.routing);
                cilium.devices = known((0..devices).map(|n| format!("eth{n}")).collect());
                cilium.endpoint_routes = known(endpoint_routes);
                cilium.lxc.insert(HOST_DNS, known(entry));
                let expected = match to {
                    Stack => Ended::Answered,
                    Drop => Ended::Dropped,
                    Leak => Ended::Leaked,
                };
                let prediction = run(&facts);
                assert_eq!(
                    prediction.ended,
                    Some(expected),
                    "{}, {release}, {devices} devices, endpoint routes {endpoint_routes}: {:#?}",
                    case.name,
                    prediction.because
                );
            }
        }
    }
}

/// Which addresses on `lo` Cilium learns, by release and scope (252 is the most it takes unless told otherwise).
#[test]
fn every_scope_in_every_release() {
    for (release, learns) in [
        ("1.15.0", false),
        ("1.15.7", false),
        ("1.15.8", true),
        ("1.16.0", false),
        ("1.16.1", true),
        ("1.17.0", true),
        ("1.18.1", true),
        ("1.19.0-pre.0", true),
    ] {
        for (scope, most, visible) in
            [(0, 252, true), (200, 252, true), (252, 252, true), (253, 252, false), (254, 252, false), (254, 254, true)]
        {
            let mut facts = facts();
            facts.network.addresses = known(vec![address("lo", HOST_DNS, scope)]);
            facts.cilium.lxc.clear();
            facts.cilium.version = known(release.into());
            facts.cilium.address_scope_max = known(most);
            let expected = if learns && visible { Ended::Answered } else { Ended::Leaked };
            assert_eq!(run(&facts).ended, Some(expected), "{release}, scope {scope} of {most}");
        }
    }
}

/// A node whose facts are as they come: absent, or of any value.
fn any_facts() -> impl Strategy<Value = Facts> {
    let version =
        prop_oneof!["[0-9]{1,3}(\\.[0-9]{1,12}){0,4}(-[a-z.0-9]{0,8})?", ".{0,12}", Just("1.18.1".to_owned())];
    let gone = prop::collection::vec(any::<bool>(), 14);
    (version, any::<(u8, u8, u32, bool, bool, bool)>(), 0_usize..4, gone).prop_map(
        |(version, (scope, most, flags, tunnel, on, skips), devices, gone)| {
            let mut facts = facts();
            facts.network.addresses = known(vec![address("lo", HOST_DNS, scope)]);
            let entry = on.then_some(LxcEntry { ifindex: flags, lxc_id: 0, flags });
            let cilium = &mut facts.cilium;
            cilium.version = known(version);
            cilium.address_scope_max = known(most);
            cilium.routing_mode = known(if tunnel { RoutingMode::Tunnel } else { RoutingMode::Native });
            cilium.devices = known((0..devices).map(|n| format!("eth{n}")).collect());
            cilium.endpoint_routes = known(on);
            cilium.skip_fib = known(skips);
            cilium.lxc.insert(HOST_DNS, known(entry));
            let lose: [fn(&mut Facts); 14] = [
                |f| f.network.addresses = Fact::default(),
                |f| f.network.routes = Fact::default(),
                |f| f.network.links = Fact::default(),
                |f| f.network.rp_filter = Fact::default(),
                |f| f.listeners = Fact::<Vec<Listener>>::default(),
                |f| f.pods = Fact::default(),
                |f| f.cilium.version = Fact::default(),
                |f| f.cilium.host_routing = Fact::default(),
                |f| f.cilium.routing_mode = Fact::default(),
                |f| f.cilium.masquerade = Fact::default(),
                |f| f.cilium.devices = Fact::default(),
                |f| f.cilium.endpoint_routes = Fact::default(),
                |f| f.cilium.skip_fib = Fact::default(),
                |f| f.cilium.lxc.clear(),
            ];
            lose.iter().zip(gone).filter(|(_lose, gone)| *gone).for_each(|(lose, _gone)| lose(&mut facts));
            facts
        },
    )
}

proptest! {
    /// Whatever is known or not: it comes to a word, and an unknown one says what is missing.
    #[test]
    fn it_never_panics_and_unknown_says_why(facts in any_facts()) {
        for predict in [predict, predict_on_host] {
            let prediction = predict(&facts, &Targets::default());
            let last = prediction.because.last().cloned().unwrap_or_default();
            prop_assert_eq!(prediction.status == Status::Unknown, last.starts_with("cannot say"), "{:#?}", prediction);
            prop_assert_eq!(prediction.status == Status::Fail, prediction.cause.is_some());
        }
    }
}
