//! The lab: cilium issue 36761, its relatives and its fixes, in network namespaces on one machine.

pub mod agent;
pub mod datapath;
pub mod spec;
