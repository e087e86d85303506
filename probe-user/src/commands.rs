//! One file per subcommand.

#[cfg(all(feature = "probe", target_os = "linux"))]
pub mod wait;
