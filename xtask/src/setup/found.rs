//! What this machine has.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::bail;

use crate::{
    ebpf_tools::{Compiler, Places},
    workspace,
};

/// Who makes this system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    Debian,
    Fedora,
    Arch,
    OtherLinux,
    MacOs,
}

/// A bpf-linker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Linker {
    pub(super) version: (u32, u32, u32),
    /// The LLVM it reads bitcode with. It does not say, so `None` where the binary does not show it.
    pub(super) llvm: Option<u32>,
}

#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) system: System,
    pub(super) rustup: bool,
    pub(super) compiler: Option<Compiler>,
    /// The compiler's LLVM, where it can be run.
    pub(super) compiler_llvm: Option<u32>,
    pub(super) linker: Option<Linker>,
    /// LLVM development files that bpf-linker can be built with: major versions.
    pub(super) llvm_dev: Vec<u32>,
    pub(super) c_compiler: bool,
    pub(super) apt: bool,
    pub(super) binstall: bool,
    pub(super) root: bool,
    pub(super) sudo: bool,
}

impl Found {
    pub(super) fn look() -> Self {
        let places = Places::from_env();
        let compiler = places.compiler();
        let has = |program| places.program(program).is_some();
        Self {
            system: system(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
            rustup: has("rustup"),
            compiler_llvm: compiler.as_ref().and_then(|compiler| compiler_llvm(&places, compiler)),
            compiler,
            linker: places.linker().and_then(|path| linker(&path)),
            // bpf-linker links against libPolly too, which has a package of its own.
            llvm_dev: (21..=23)
                .filter(|major| {
                    let prefix = PathBuf::from(format!("/usr/lib/llvm-{major}"));
                    prefix.join("bin/llvm-config").exists() && prefix.join("lib/libPolly.a").exists()
                })
                .collect(),
            c_compiler: has("cc"),
            apt: has("apt-get"),
            binstall: has("cargo-binstall"),
            root: workspace::is_root(),
            sudo: has("sudo"),
        }
    }

    /// In one line.
    pub(super) fn summary(&self) -> String {
        let compiler = match &self.compiler {
            Some(compiler) => {
                let llvm = self.compiler_llvm.map(|llvm| format!(", LLVM {llvm}")).unwrap_or_default();
                match compiler {
                    Compiler::Named(name) => format!("eBPF compiler as named: {name}{llvm}"),
                    Compiler::Nightly(name) => format!("eBPF compiler: rustup's {name} with rust-src{llvm}"),
                    Compiler::Packaged(prefix) => {
                        format!("eBPF compiler: {}{llvm}", prefix.join("bin/rustc").display())
                    }
                }
            }
            None => "no eBPF compiler".to_owned(),
        };
        let linker = match &self.linker {
            Some(Linker { version: (major, minor, patch), llvm }) => {
                let llvm = llvm.map(|llvm| format!(", LLVM {llvm}")).unwrap_or_default();
                format!("bpf-linker {major}.{minor}.{patch}{llvm}")
            }
            None => "no bpf-linker".to_owned(),
        };
        format!("{compiler}; {linker}")
    }

    /// A command as root: as it is for root, through sudo for others.
    pub(super) fn as_root(&self, program: &str) -> anyhow::Result<Command> {
        const QUESTIONS: &str = "DEBIAN_FRONTEND=noninteractive";
        let mut command = Command::new("env");
        if !self.root {
            if !self.sudo {
                bail!("installing packages needs root, and there is no sudo: run `cargo xtask setup` once as root");
            }
            command = Command::new("sudo");
        }
        command.args([QUESTIONS, program]);
        Ok(command)
    }
}

/// From the text of /etc/os-release.
fn system(os_release: &str) -> System {
    if cfg!(target_os = "macos") {
        return System::MacOs;
    }
    let mut ids: Vec<&str> = Vec::new();
    for line in os_release.lines() {
        if let Some(value) = line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")) {
            ids.extend(value.trim_matches('"').split_whitespace());
        }
    }
    if ids.iter().any(|id| ["debian", "ubuntu"].contains(id)) {
        System::Debian
    } else if ids.iter().any(|id| ["fedora", "rhel", "centos"].contains(id)) {
        System::Fedora
    } else if ids.contains(&"arch") {
        System::Arch
    } else {
        System::OtherLinux
    }
}

fn compiler_llvm(places: &Places, compiler: &Compiler) -> Option<u32> {
    let toolchain = compiler.toolchain();
    let prefix = if Path::new(&toolchain).is_absolute() {
        PathBuf::from(&toolchain)
    } else {
        places.rustup_home.join("toolchains").join(&toolchain)
    };
    llvm_of_rustc(&output(Command::new(prefix.join("bin/rustc")).arg("-vV"))?)
}

/// From `rustc -vV`: `LLVM version: 22.1.8`.
fn llvm_of_rustc(text: &str) -> Option<u32> {
    text.lines().find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next()?.trim().parse().ok())
}

fn linker(path: &Path) -> Option<Linker> {
    let version = version(&output(Command::new(path).arg("--version"))?)?;
    // Linked to a shared LLVM it names the library; built with one, it carries the string that LLVM writes into
    // bitcode to identify its producer.
    let shared = grep(path, r"libLLVM(\.so\.|-)[0-9]+");
    let llvm = shared.or_else(|| grep(path, r"LLVM[0-9]+\.[0-9]+\.[0-9]+"));
    Some(Linker { version, llvm: llvm.as_deref().and_then(first_number) })
}

/// From `bpf-linker 0.13.0`.
fn version(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.split_whitespace().nth(1)?.split(['.', '-']).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn first_number(text: &str) -> Option<u32> {
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The first match in a binary file. grep(1): 40 MB through an unoptimised loop of our own would take a second.
fn grep(path: &Path, pattern: &str) -> Option<String> {
    output(Command::new("grep").args(["-a", "-o", "-E", "-m1", pattern]).arg(path))
}

/// What a command prints, if it succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.env("LC_ALL", "C").output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_told_by_what_they_are_like() {
        assert_eq!(system("NAME=\"Debian GNU/Linux\"\nID=debian\n"), System::Debian);
        assert_eq!(system("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), System::Debian);
        assert_eq!(system("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), System::Fedora);
        assert_eq!(system("ID=manjaro\nID_LIKE=arch\n"), System::Arch);
        assert_eq!(system("ID=alpine\nVERSION_ID=3.22\n"), System::OtherLinux);
        assert_eq!(system(""), System::OtherLinux);
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version("bpf-linker 0.13.0\n"), Some((0, 13, 0)));
        assert_eq!(version("bpf-linker 0.14.1-rc1\n"), Some((0, 14, 1)));
        assert_eq!(version("bpf-linker\n"), None);
        assert_eq!(llvm_of_rustc("rustc 1.96.0\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(llvm_of_rustc("rustc 1.96.0\n"), None);
        assert_eq!(first_number("libLLVM.so.22"), Some(22));
        assert_eq!(first_number("libLLVM-19"), Some(19));
        assert_eq!(first_number("LLVM23.1.0"), Some(23));
        assert_eq!(first_number("LLVM"), None);
    }
}
