//! Which eBPF compiler and linker this machine has. `cargo xtask setup` and `probe-user/build.rs` (by `#[path]`)
//! both ask here, so that what one finds the other uses. Standard library only: a build script compiles it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Names the toolchain that compiles eBPF (a rustup toolchain, or a directory with `bin/rustc`), instead of
/// looking for one.
pub(crate) const TOOLCHAIN_ENV: &str = "HOSTDNS_PROBE_EBPF_TOOLCHAIN";
/// Set to 1, a build without an eBPF compiler fails instead of leaving the eBPF programs out.
pub(crate) const REQUIRE_ENV: &str = "HOSTDNS_PROBE_REQUIRE_EBPF";

/// A toolchain that can compile for `bpfel-unknown-none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// What [`TOOLCHAIN_ENV`] says.
    Named(String),
    /// A rustup nightly with rust-src: it builds `core` for eBPF itself (build-std).
    Nightly(String),
    /// The distribution's rustc with a ready `core` for eBPF, under this prefix (Debian's `rustc-web`: `/usr`).
    Packaged(PathBuf),
}

impl Compiler {
    /// What `rustup run` takes: a toolchain's name, or its directory.
    pub(crate) fn toolchain(&self) -> String {
        match self {
            Self::Named(name) | Self::Nightly(name) => name.clone(),
            Self::Packaged(prefix) => prefix.display().to_string(),
        }
    }
}

/// Where toolchains and tools are installed.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) named: Option<String>,
    pub(crate) rustup_home: PathBuf,
    pub(crate) cargo_bin: PathBuf,
    /// The distribution's prefix.
    pub(crate) prefix: PathBuf,
    pub(crate) path: Vec<PathBuf>,
}

impl Places {
    pub(crate) fn from_env() -> Self {
        let home = env::home_dir().unwrap_or_else(|| PathBuf::from("/root"));
        let or_home = |var, below: &str| env::var_os(var).map_or_else(|| home.join(below), PathBuf::from);
        Self {
            named: env::var(TOOLCHAIN_ENV).ok().filter(|name| !name.is_empty()),
            rustup_home: or_home("RUSTUP_HOME", ".rustup"),
            cargo_bin: or_home("CARGO_HOME", ".cargo").join("bin"),
            prefix: "/usr".into(),
            path: env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
        }
    }

    /// The eBPF compiler to use: the named one, else a nightly with rust-src, else the distribution's.
    pub(crate) fn compiler(&self) -> Option<Compiler> {
        self.named.clone().map(Compiler::Named).or_else(|| self.nightly()).or_else(|| self.packaged())
    }

    /// rust-src is what counts: a nightly without it cannot build `core` for eBPF.
    fn nightly(&self) -> Option<Compiler> {
        self.program("rustup")?;
        let mut names: Vec<String> = fs::read_dir(self.rustup_home.join("toolchains"))
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("nightly"))
            .filter(|name| {
                let library = self.rustup_home.join("toolchains").join(name).join("lib/rustlib/src/rust/library");
                library.join("core").is_dir()
            })
            .collect();
        // `nightly-x86_64-...` sorts after `nightly-2026-01-01-...`, and later dates after earlier ones.
        names.sort();
        names.pop().map(Compiler::Nightly)
    }

    fn packaged(&self) -> Option<Compiler> {
        let libraries = fs::read_dir(self.prefix.join("lib/rustlib/bpfel-unknown-none/lib")).ok()?;
        let has_core = libraries.flatten().any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"libcore-"));
        let has_tools = ["rustc", "cargo"].iter().all(|tool| self.prefix.join("bin").join(tool).is_file());
        (has_core && has_tools).then(|| Compiler::Packaged(self.prefix.clone()))
    }

    /// The eBPF linker: on PATH, or where `cargo install` puts it.
    pub(crate) fn linker(&self) -> Option<PathBuf> {
        self.program("bpf-linker")
    }

    /// The first `name` in `~/.cargo/bin` and then on PATH: the order of [`Self::search_path`].
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        self.search_path().iter().map(|dir| dir.join(name)).find(|path| is_executable(path))
    }

    /// PATH with `~/.cargo/bin` in front, so that rustup's cargo comes before the distribution's, and
    /// bpf-linker is found in a shell that was started before rustup was installed.
    pub(crate) fn search_path(&self) -> Vec<PathBuf> {
        let mut path = vec![self.cargo_bin.clone()];
        path.extend(self.path.iter().filter(|dir| **dir != self.cargo_bin).cloned());
        path
    }
}

fn is_executable(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    }
    #[cfg(not(unix))]
    {
        path.is_file()
    }
}
