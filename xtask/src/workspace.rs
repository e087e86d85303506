//! This workspace, and the environment its commands run in.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use crate::ebpf_tools::{Places, REQUIRE_ENV};

pub(crate) const BINARY: &str = "hostdns-probe";

/// The workspace's directory.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Where cargo builds to. Handed to cargo again, so that the two cannot disagree.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that runs this xtask, at the workspace, failing rather than leaving eBPF out.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).arg(subcommand).env(REQUIRE_ENV, "1").env("CARGO_TARGET_DIR", target_dir());
    if let Some(path) = search_path() {
        command.env("PATH", path);
    }
    command
}

/// Options for building probe-user without eBPF, in a directory of its own: the command with everything stays.
pub(crate) fn without_probe() -> [OsString; 3] {
    ["--no-default-features".into(), "--target-dir".into(), target_dir().join("without-probe").into()]
}

/// PATH with rustup's directory in front: the distribution's cargo is there for eBPF alone.
pub(crate) fn search_path() -> Option<OsString> {
    env::join_paths(Places::from_env().search_path()).ok()
}

pub(crate) fn is_ci() -> bool {
    env::var("CI").is_ok_and(|ci| !ci.is_empty() && ci != "false" && ci != "0")
}

/// Whether this process is root, from the owner of its own entry in /proc.
pub(crate) fn is_root() -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
    }
    #[cfg(not(target_os = "linux"))]
    {
        false
    }
}
