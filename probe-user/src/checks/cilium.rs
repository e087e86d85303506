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
pub(super) mod unknown_address_dropped;
pub(super) mod unknown_address_leaks;
pub(super) mod workaround_ignored;
pub(super) mod workaround_redundant;
