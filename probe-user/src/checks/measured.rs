//! What was seen of the queries.

pub(super) mod answers_differ;
pub(super) mod malformed_answer;
pub(super) mod one_family_broken;
pub(super) mod one_transport_broken;
pub(super) mod port_unreachable;
pub(super) mod prediction_disagrees;
pub(super) mod query_dropped;
pub(super) mod query_leaked;
pub(super) mod query_lost;
pub(super) mod reply_dropped;
pub(super) mod reply_lost;
pub(super) mod slow;
pub(super) mod truncated_without_tcp;
pub(super) mod unanswered;
pub(super) mod upstream_failing;
