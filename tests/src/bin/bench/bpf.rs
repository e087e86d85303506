//! What a process has in the kernel, from the fdinfo of its own descriptors: others' programs, of the same name too,
//! do not count. Fields: kernel/bpf/syscall.c, bpf_prog_show_fdinfo and bpf_map_show_fdinfo.

use std::collections::BTreeMap;

/// Run time of one kind of program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    pub(crate) time_ns: u64,
    pub(crate) count: u64,
}

impl Runs {
    pub(crate) const fn since(self, before: Self) -> Self {
        Self { time_ns: self.time_ns.saturating_sub(before.time_ns), count: self.count.saturating_sub(before.count) }
    }

    const fn plus(self, more: Self) -> Self {
        Self { time_ns: self.time_ns + more.time_ns, count: self.count + more.count }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Objects {
    /// By program id: type (enum bpf_prog_type) and runs.
    programs: BTreeMap<u32, (u32, Runs)>,
    /// By map id: bytes.
    maps: BTreeMap<u32, u64>,
}

const SCHED_CLS: u32 = 3;
const CGROUP_SKB: u32 = 8;
const TRACING: u32 = 26;

impl Objects {
    pub(crate) fn of(pid: u32) -> std::io::Result<Self> {
        let mut objects = Self::default();
        for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
            // One may be closed in between.
            objects.add(&std::fs::read_to_string(entry.path()).unwrap_or_default());
        }
        Ok(objects)
    }

    fn add(&mut self, text: &str) {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<u64>().ok())
        };
        let id = |name: &str| field(name).and_then(|id| u32::try_from(id).ok());
        // A link names its program too, but has no run count.
        if let (Some(id), Some(kind), Some(time_ns), Some(count)) =
            (id("prog_id"), id("prog_type"), field("run_time_ns"), field("run_cnt"))
        {
            self.programs.insert(id, (kind, Runs { time_ns, count }));
        }
        if let (Some(id), Some(bytes)) = (id("map_id"), field("memlock")) {
            self.maps.insert(id, bytes);
        }
    }

    pub(crate) fn map_bytes(&self) -> u64 {
        self.maps.values().sum()
    }

    pub(crate) fn all(&self) -> Runs {
        self.sum(|_| true)
    }

    /// Devices' programs: they see only what is sent in the lab.
    pub(crate) fn devices(&self) -> Runs {
        self.sum(|kind| kind == SCHED_CLS)
    }

    pub(crate) fn sockets(&self) -> Runs {
        self.sum(|kind| kind == CGROUP_SKB)
    }

    pub(crate) fn tracepoints(&self) -> Runs {
        self.sum(|kind| kind == TRACING)
    }

    fn sum(&self, of: impl Fn(u32) -> bool) -> Runs {
        self.programs.values().filter(|(kind, _)| of(*kind)).fold(Runs::default(), |sum, (_, runs)| sum.plus(*runs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_maps_are_read_once_each_and_links_are_neither() {
        let program =
            "pos:\t0\nprog_type:\t3\nprog_jited:\t1\nmemlock:\t4096\nprog_id:\t7\nrun_time_ns:\t900\nrun_cnt:\t3\n";
        let map = "pos:\t0\nmap_type:\t27\nmemlock:\t8192\nmap_id:\t9\n";
        let link = "pos:\t0\nlink_type:\ttcx\nlink_id:\t4\nprog_id:\t8\nifindex:\t2\n";
        let mut objects = Objects::default();
        for text in [program, map, link, program, map, "pos:\t0\n"] {
            objects.add(text);
        }
        assert_eq!(objects.all(), Runs { time_ns: 900, count: 3 });
        assert_eq!(objects.devices(), objects.all());
        assert_eq!(objects.sockets(), Runs::default());
        assert_eq!(objects.map_bytes(), 8192);
    }
}
