//! HDP002 no-btf: the kernel does not describe its own types.

use crate::checks::{Case, Check, Finding, Severity, code::Code};

pub(in crate::checks) const CHECK: Check = Check { code: Code::NoBtf, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The kernel offers no BTF, so drops and transmissions cannot be traced.

The programs on kfree_skb and net_dev_start_xmit read kernel structures through the kernel's own
type information (/sys/kernel/btf/vmlinux). Without it a dropped packet is only seen to vanish, and
the address that a leaked one leaves with is not known.

By hand: `ls -l /sys/kernel/btf/vmlinux`, in the probe's container too.

Fix: a kernel built with CONFIG_DEBUG_INFO_BTF=y (every distribution kernel since about 5.8, and
Talos). In a container, mount the host's /sys.

Versions: Linux with CONFIG_DEBUG_INFO_BTF, 5.4 and later; kernels are tested from 6.1 on.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let btf = &case.facts.kernel.btf;
    let Some(why) = btf.why().filter(|_| !btf.source().is_empty()) else {
        return Vec::new();
    };
    let title = "The kernel's type information (BTF) is not there: drops cannot be told from losses.";
    vec![Finding::new(Code::NoBtf, Severity::Warn, title).evidence(format!("{}: {why}", btf.source()))]
}

#[cfg(test)]
mod tests {
    use crate::{checks::testing::Scene, facts::Fact};

    #[test]
    fn only_where_it_was_looked_for() {
        assert_eq!(Scene::new().finding("HDP002"), None);
        let scene = Scene::new().facts(|f| f.kernel.btf = Fact::unavailable("no such file", "/sys/kernel/btf/vmlinux"));
        assert!(scene.finding("HDP002").unwrap().evidence[0].contains("/sys/kernel/btf/vmlinux: no such file"));
    }
}
