//! Programs that a command makes use of where they are there, and that it can do without.

use super::{Found, Step, agreed};
use crate::{
    cli::Consent,
    ebpf_tools::Places,
    step::{shown, step, succeed},
};

#[derive(Debug)]
pub(crate) struct Tools {
    /// What they are, in a few words.
    pub(super) purpose: &'static str,
    /// What happens without them.
    without: &'static str,
    /// Each program, and the Debian package that holds it.
    programs: &'static [(&'static str, &'static str)],
}

/// What `bench` compares with.
pub(crate) const MEASURING: Tools = Tools {
    purpose: "tools to compare with",
    without: "not compared with",
    programs: &[("tcpdump", "tcpdump"), ("bpftrace", "bpftrace"), ("dig", "bind9-dnsutils")],
};

/// What the end-to-end tests hold the command against. In CI a test that lacks its program fails.
pub(crate) const TESTING: Tools = Tools {
    purpose: "tools to test with",
    without: "not tested with",
    programs: &[("tshark", "tshark"), ("dnsperf", "dnsperf")],
};

impl Tools {
    pub(super) fn hold_all(&self, packages: &[&str]) -> bool {
        packages.iter().all(|package| self.programs.iter().any(|(_, of)| of == package))
    }

    fn missing(&self, is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
        self.programs.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect()
    }
}

/// Installs what is missing of them. Where that cannot be, what needs them says so itself.
pub(crate) fn tools(consent: Consent, tools: &Tools) -> anyhow::Result<()> {
    let places = Places::from_env();
    let packages = tools.missing(|program| places.program(program).is_some());
    if packages.is_empty() {
        return Ok(());
    }
    let found = Found::look();
    if !found.apt {
        eprintln!("setup: {} what is missing here (there is no apt): {}", tools.without, packages.join(", "));
        return Ok(());
    }
    let commands = Step::Packages(packages.clone()).commands(&found)?;
    if !agreed(consent, &format!("Missing are {}.", tools.purpose), &commands)? {
        eprintln!("setup: {}: {}", tools.without, packages.join(", "));
        return Ok(());
    }
    for (what, mut command) in commands {
        let _ = step(&format!("{what}: {}", shown(&command)), || succeed(&mut command));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_installed_again() {
        assert_eq!(TESTING.missing(|_| false), ["tshark", "dnsperf"]);
        assert_eq!(TESTING.missing(|program| program == "tshark"), ["dnsperf"]);
        assert_eq!(MEASURING.missing(|program| program != "dig"), ["bind9-dnsutils"]);
    }

    /// Nobody answers tshark's question whether others than root may capture.
    #[test]
    fn packages_ask_no_questions() {
        let found = Found { apt: true, root: true, ..Found::look() };
        for (_, command) in Step::Packages(vec!["tshark"]).commands(&found).unwrap() {
            assert!(command.get_args().any(|arg| arg == "DEBIAN_FRONTEND=noninteractive"), "{command:?}");
        }
        assert_eq!(Step::purpose(&["tshark"]), "tools to test with");
        assert_eq!(Step::purpose(&["tcpdump"]), "tools to compare with");
    }
}
