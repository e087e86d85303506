//! What the probe could not do, and what that costs.

pub(super) mod cgroup_root_not_found;
pub(super) mod events_lost;
pub(super) mod hook_unavailable;
pub(super) mod missing_privilege;
pub(super) mod namespace_unreachable;
pub(super) mod no_btf;
pub(super) mod out_of_time;
pub(super) mod source_unreachable;
pub(super) mod sources_disagree;
pub(super) mod talos_resources_differ;
pub(super) mod unknown_map_layout;
