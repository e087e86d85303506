//! The node itself: address, listeners, routes, filters.

pub(super) mod address_absent;
pub(super) mod address_elsewhere;
pub(super) mod address_scope_hidden;
pub(super) mod listener_incomplete;
pub(super) mod local_route_missing;
pub(super) mod nobody_listens;
pub(super) mod node_firewall_blocks;
pub(super) mod rp_filter_strict;
