//! Cilium: what it does with the address, and what it was told.

pub(super) mod agent_unhealthy;
pub(super) mod datapath_not_observable;
pub(super) mod ip_masq_agent_no_help;
pub(super) mod legacy_fallback;
pub(super) mod local_redirect_policy;
pub(super) mod policy_drop;
pub(super) mod regression_range;
pub(super) mod scope_and_map_disagree;
pub(super) mod settings_not_applied;
pub(super) mod snat_entry;
mod story;
pub(super) mod unknown_address_dropped;
pub(super) mod unknown_address_leaks;
pub(super) mod workaround_ignored;
pub(super) mod workaround_redundant;

use std::net::IpAddr;

use crate::{
    facts::{Facts, InterfaceAddress},
    predict::{cilium, node},
};

/// What Cilium's treatment of an address that it does not know follows from, fact by fact; `held` tells where the node
/// has it.
fn unknown_because(facts: &Facts, address: IpAddr, held: impl Fn(&InterfaceAddress) -> String) -> Vec<String> {
    let mut why = Vec::new();
    why.extend(cilium::version(facts).map(|version| format!("Cilium {version} ({})", facts.cilium.version.source())));
    why.extend(cilium::host_routing(facts).ok().map(|(_, how)| how));
    why.extend(cilium::knows(facts, address).ok().map(|(_, how)| how));
    why.extend(node::holders(facts, address).unwrap_or_default().into_iter().map(held));
    why.extend(cilium::skips_fib(facts).ok().map(|(_, how)| how));
    why
}
