//! Does CoreDNS forwarding to the node's own DNS survive eBPF masquerade here, and if not, which packet died
//! where, why, and what fixes it?
//!
//! The way of the data: [`facts`] gather, [`query`] ask, [`trace`] follow, [`checks`] and [`verdict`] judge,
//! [`report`] reports.

#[cfg(all(feature = "probe", target_os = "linux"))]
pub mod check;
pub mod checks;
pub mod cli;
pub mod commands;
pub mod diff;
pub mod ended;
pub mod facts;
#[cfg(all(feature = "probe", target_os = "linux"))]
pub mod lab;
pub mod logging;
#[cfg(all(feature = "probe", target_os = "linux"))]
mod netlink;
#[cfg(all(feature = "probe", target_os = "linux"))]
pub mod netns;
pub mod predict;
pub mod printer;
pub mod query;
pub mod report;
pub mod target;
pub mod trace;
pub mod verdict;
