//! CoreDNS, and from where the questions were asked.

pub(super) mod bypasses_host_dns;
pub(super) mod corefile_unreadable;
pub(super) mod no_vantage;
pub(super) mod not_on_this_node;
pub(super) mod on_host_network;
