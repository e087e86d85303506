//! Where it is measured: a lab brought up by the command under test, or namespaces with many veths.

use std::{
    ffi::OsStr,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, bail};
use hostdns_probe::{lab::topology::NODE_V4, netns::Netns};

/// The address and port under test in every place.
pub(crate) const SERVER: &str = "169.254.116.108:53";

pub(crate) fn server() -> anyhow::Result<SocketAddr> {
    SERVER.parse().context("the address under test")
}

/// The node's own address: what goes there takes the same way, and no tracer follows it.
pub(crate) const OTHER_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(NODE_V4), 5399);

/// A standing lab; it goes away with its guard.
pub(crate) struct Lab<'a> {
    pub(crate) probe: &'a Path,
    name: String,
    pub(crate) node: Netns,
    pub(crate) pod: Netns,
}

impl<'a> Lab<'a> {
    pub(crate) fn up(probe: &'a Path, scenario: &str) -> anyhow::Result<Self> {
        let name = format!("bench-{}-{scenario}", std::process::id());
        let output = Command::new(probe).args(["lab", "up", scenario, "--name", &name]).output()?;
        succeeded(&output, "lab up")?;
        let find = || {
            Ok::<_, anyhow::Error>((
                end_to_end::lab::netns(probe, &name, None)?,
                end_to_end::lab::netns(probe, &name, Some("coredns"))?,
            ))
        };
        match find() {
            Ok((node, pod)) => Ok(Self { probe, name, node, pod }),
            Err(error) => {
                let _ = Command::new(probe).args(["lab", "down", &name]).output();
                Err(error)
            }
        }
    }

    /// A command in the node's namespaces, or in the pod's.
    pub(crate) fn command<I: AsRef<OsStr>>(&self, pod: bool, args: impl IntoIterator<Item = I>) -> Command {
        exec(self.probe, &self.name, pod.then_some("coredns"), args)
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        let down = Command::new(self.probe).args(["lab", "down", &self.name]).stdout(Stdio::null()).status();
        if !down.is_ok_and(|status| status.success()) {
            eprintln!("bench: {} is left standing; hostdns-probe lab down {}", self.name, self.name);
        }
    }
}

fn exec<I: AsRef<OsStr>>(probe: &Path, lab: &str, pod: Option<&str>, args: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(probe);
    command.args(["lab", "exec", "--lab", lab]);
    if let Some(pod) = pod {
        command.args(["--pod", pod]);
    }
    command.arg("--").args(args);
    command
}

/// A node of its own with `veths` devices like Cilium's, and the address on `lo`.
pub(crate) fn many_veths(veths: usize) -> anyhow::Result<Netns> {
    let netns = Netns::new()?;
    let mut batch = String::from("link set lo up\naddr add 169.254.116.108/32 dev lo scope host\n");
    for number in 0..veths {
        batch.push_str(&format!("link add lxc{number} up type veth peer name peer{number}\n"));
    }
    use std::io::Write as _;
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(batch.as_bytes())?;
    let output = netns.run(|| Command::new("ip").arg("-batch").arg(file.path()).output())??;
    succeeded(&output, "ip -batch")?;
    Ok(netns)
}

pub(crate) fn succeeded(output: &Output, what: &str) -> anyhow::Result<()> {
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
