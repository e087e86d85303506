//! From what a machine has to what has to be done: a pure function.

use super::found::{Found, Linker, System};

/// The bpf-linker that is installed where there is none, and the oldest that is kept.
pub(super) const LINKER: &str = "0.13.0";
const OLDEST_LINKER: (u32, u32, u32) = (0, 13, 0);

/// The LLVM of Debian's rustc-web, and the newest that Debian has development files of.
const DEBIAN_LLVM: u32 = 22;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Ready,
    Install(Vec<Step>),
    /// Nothing can be done from here: say what to do.
    Stop(Missing),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// From Debian, with apt.
    Packages(Vec<&'static str>),
    /// bpf-linker built from source, with the LLVM development files of this major version.
    BuildLinker { llvm: u32 },
    /// bpf-linker prebuilt, with cargo-binstall: it brings an LLVM of its own.
    FetchLinker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// macOS: no Linux kernel here to load eBPF into.
    Linux,
    CCompiler,
    Compiler,
    Linker,
}

pub(super) fn decide(found: &Found) -> Plan {
    if found.system == System::MacOs {
        return Plan::Stop(Missing::Linux);
    }
    let debian = found.apt && found.system == System::Debian;
    let mut packages = Vec::new();
    let mut steps = Vec::new();
    if !found.c_compiler {
        if !debian {
            return Plan::Stop(Missing::CCompiler);
        }
        packages.extend(["gcc", "libc6-dev"]);
    }
    // None: a compiler that does not say; whichever linker is there is taken to serve it.
    let llvm = if found.compiler.is_some() {
        found.compiler_llvm
    } else if debian {
        packages.extend(["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"]);
        Some(DEBIAN_LLVM)
    } else {
        return Plan::Stop(Missing::Compiler);
    };
    if !found.linker.as_ref().is_some_and(|linker| serves(linker, llvm)) {
        // Bitcode is read by the same LLVM or a newer one, never by an older one.
        let new_enough = |have: u32| llvm.is_none_or(|wanted| have >= wanted);
        let built_with = found.llvm_dev.iter().copied().filter(|have| new_enough(*have)).min();
        if let Some(llvm) = built_with {
            steps.push(Step::BuildLinker { llvm });
        } else if found.binstall {
            steps.push(Step::FetchLinker);
        } else if debian && new_enough(DEBIAN_LLVM) {
            packages.extend(["llvm-22-dev", "libpolly-22-dev"]);
            steps.push(Step::BuildLinker { llvm: DEBIAN_LLVM });
        } else {
            return Plan::Stop(Missing::Linker);
        }
    }
    if !packages.is_empty() {
        steps.insert(0, Step::Packages(packages));
    }
    if steps.is_empty() { Plan::Ready } else { Plan::Install(steps) }
}

/// Whether a linker is new enough for bitcode of the compiler's LLVM.
fn serves(linker: &Linker, llvm: Option<u32>) -> bool {
    let reads = match (linker.llvm, llvm) {
        (Some(have), Some(wanted)) => have >= wanted,
        // Not known is no reason to install over what somebody chose: the build will tell.
        _ => true,
    };
    linker.version >= OLDEST_LINKER && reads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ebpf_tools::Compiler;

    /// A Debian machine with rustup's stable and nothing else.
    fn bare() -> Found {
        Found {
            system: System::Debian,
            rustup: true,
            compiler: None,
            compiler_llvm: None,
            linker: None,
            llvm_dev: Vec::new(),
            c_compiler: true,
            apt: true,
            binstall: false,
            root: true,
            sudo: false,
        }
    }

    fn packaged() -> Found {
        Found { compiler: Some(Compiler::Packaged("/usr".into())), compiler_llvm: Some(22), ..bare() }
    }

    fn nightly(llvm: u32) -> Found {
        Found { compiler: Some(Compiler::Nightly("nightly".into())), compiler_llvm: Some(llvm), ..bare() }
    }

    fn linker(minor: u32, llvm: u32) -> Option<Linker> {
        Some(Linker { version: (0, minor, 0), llvm: Some(llvm) })
    }

    #[test]
    fn a_bare_debian_gets_compiler_and_linker() {
        let packages = vec!["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "llvm-22-dev", "libpolly-22-dev"];
        let steps = vec![Step::Packages(packages), Step::BuildLinker { llvm: 22 }];
        assert_eq!(decide(&bare()), Plan::Install(steps));
    }

    #[test]
    fn a_complete_machine_is_left_alone() {
        assert_eq!(decide(&Found { linker: linker(13, 22), ..packaged() }), Plan::Ready);
        assert_eq!(decide(&Found { linker: linker(14, 23), ..packaged() }), Plan::Ready);
        assert_eq!(decide(&Found { linker: linker(13, 23), apt: false, ..nightly(23) }), Plan::Ready);
    }

    #[test]
    fn only_what_is_missing_is_installed() {
        let linker_only = Plan::Install(vec![Step::BuildLinker { llvm: 22 }]);
        assert_eq!(decide(&Found { llvm_dev: vec![22], ..packaged() }), linker_only);
        let compiler_only =
            Plan::Install(vec![Step::Packages(vec!["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"])]);
        assert_eq!(decide(&Found { linker: linker(13, 22), ..bare() }), compiler_only);
    }

    #[test]
    fn a_linker_older_than_the_compiler_is_replaced() {
        let steps = Plan::Install(vec![Step::BuildLinker { llvm: 22 }]);
        assert_eq!(decide(&Found { linker: linker(13, 21), llvm_dev: vec![21, 22, 23], ..packaged() }), steps);
        assert_eq!(decide(&Found { linker: linker(10, 22), llvm_dev: vec![22], ..packaged() }), steps);
    }

    #[test]
    fn a_linker_that_does_not_show_its_llvm_is_kept() {
        let linker = Some(Linker { version: (0, 13, 0), llvm: None });
        assert_eq!(decide(&Found { linker, ..nightly(23) }), Plan::Ready);
    }

    #[test]
    fn rustup_users_get_the_prebuilt_linker() {
        assert_eq!(decide(&Found { binstall: true, ..nightly(23) }), Plan::Install(vec![Step::FetchLinker]));
    }

    #[test]
    fn a_nightly_newer_than_debians_llvm_is_not_given_a_linker_that_cannot_read_it() {
        assert_eq!(decide(&nightly(23)), Plan::Stop(Missing::Linker));
        let steps = vec![Step::Packages(vec!["llvm-22-dev", "libpolly-22-dev"]), Step::BuildLinker { llvm: 22 }];
        assert_eq!(decide(&nightly(22)), Plan::Install(steps));
    }

    #[test]
    fn without_debians_packages_it_stops_and_says_what_is_missing() {
        for system in [System::Fedora, System::Arch, System::OtherLinux] {
            let elsewhere = Found { system, apt: false, ..bare() };
            assert_eq!(decide(&elsewhere), Plan::Stop(Missing::Compiler));
            let compiler = Some(Compiler::Nightly("nightly".into()));
            assert_eq!(decide(&Found { compiler, ..elsewhere.clone() }), Plan::Stop(Missing::Linker));
            assert_eq!(decide(&Found { c_compiler: false, ..elsewhere }), Plan::Stop(Missing::CCompiler));
        }
    }

    #[test]
    fn macos_is_sent_to_a_virtual_machine() {
        assert_eq!(decide(&Found { system: System::MacOs, ..packaged() }), Plan::Stop(Missing::Linux));
    }

    #[test]
    fn a_missing_c_compiler_comes_from_debian_too() {
        let found = Found { c_compiler: false, linker: linker(13, 22), ..packaged() };
        assert_eq!(decide(&found), Plan::Install(vec![Step::Packages(vec!["gcc", "libc6-dev"])]));
    }
}
