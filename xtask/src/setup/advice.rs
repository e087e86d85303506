//! The commands for those whose machine `setup` does not install on by itself.

use super::{
    found::{Found, System},
    plan::{LINKER, Missing},
};

/// What is missing and the exact commands that bring it.
pub(super) fn text(missing: Missing, found: &Found) -> String {
    let (what, commands) = match missing {
        Missing::Linux => (
            "eBPF needs a Linux kernel, and this is macOS. In a Linux VM it works the same",
            vec![
                "brew install lima".to_owned(),
                "limactl start --name=hostdns --cpus=4 --memory=8 template://debian-12".to_owned(),
                "limactl shell hostdns".to_owned(),
                "then, in the VM: install rustup (https://rustup.rs), clone, `cargo xtask setup`".to_owned(),
            ],
        ),
        Missing::CCompiler => ("there is no C compiler (cc), which rustc links with", c_compiler(found.system)),
        Missing::Compiler => {
            let mut commands = Vec::new();
            if !found.rustup {
                commands.extend(rustup(found.system));
            }
            commands.push("rustup toolchain install nightly --component rust-src".to_owned());
            if found.linker.is_none() {
                commands.extend(linker());
            }
            ("there is no eBPF compiler: a rustup nightly with rust-src is one", commands)
        }
        Missing::Linker => ("there is no bpf-linker that reads what the eBPF compiler writes", linker()),
    };
    let mut text = format!("{what}. The commands:\n");
    for command in commands {
        text.push_str("  ");
        text.push_str(&command);
        text.push('\n');
    }
    if missing != Missing::Linux {
        text.push_str("and then this one again.");
    }
    text
}

fn c_compiler(system: System) -> Vec<String> {
    let command = match system {
        System::Debian => "sudo apt-get install gcc libc6-dev",
        System::Fedora => "sudo dnf install gcc",
        System::Arch => "sudo pacman -S --needed gcc",
        System::OtherLinux | System::MacOs => "install gcc or clang with your package manager",
    };
    vec![command.to_owned()]
}

fn rustup(system: System) -> Vec<String> {
    let commands: &[&str] = match system {
        System::Fedora => &["sudo dnf install rustup gcc", "rustup-init -y && . ~/.cargo/env"],
        System::Arch => &["sudo pacman -S --needed rustup gcc && rustup default stable"],
        _ => &["curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . ~/.cargo/env"],
    };
    commands.iter().map(|&command| command.to_owned()).collect()
}

/// Prebuilt, as its authors recommend: built from source it needs an LLVM that fits the compiler's.
fn linker() -> Vec<String> {
    vec![
        "curl -fL https://github.com/aya-rs/bpf-linker/releases/latest/download/bpf-linker-$(uname \
         -m)-unknown-linux-musl.tar.zst | tar --zstd -x -C ~/.cargo/bin"
            .to_owned(),
        format!("or, with cargo-binstall: cargo binstall bpf-linker@{LINKER}"),
    ]
}

pub(super) fn report_it() -> &'static str {
    "the output of the commands above says why; HOSTDNS_PROBE_EBPF_TOOLCHAIN names a toolchain of your own"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elsewhere(system: System) -> Found {
        Found {
            system,
            rustup: false,
            compiler: None,
            compiler_llvm: None,
            linker: None,
            llvm_dev: Vec::new(),
            c_compiler: true,
            apt: false,
            binstall: false,
            root: false,
            sudo: true,
        }
    }

    #[test]
    fn each_system_gets_its_own_commands() {
        let fedora = text(Missing::Compiler, &elsewhere(System::Fedora));
        assert!(fedora.contains("sudo dnf install rustup gcc"), "{fedora}");
        assert!(fedora.contains("rustup toolchain install nightly --component rust-src"), "{fedora}");
        assert!(fedora.contains("bpf-linker-$(uname -m)-unknown-linux-musl"), "{fedora}");
        let arch = text(Missing::Compiler, &elsewhere(System::Arch));
        assert!(arch.contains("sudo pacman -S --needed rustup"), "{arch}");
        let macos = text(Missing::Linux, &elsewhere(System::MacOs));
        assert!(macos.contains("limactl start") && !macos.contains("nightly"), "{macos}");
    }

    #[test]
    fn a_rustup_user_is_not_told_to_install_rustup() {
        let found = Found { rustup: true, ..elsewhere(System::Fedora) };
        let text = text(Missing::Compiler, &found);
        assert!(!text.contains("rustup-init"), "{text}");
        assert!(text.contains("rustup toolchain install nightly --component rust-src"), "{text}");
    }
}
