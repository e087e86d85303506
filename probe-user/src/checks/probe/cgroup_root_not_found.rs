//! HDP004 cgroup-root-not-found: sockets cannot be watched.

use crate::checks::{Case, Check, Finding, Severity, code::Code};

pub(in crate::checks) const CHECK: Check = Check { code: Code::CgroupRootNotFound, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
The cgroup v2 hierarchy's real root was not found, so sockets are not watched.

One attachment at the root of the cgroup v2 hierarchy sees every socket of the node send and
receive, the host DNS server's too. In a private cgroup namespace the mount shows a subtree only,
and attaching there would see this container alone. Nothing is concluded from the silence of the
socket hook then; devices are still watched.

By hand: `ls -id /sys/fs/cgroup` shows 1 at the root, and `stat -fc %T /sys/fs/cgroup` shows
cgroup2fs.

Fix: give the probe hostPID and the host's /sys/fs/cgroup (deploy/daemonset.yaml does), or name the
root with --cgroup-root. Its directory has inode 1.

Versions: cgroup v2 alone; private cgroup namespaces are what container runtimes give by default
there.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let root = &case.facts.kernel.cgroup_root;
    let Some(why) = root.why().filter(|_| !root.source().is_empty()) else {
        return Vec::new();
    };
    let title = "The cgroup v2 root was not found: nothing is concluded from the silence of sockets.";
    vec![Finding::new(Code::CgroupRootNotFound, Severity::Warn, title).evidence(format!("{}: {why}", root.source()))]
}

#[cfg(test)]
mod tests {
    use crate::{checks::testing::Scene, facts::Fact};

    #[test]
    fn only_where_it_was_looked_for() {
        assert_eq!(Scene::new().finding("HDP004"), None);
        let scene = Scene::new().facts(|f| f.kernel.cgroup_root = Fact::unavailable("inode 4711", "/sys/fs/cgroup"));
        assert!(scene.finding("HDP004").is_some());
    }
}
