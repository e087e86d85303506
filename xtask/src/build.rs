//! `cargo xtask build`: for development, or one static binary for any node.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{
    cli, elf, setup,
    step::{step, succeed},
    workspace::{self, BINARY},
};

const PACKAGE: &str = "probe-user";

pub(crate) fn run(options: &cli::Build) -> anyhow::Result<()> {
    setup::run(options.consent)?;
    let binary = if options.release {
        let target = options.target.clone().map_or_else(host, Ok)?;
        release(&target)?
    } else {
        development(options.target.as_deref())?
    };
    println!("{} ({})", binary.display(), size(&binary)?);
    Ok(())
}

/// Builds for development; the binary.
pub(crate) fn development(target: Option<&str>) -> anyhow::Result<PathBuf> {
    let mut cargo = workspace::cargo("build");
    cargo.args(["--package", PACKAGE]);
    let mut directory = workspace::target_dir();
    if let Some(target) = target {
        cross(target, &mut cargo)?;
        cargo.args(["--target", target]);
        directory.push(target);
    }
    step("build", || succeed(&mut cargo))?;
    Ok(directory.join("debug").join(BINARY))
}

/// Builds one static binary; where it is.
pub(crate) fn release(target: &str) -> anyhow::Result<PathBuf> {
    let mut cargo = workspace::cargo("build");
    cargo.args(["--package", PACKAGE, "--release", "--target", target]);
    cross(target, &mut cargo)?;
    link_statically(target, &mut cargo);
    step(&format!("build one static binary for {target}"), || succeed(&mut cargo))?;
    let binary = workspace::target_dir().join(target).join("release").join(BINARY);
    let file = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    match elf::is_static(&file) {
        Some(true) => Ok(binary),
        Some(false) => bail!(
            "{} is not static: it names an interpreter. Is there a `rustflags` or `linker` in a cargo \
             configuration of yours for {target}?",
            binary.display()
        ),
        None => bail!("{} is not a 64-bit ELF file", binary.display()),
    }
}

/// With an explicit `--target` the flag reaches the binary alone: a static proc macro could not be loaded.
fn link_statically(target: &str, cargo: &mut Command) {
    // Stripped here and not in the profile, which the eBPF programs are built with too: their BTF is debug
    // information. Symbols stay, for backtraces; without the rest a quarter of the file remains.
    const STATIC: &str = "-Ctarget-feature=+crt-static -Cstrip=debuginfo";
    // RUSTFLAGS in the environment would take the place of the target's own flags: add to them then.
    let theirs = env::var("RUSTFLAGS").unwrap_or_default();
    if theirs.is_empty() {
        cargo.env(format!("CARGO_TARGET_{}_RUSTFLAGS", variable(target)), STATIC);
    } else {
        cargo.env("RUSTFLAGS", format!("{theirs} {STATIC}"));
    }
}

/// Checks what a target needs beyond the host's own, and sets its linker.
fn cross(target: &str, cargo: &mut Command) -> anyhow::Result<()> {
    let host = host()?;
    let needs = needs(target, &host)?;
    if !has_standard_library(target)? {
        bail!("the Rust standard library for {target} is missing; to get it: rustup target add {target}");
    }
    let linker_variable = format!("CARGO_TARGET_{}_LINKER", variable(target));
    if let (Some(linker), None) = (&needs.linker, env::var_os(&linker_variable)) {
        if needs.package.is_some() && !on_path(linker) {
            bail!(
                "linking for {target} needs {linker}; on Debian: apt-get install {}. Or build for {}-unknown-linux-musl, \
                 which needs no C toolchain: rustup target add {}-unknown-linux-musl",
                needs.package.unwrap_or_default(),
                arch(target),
                arch(target)
            );
        }
        cargo.env(linker_variable, linker);
    }
    Ok(())
}

/// What a target needs to be linked here.
#[derive(Debug, PartialEq, Eq)]
struct Needs {
    linker: Option<String>,
    /// The Debian packages that bring it; `None` when it comes with Rust.
    package: Option<String>,
}

fn needs(target: &str, host: &str) -> anyhow::Result<Needs> {
    let same_arch = arch(target) == arch(host);
    match (target.ends_with("-linux-gnu"), target.ends_with("-linux-musl")) {
        (true, _) | (_, true) if same_arch => Ok(Needs { linker: None, package: None }),
        (true, _) if arch(target) == "aarch64" => Ok(Needs {
            linker: Some("aarch64-linux-gnu-gcc".to_owned()),
            package: Some("gcc-aarch64-linux-gnu libc6-dev-arm64-cross".to_owned()),
        }),
        (true, _) if arch(target) == "x86_64" => Ok(Needs {
            linker: Some("x86_64-linux-gnu-gcc".to_owned()),
            package: Some("gcc-x86-64-linux-gnu libc6-dev-amd64-cross".to_owned()),
        }),
        // Rust's musl targets bring their own C start files and libc, so its own linker is all that is needed.
        (_, true) => Ok(Needs { linker: Some("rust-lld".to_owned()), package: None }),
        _ => bail!("no way known to build for {target}: x86_64 and aarch64, -unknown-linux-gnu or -musl, are"),
    }
}

fn arch(target: &str) -> &str {
    target.split('-').next().unwrap_or(target)
}

/// A target as it stands in cargo's variable names.
fn variable(target: &str) -> String {
    target.to_uppercase().replace('-', "_")
}

pub(crate) fn on_path(program: &str) -> bool {
    crate::ebpf_tools::Places::from_env().program(program).is_some()
}

fn rustc(args: &[&str]) -> anyhow::Result<String> {
    let mut rustc = Command::new("rustc");
    if let Some(path) = workspace::search_path() {
        rustc.env("PATH", path);
    }
    let output = rustc.current_dir(workspace::root()).args(args).output().context("cannot run rustc")?;
    if !output.status.success() {
        bail!("rustc {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) fn host() -> anyhow::Result<String> {
    let version = rustc(&["-vV"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

fn has_standard_library(target: &str) -> anyhow::Result<bool> {
    let directory = rustc(&["--print", "target-libdir", "--target", target])?;
    let Ok(files) = fs::read_dir(directory.trim()) else { return Ok(false) };
    Ok(files.flatten().any(|file| file.file_name().as_encoded_bytes().starts_with(b"libstd-")))
}

fn size(file: &Path) -> anyhow::Result<String> {
    let bytes = fs::metadata(file).with_context(|| format!("no binary at {}", file.display()))?.len();
    Ok(format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "x86_64-unknown-linux-gnu";

    #[test]
    fn the_own_architecture_needs_nothing() {
        let nothing = Needs { linker: None, package: None };
        assert_eq!(needs(HOST, HOST).unwrap(), nothing);
        assert_eq!(needs("x86_64-unknown-linux-musl", HOST).unwrap(), nothing);
    }

    #[test]
    fn another_one_needs_a_linker() {
        let gnu = needs("aarch64-unknown-linux-gnu", HOST).unwrap();
        assert_eq!(gnu.linker.as_deref(), Some("aarch64-linux-gnu-gcc"));
        assert!(gnu.package.unwrap().contains("gcc-aarch64-linux-gnu"));
        let musl = needs("aarch64-unknown-linux-musl", HOST).unwrap();
        assert_eq!(musl, Needs { linker: Some("rust-lld".into()), package: None });
        assert!(needs("aarch64-apple-darwin", HOST).is_err());
    }

    #[test]
    fn cargo_variables_are_spelt_as_cargo_wants_them() {
        assert_eq!(variable(HOST), "X86_64_UNKNOWN_LINUX_GNU");
    }
}
