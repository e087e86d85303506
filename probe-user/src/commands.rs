//! One file per subcommand.

pub mod explain;
