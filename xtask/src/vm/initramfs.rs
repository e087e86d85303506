//! The file system of the virtual machine: busybox, the probe, the kernel's modules, as a cpio archive
//! (Documentation/driver-api/early-userspace/buffer-format.rst, "newc").

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use super::{beside::Lab, kernel::Kernel};

/// What the lab needs of the kernel. What is built in is no module.
const MODULES: [&str; 13] = [
    "veth",
    "sch_ingress",
    "sch_tbf",
    "cls_bpf",
    "vxlan",
    "dummy",
    "tun",
    "nf_tables",
    "nf_conntrack",
    "inet_diag",
    "udp_diag",
    "tcp_diag",
    "unix_diag",
];

const INIT: &[u8] = include_bytes!("init.sh");

/// What a machine does: the arguments of `lab matrix`, and groups of labs that stand side by side before it.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) arguments: Vec<String>,
    pub(super) labs: Vec<Vec<Lab>>,
}

/// Builds the archive; the modules' names, in the order they are loaded in, are in it.
pub(super) fn build(kernel: &Kernel, busybox: &Path, probe: &Path, work: &Work) -> anyhow::Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "proc", "sys", "run", "tmp", "etc", "var", "modules", "labs"] {
        archive.directory(directory);
    }
    archive.file("init", 0o755, INIT);
    archive.file("bin/busybox", 0o755, &read(busybox)?);
    archive.link("bin/sh", "busybox");
    // As everywhere: the agent's socket is looked for below /var/run.
    archive.link("var/run", "/run");
    archive.file("bin/hostdns-probe", 0o755, &read(probe)?);
    archive.file("arguments", 0o644, work.arguments.join("\n").as_bytes());
    for (number, labs) in work.labs.iter().enumerate() {
        archive.directory(&format!("labs/{number}"));
        for lab in labs {
            archive.file(&format!("labs/{number}/{}", lab.name), 0o644, lab.node.as_bytes());
        }
    }
    let modules = Modules::new(kernel, busybox)?.needed(&MODULES)?;
    let mut order = String::new();
    for (name, content) in &modules {
        archive.file(&format!("modules/{name}.ko"), 0o644, content);
        order.push_str(name);
        order.push('\n');
    }
    archive.file("modules/order", 0o644, order.as_bytes());
    Ok(archive.finish())
}

/// A kernel's modules by name. The package has no modules.dep (depmod makes it on installation), but each module names
/// what it needs.
struct Modules<'a> {
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    busybox: &'a Path,
}

impl<'a> Modules<'a> {
    fn new(kernel: &Kernel, busybox: &'a Path) -> anyhow::Result<Self> {
        let directory = kernel.modules();
        let path = directory.join("modules.builtin");
        let built_in = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let built_in = built_in.lines().filter_map(|line| module_name(Path::new(line))).collect();
        let mut files = BTreeMap::new();
        let mut directories = vec![directory];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory)?.flatten() {
                let path = entry.path();
                if entry.file_type()?.is_dir() {
                    directories.push(path);
                } else if let Some(name) = module_name(&path) {
                    files.insert(name, path);
                }
            }
        }
        Ok(Self { files, built_in, busybox })
    }

    /// These modules and what they need, each after what it needs.
    fn needed(&self, wanted: &[&str]) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let (mut ordered, mut seen) = (Vec::new(), BTreeSet::new());
        for name in wanted {
            self.add(name, &mut ordered, &mut seen)?;
        }
        Ok(ordered)
    }

    fn add(&self, name: &str, ordered: &mut Vec<(String, Vec<u8>)>, seen: &mut BTreeSet<String>) -> anyhow::Result<()> {
        if self.built_in.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let path = self.files.get(name).with_context(|| format!("this kernel has no module {name}"))?;
        let content = self.content(path)?;
        for needed in dependencies(&content) {
            self.add(&needed, ordered, seen)?;
        }
        ordered.push((name.to_owned(), content));
        Ok(())
    }

    fn content(&self, path: &Path) -> anyhow::Result<Vec<u8>> {
        if path.extension().is_some_and(|end| end == "xz") {
            let output = Command::new(self.busybox).arg("xzcat").arg(path).output().context("cannot run busybox")?;
            if !output.status.success() {
                bail!("cannot unpack {}: {}", path.display(), String::from_utf8_lossy(&output.stderr).trim());
            }
            return Ok(output.stdout);
        }
        fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    }
}

/// `nf-tables.ko.xz` is the module nf_tables.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let name = file.strip_suffix(".ko").or_else(|| file.strip_suffix(".ko.xz"))?;
    Some(name.replace('-', "_"))
}

/// `depends=a,b` in the section .modinfo: strings that end with a NUL each.
fn dependencies(module: &[u8]) -> Vec<String> {
    let mut entries = module.split(|byte| *byte == 0);
    let depends = entries.find_map(|entry| entry.strip_prefix(b"depends=")).unwrap_or_default();
    let names = String::from_utf8_lossy(depends).replace('-', "_");
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// An archive in the making.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    fn file(&mut self, name: &str, permissions: u32, content: &[u8]) {
        self.entry(name, 0o100_000 | permissions, content);
    }

    fn link(&mut self, name: &str, to: &str) {
        self.entry(name, 0o120_777, to.as_bytes());
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let (inode, size, name_size) = (self.inode, content.len(), name.len() + 1);
        // Inode, mode, owner, group, links, time, size, device and special device (major, minor), name's size, check.
        let header = format!(
            "070701{inode:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}{:08x}{:08x}{:08x}{:08x}{name_size:08x}{:08x}",
            0, 0, 1, 0, 0, 0, 0, 0, 0
        );
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_needs() {
        let module = b"\x7fELF\0license=GPL\0depends=udp_tunnel,ip6-udp-tunnel\0name=vxlan\0";
        assert_eq!(dependencies(module), ["udp_tunnel", "ip6_udp_tunnel"]);
        assert!(dependencies(b"license=GPL\0depends=\0").is_empty());
        assert!(dependencies(b"").is_empty());
    }

    #[test]
    fn a_module_is_known_by_its_file() {
        assert_eq!(module_name(Path::new("kernel/drivers/net/veth.ko.xz")).as_deref(), Some("veth"));
        assert_eq!(module_name(Path::new("virtio-rng.ko")).as_deref(), Some("virtio_rng"));
        assert_eq!(module_name(Path::new("modules.order")), None);
    }

    #[test]
    fn entries_are_aligned_and_carry_their_sizes() {
        let mut archive = Archive::default();
        archive.file("init", 0o755, b"hello");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        // 110 bytes of header, "init\0", padded to 116; then the content, padded.
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22], b"000081ed");
        assert_eq!(&bytes[54..62], b"00000005");
        assert_eq!(&bytes[94..102], b"00000005");
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(&bytes[116..121], b"hello");
        assert_eq!(&bytes[124..130], b"070701");
    }
}
