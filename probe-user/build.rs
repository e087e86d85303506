//! Compiles the eBPF programs (package `hostdns-probe-ebpf`, binaries `probe` and `datapath`) into `OUT_DIR`, where
//! userspace embeds them. On a machine without an eBPF compiler the pure parts still build: the objects are then
//! empty and `cfg(hostdns_no_ebpf)` is set.

#[cfg(feature = "probe")]
#[path = "../xtask/src/ebpf_tools.rs"]
mod ebpf_tools;

fn main() -> anyhow::Result<()> {
    println!("cargo::rustc-check-cfg=cfg(hostdns_no_ebpf)");
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "probe")]
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        ebpf::build()?;
    }
    Ok(())
}

#[cfg(feature = "probe")]
mod ebpf {
    use std::{env, fs, path::PathBuf};

    use anyhow::{Context as _, bail};

    use crate::ebpf_tools::{Compiler, Places, REQUIRE_ENV, TOOLCHAIN_ENV};

    const OBJECTS: [&str; 2] = ["probe", "datapath"];

    /// Crates that may use unstable features on a stable compiler. aya-ebpf needs a few; its `core` comes ready
    /// with the compiler. Names, not `1`: with `1` aya-build would build `core` too, and wants its source.
    const UNSTABLE: &str = "aya_ebpf,aya_ebpf_bindings,aya_ebpf_cty,aya_log_ebpf,hostdns_probe_ebpf,probe,datapath";

    pub(crate) fn build() -> anyhow::Result<()> {
        println!("cargo::rerun-if-changed=../xtask/src/ebpf_tools.rs");
        // The eBPF build follows the workspace's profile and versions; aya-build itself watches `../probe-ebpf`.
        println!("cargo::rerun-if-changed=../Cargo.toml");
        println!("cargo::rerun-if-changed=../Cargo.lock");
        println!("cargo::rerun-if-env-changed={TOOLCHAIN_ENV}");

        let places = Places::from_env();
        let missing = match (places.compiler(), places.linker()) {
            (Some(compiler), Some(_)) => return compile(&places, &compiler),
            (None, Some(_)) => "an eBPF compiler",
            (Some(_), None) => "bpf-linker",
            (None, None) => "an eBPF compiler and bpf-linker",
        };
        leave_out(&places, missing)
    }

    fn compile(places: &Places, compiler: &Compiler) -> anyhow::Result<()> {
        let mut path = places.search_path();
        if places.program("rustup").is_none()
            && let Compiler::Packaged(prefix) = compiler
        {
            // Without rustup aya-build takes the first cargo there is: let that be the one that was found.
            path.insert(0, prefix.join("bin"));
        }
        let path = env::join_paths(path).context("PATH holds a directory with a colon in its name")?;
        // SAFETY: a build script has one thread here; aya-build starts its own only after this.
        unsafe {
            env::set_var("PATH", path);
            // aya-build hands cargo's progress on as warnings: let cargo speak only when something is wrong.
            env::set_var("CARGO_TERM_QUIET", "true");
            env::remove_var("RUSTC_BOOTSTRAP");
            if !matches!(compiler, Compiler::Nightly(_)) {
                env::set_var("RUSTC_BOOTSTRAP", UNSTABLE);
            }
        }
        let package = aya_build::Package {
            name: "hostdns-probe-ebpf",
            root_dir: "../probe-ebpf",
            features: &["ebpf"],
            no_default_features: false,
        };
        let toolchain = compiler.toolchain();
        aya_build::build_ebpf([package], aya_build::Toolchain::Custom(&toolchain)).with_context(|| {
            format!(
                "cannot compile the eBPF programs with toolchain {toolchain}; if the linker speaks of bitcode \
                 versions, it is older than the compiler: `cargo xtask setup` puts that right"
            )
        })?;
        let out_dir = out_dir()?;
        for object in OBJECTS {
            if !out_dir.join(object).is_file() {
                bail!("the eBPF build left no object `{object}` (is AYA_BUILD_SKIP set?)");
            }
        }
        Ok(())
    }

    /// Builds on without eBPF, and says so: at compile time here, at run time through `cfg(hostdns_no_ebpf)`.
    fn leave_out(places: &Places, missing: &str) -> anyhow::Result<()> {
        // Look again when a tool was installed. Only things that exist may be named: cargo takes a missing one as
        // changed, and would build the crate anew every time.
        println!("cargo::rerun-if-env-changed={REQUIRE_ENV}");
        let watched = [
            places.cargo_bin.clone(),
            places.rustup_home.join("update-hashes"),
            places.rustup_home.join("settings.toml"),
            PathBuf::from("/var/lib/dpkg/status"),
        ];
        for path in watched.iter().filter(|path| path.exists()) {
            println!("cargo::rerun-if-changed={}", path.display());
        }
        if env::var(REQUIRE_ENV).as_deref() == Ok("1") {
            bail!("cannot compile the eBPF programs: no {missing}; `cargo xtask setup` installs what is missing");
        }
        println!(
            "cargo::warning=building without eBPF, as there is no {missing}: check, trace and lab will not work; \
             `cargo xtask setup` installs what is missing"
        );
        println!("cargo::rustc-cfg=hostdns_no_ebpf");
        let out_dir = out_dir()?;
        for object in OBJECTS {
            fs::write(out_dir.join(object), b"").with_context(|| format!("cannot write the empty object {object}"))?;
        }
        Ok(())
    }

    fn out_dir() -> anyhow::Result<PathBuf> {
        env::var_os("OUT_DIR").map(PathBuf::from).context("cargo did not set OUT_DIR")
    }
}
