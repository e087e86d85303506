//! The library's tracer in a process of its own, told of every device: how long until the last one is covered. It says
//! so on stdout and ends when its stdin is closed.

use std::{
    io::{Read as _, Write as _},
    path::PathBuf,
    time::Duration,
};

use hostdns_probe::{
    netns,
    target::Targets,
    trace::tracer::{Follow, InterfaceToWatch, TraceConfig, Tracer},
};

/// Says `{"covered":..}`, boot clock nanoseconds.
pub(crate) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let interfaces = interfaces()?;
    let devices = interfaces.len();
    let config = TraceConfig {
        targets: Targets::default(),
        cgroup_root: cgroup_root(),
        interfaces,
        own_netns: netns::netns_cookie(),
        follow: Follow::Listed,
        ..TraceConfig::default()
    };
    let tracer = runtime.block_on(Tracer::start(config))?;
    for hook in tracer.hooks().iter().filter(|hook| !hook.attached) {
        eprintln!("not attached: {hook:?}");
    }
    let (closed, mut end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = closed.send(());
    });
    let mut covered = false;
    runtime.block_on(async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                event = tracer.recv() => if event.is_none() { break },
                _ = look.tick(), if !covered => {
                    let hooks = tracer.hooks();
                    let on: Vec<u64> =
                        hooks.iter().filter(|hook| hook.interface.is_some()).map(|hook| hook.since_ns).collect();
                    // A device has two hooks, ingress and egress.
                    if on.len() >= 2 * devices {
                        covered = true;
                        say(&format!("{{\"covered\":{}}}", on.iter().max().copied().unwrap_or_default()));
                    }
                }
                _ = &mut end => break,
            }
        }
    });
    // What is attached ends with the process; waiting for it belongs to no measure.
    std::process::exit(0);
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Where cgroup v2 is mounted: at its root, not at a part of it (fourth field of a line of mountinfo).
fn cgroup_root() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let fields: Vec<&str> = before.split(' ').collect();
        (after.starts_with("cgroup2 ") && fields.get(3) == Some(&"/")).then(|| fields.get(4).map(PathBuf::from))?
    })
}

/// Every device of this namespace; as `check` orders them, the way of a query first.
fn interfaces() -> anyhow::Result<Vec<InterfaceToWatch>> {
    let mut interfaces: Vec<_> = nix::net::if_::if_nameindex()?
        .iter()
        .map(|device| {
            let name = device.name().to_string_lossy().into_owned();
            let exit = name.starts_with("eth");
            let needed = exit || name == "cilium_host";
            InterfaceToWatch { index: device.index(), name, layer3: false, exit, needed }
        })
        // The other ends of the many veths are here only because they have to be somewhere.
        .filter(|interface| !interface.name.starts_with("peer"))
        .collect();
    interfaces.sort_by_key(|interface| !interface.needed);
    Ok(interfaces)
}
