//! Argument groups that several subcommands share.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{Args, ValueEnum};

use crate::target::{DNS_PORT, HOST_DNS_V4, HOST_DNS_V6, Targets};

/// What is under test.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Target")]
pub struct TargetArgs {
    /// The node-local DNS address under test; may be given several times. Without it: Talos' host DNS
    /// (169.254.116.108, and fd54:616c:6f73::204f:5320:444e:531 where that is on `lo`). node-local-dns usually has
    /// 169.254.20.10 or 169.254.25.10
    #[arg(long, value_name = "IP")]
    pub address: Vec<IpAddr>,
    /// Its port
    #[arg(long, value_name = "PORT", default_value_t = DNS_PORT)]
    pub port: u16,
}

impl TargetArgs {
    /// The addresses that were named, or the defaults.
    #[must_use]
    pub fn targets(&self, v6_is_on_lo: bool) -> Targets {
        let addresses = match (self.address.is_empty(), v6_is_on_lo) {
            (false, _) => self.address.clone(),
            (true, false) => vec![HOST_DNS_V4],
            (true, true) => vec![HOST_DNS_V4, HOST_DNS_V6],
        };
        Targets { addresses, port: self.port }
    }
}

/// Where things are looked for.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Where to look")]
pub struct SourceArgs {
    /// The Cilium agent's API socket [default: /var/run/cilium/cilium.sock]
    #[arg(long, value_name = "PATH")]
    pub cilium_socket: Option<PathBuf>,
    /// Directory with Cilium's settings, one file per key (a mounted cilium-config ConfigMap). It is compared with what
    /// the agent was started with, and stands in for an agent that does not answer
    #[arg(long, value_name = "DIR")]
    pub cilium_config_dir: Option<PathBuf>,
    /// The Cilium agent's state directory, with what it compiled [default: /var/run/cilium/state]
    #[arg(long, value_name = "DIR")]
    pub cilium_state_dir: Option<PathBuf>,
    /// The BPF file system; Cilium's maps are below it in tc/globals [default: /sys/fs/bpf]
    #[arg(long, value_name = "DIR")]
    pub bpf_root: Option<PathBuf>,
    /// The cgroup v2 hierarchy's real root (the directory with inode 1) [default: searched for]
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
    /// procfs of the node's own PID namespace [default: /proc]
    #[arg(long, value_name = "DIR")]
    pub proc_root: Option<PathBuf>,
    /// Where the node's root directory is mounted, in a container (`/host` under `kubectl debug node`). The defaults
    /// above, except for procfs, are then looked for below it
    #[arg(long, value_name = "DIR")]
    pub host_root: Option<PathBuf>,
    /// Talos' resources of this node: what `talosctl get TYPE -o yaml` (or json) printed, of one type or of several
    /// behind each other: hostdnsconfig, addresses, addressspecs (also with --namespace network-config), resolvers,
    /// dnsupstream, dnsresolvecache. May be given several times
    #[arg(long, value_name = "FILE")]
    pub talos_resources: Vec<PathBuf>,
}

impl SourceArgs {
    #[must_use]
    pub fn cilium_socket(&self) -> PathBuf {
        self.cilium_socket.clone().unwrap_or_else(|| self.cilium_run().join("cilium.sock"))
    }

    #[must_use]
    pub fn cilium_state_dir(&self) -> PathBuf {
        self.cilium_state_dir.clone().unwrap_or_else(|| self.cilium_run().join("state"))
    }

    #[must_use]
    pub fn bpf_root(&self) -> PathBuf {
        self.bpf_root.clone().unwrap_or_else(|| self.on_node("sys/fs/bpf"))
    }

    #[must_use]
    pub fn proc_root(&self) -> PathBuf {
        // A container's own /proc shows the node's processes as soon as it shares the node's PID namespace; the one
        // below the host root may belong to a PID namespace in which ours do not exist.
        self.proc_root.clone().unwrap_or_else(|| PathBuf::from("/proc"))
    }

    /// The same, for the readers.
    #[cfg(all(feature = "probe", target_os = "linux"))]
    #[must_use]
    pub fn sources(&self, targets: Targets) -> crate::facts::Sources {
        crate::facts::Sources {
            targets,
            cilium_socket: self.cilium_socket(),
            cilium_config_dir: self.cilium_config_dir.clone(),
            cilium_state_dir: self.cilium_state_dir(),
            bpf_root: self.bpf_root(),
            cgroup_root: self.cgroup_root.clone(),
            proc_root: self.proc_root(),
            host_root: self.host_root.clone(),
            btf: "/sys/kernel/btf/vmlinux".into(),
            talos_resources: self.talos_resources.clone(),
            kubernetes: None,
        }
    }

    fn cilium_run(&self) -> PathBuf {
        // Below a host root, /var/run is of no use: on many nodes it is a symlink to /run, which leads back out.
        match self.host_root {
            Some(_) => self.on_node("run/cilium"),
            None => PathBuf::from("/var/run/cilium"),
        }
    }

    fn on_node(&self, path: &str) -> PathBuf {
        self.host_root.as_deref().unwrap_or(Path::new("/")).join(path)
    }
}

/// How the Kubernetes API is reached, which knows what Cilium will start with next time and where CoreDNS runs.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Where to look")]
pub struct KubernetesArgs {
    /// Ask the Kubernetes API with this file, instead of with the service account of the pod that this runs in
    /// [default: $KUBECONFIG if set; ~/.kube/config is not looked for]
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace that Cilium is installed in [default: kube-system, or cilium where its ConfigMap is there]
    #[arg(long, value_name = "NAME", value_parser = namespace)]
    pub cilium_namespace: Option<String>,
}

impl KubernetesArgs {
    /// The same, for the readers. `environment` is $KUBECONFIG.
    #[cfg(all(feature = "probe", target_os = "linux"))]
    #[must_use]
    pub fn cluster(&self, environment: Option<&std::ffi::OsStr>) -> crate::facts::Cluster {
        let listed = environment.map(|list| std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()));
        let kubeconfigs = match &self.kubeconfig {
            Some(path) => vec![path.clone()],
            None => listed.into_iter().flatten().collect(),
        };
        crate::facts::Cluster { kubeconfigs, cilium_namespace: self.cilium_namespace.clone() }
    }
}

/// A DNS label (RFC 1123), as names of namespaces are.
fn namespace(text: &str) -> Result<String, String> {
    let is_label = (1..=63).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    is_label.then(|| text.to_owned()).ok_or_else(|| "a namespace has lower-case letters, digits and dashes".into())
}

/// Where a report goes, and in which form.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Form of the report
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
    /// Write it to a file instead of stdout
    #[arg(long, value_name = "PATH")]
    pub output_file: Option<PathBuf>,
    /// Write a JUnit report to a file as well
    #[arg(long, value_name = "PATH")]
    pub junit: Option<PathBuf>,
    /// Replace names and addresses, the same one always by the same, so that the report can be shown to strangers
    #[arg(long)]
    pub redact: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A page for a terminal
    #[default]
    Text,
    /// Everything, as hostdns-probe/report/v1
    Json,
    /// For CI
    Junit,
    /// For an issue or a chat
    Markdown,
    /// One line, for node-problem-detector
    Oneline,
}

/// Where the output of a command goes that has a text and a JSON form only.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Output")]
pub struct PlainOutputArgs {
    /// Form of the output
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: PlainFormat,
    /// Write it to a file instead of stdout
    #[arg(long, value_name = "PATH")]
    pub output_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PlainFormat {
    #[default]
    Text,
    Json,
}

/// A network namespace to ask from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VantageArg {
    pub netns: PathBuf,
    pub name: Option<String>,
}

impl VantageArg {
    /// What it is called in the report.
    #[must_use]
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.netns.display().to_string())
    }
}

/// Why a `--vantage` is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VantageError {
    #[error("`{0}` is not KEY=VALUE; write netns=PATH[,name=NAME]")]
    NotAPair(String),
    #[error("`{0}` is not known here; write netns=PATH[,name=NAME]")]
    UnknownKey(String),
    #[error("`{0}` is empty or given twice")]
    Repeated(&'static str),
    #[error("netns=PATH is missing, as in netns=/proc/4711/ns/net or netns=/run/netns/web")]
    NoNetns,
}

impl FromStr for VantageArg {
    type Err = VantageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut netns, mut name) = (None, None);
        for pair in text.split(',') {
            let (key, value) = pair.split_once('=').ok_or_else(|| VantageError::NotAPair(pair.into()))?;
            let (slot, key) = match key {
                "netns" => (&mut netns, "netns"),
                "name" => (&mut name, "name"),
                other => return Err(VantageError::UnknownKey(other.into())),
            };
            if value.is_empty() || slot.replace(value.to_owned()).is_some() {
                return Err(VantageError::Repeated(key));
            }
        }
        Ok(Self { netns: netns.ok_or(VantageError::NoNetns)?.into(), name })
    }
}

// They parse the arguments of `check`, which is there only with the probe.
#[cfg(all(test, feature = "probe", target_os = "linux"))]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Check {
        #[command(flatten)]
        args: crate::commands::check::CheckArgs,
    }

    fn check(line: &[&str]) -> Result<crate::commands::check::CheckArgs, clap::Error> {
        Check::try_parse_from([&["check"], line].concat()).map(|check| check.args)
    }

    #[test]
    fn check_without_arguments_has_the_documented_defaults() {
        let args = check(&[]).expect("no argument is required");
        assert_eq!(args.target.targets(false), Targets::default());
        assert_eq!(args.target.targets(true).addresses, [HOST_DNS_V4, HOST_DNS_V6]);
        assert_eq!(
            (args.timeout, args.budget),
            (std::time::Duration::from_secs(5), std::time::Duration::from_secs(20))
        );
        assert_eq!(args.output.output, Format::Text);
        assert_eq!(args.sources.cilium_socket(), Path::new("/var/run/cilium/cilium.sock"));
        assert_eq!(args.sources.bpf_root(), Path::new("/sys/fs/bpf"));
    }

    #[test]
    fn addresses_repeat_and_replace_the_defaults() {
        let args = check(&["--address", "169.254.20.10", "--address", "fd00::1", "--port", "5353"]).expect("valid");
        let targets = args.target.targets(true);
        assert_eq!(targets.addresses.len(), 2);
        assert_eq!(
            targets.sockets().map(|socket| socket.to_string()).collect::<Vec<_>>(),
            ["169.254.20.10:5353", "[fd00::1]:5353"]
        );
    }

    #[test]
    fn a_host_root_moves_the_defaults_and_nothing_that_was_named() {
        let args = check(&["--host-root", "/host", "--bpf-root", "/bpf"]).expect("valid");
        assert_eq!(args.sources.cilium_socket(), Path::new("/host/run/cilium/cilium.sock"));
        assert_eq!(args.sources.bpf_root(), Path::new("/bpf"));
        assert_eq!(args.sources.proc_root(), Path::new("/proc"));
    }

    #[test]
    fn a_kubeconfig_that_is_named_wins_over_the_environment() {
        let kubeconfigs = |line: &[&str], environment: Option<&str>| {
            let cluster = check(line).expect("valid").kubernetes.cluster(environment.map(AsRef::as_ref));
            cluster.kubeconfigs.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(kubeconfigs(&[], None), [""; 0]);
        assert_eq!(kubeconfigs(&[], Some("")), [""; 0]);
        assert_eq!(kubeconfigs(&[], Some("/a:/b:")), ["/a", "/b"]);
        assert_eq!(kubeconfigs(&["--kubeconfig", "/c"], Some("/a:/b")), ["/c"]);
        assert_eq!(
            check(&["--cilium-namespace", "cilium-1"]).unwrap().kubernetes.cilium_namespace.unwrap(),
            "cilium-1"
        );
        for namespace in ["", "Cilium", "a/b", "-a", "..", "a?b"] {
            assert!(check(&[&format!("--cilium-namespace={namespace}")]).is_err(), "{namespace}");
        }
    }

    #[test]
    fn vantages_are_read_and_refused() {
        assert_eq!(
            "netns=/run/netns/web,name=web".parse(),
            Ok(VantageArg { netns: "/run/netns/web".into(), name: Some("web".into()) })
        );
        assert_eq!("netns=/n".parse::<VantageArg>().map(|vantage| vantage.label()), Ok("/n".into()));
        for (text, error) in [
            ("", VantageError::NotAPair(String::new())),
            ("/proc/1/ns/net", VantageError::NotAPair("/proc/1/ns/net".into())),
            ("name=web", VantageError::NoNetns),
            ("netns=/a,netns=/b", VantageError::Repeated("netns")),
            ("netns=", VantageError::Repeated("netns")),
            ("pid=1", VantageError::UnknownKey("pid".into())),
        ] {
            assert_eq!(text.parse::<VantageArg>(), Err(error), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in
            [&["--timeout", "soon"][..], &["--interface", "[a"], &["--output", "yaml"], &["--address", "localhost"]]
        {
            assert!(check(line).is_err(), "{line:?}");
        }
    }
}
