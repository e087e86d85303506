use super::*;
use crate::{facts::would_start_with, target::HOST_DNS_V4};

#[test]
fn pins_speak_where_the_agent_does_not() {
    let pinned = || Fact::known(vec!["eth0".to_owned()], "pins");
    assert_eq!(devices(Fact::default(), pinned()), pinned());
    let same = devices(Fact::known(vec!["eth0".into()], "agent"), pinned());
    assert_eq!(same, Fact::known(vec!["eth0".into()], "agent"));
    let Fact::Known { others, .. } = devices(Fact::known(vec!["eth1".into()], "agent"), pinned()) else { panic!() };
    assert_eq!(others, ["pins: eth0"]);
    let next = Fact::known(vec!["eth1".into()], would_start_with("devices in /config"));
    let runs = devices(next, pinned());
    assert_eq!(runs.running(), Some(&vec!["eth0".to_owned()]), "a setting for the next start does not run");
    assert_eq!(runs.others(), ["devices in /config (what its agent would start with): eth1"]);
}

#[test]
fn the_compiled_host_routing_speaks_where_the_agent_does_not() {
    let compiled = || Some(("node_config.h".to_owned(), HostRouting::Bpf));
    let agent = |mode| Fact::known(mode, "agent");
    assert_eq!(host_routing(Fact::default(), compiled()), Fact::known(HostRouting::Bpf, "node_config.h"));
    assert_eq!(host_routing(agent(HostRouting::Bpf), compiled()), agent(HostRouting::Bpf));
    let differs = host_routing(agent(HostRouting::Legacy), compiled());
    assert_eq!((differs.get(), differs.others()), (Some(&HostRouting::Legacy), &["node_config.h: BPF".to_owned()][..]));
    assert_eq!(host_routing(agent(HostRouting::Legacy), None), agent(HostRouting::Legacy));
}

#[test]
fn nothing_to_read_is_said_fact_by_fact() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let sources = Sources {
        cilium_socket: missing.clone(),
        cilium_state_dir: missing.clone(),
        bpf_root: missing.clone(),
        proc_root: missing.clone(),
        btf: missing.clone(),
        cgroup_root: Some(missing),
        ..Sources::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let facts = runtime.block_on(gather(&sources));
    let whys = [
        facts.kernel.btf.why(),
        facts.kernel.cgroup_root.why(),
        facts.pods.why(),
        facts.coredns.why(),
        facts.cilium.host_routing.why(),
        facts.cilium.version.why(),
        facts.cilium.skip_fib.why(),
        facts.cilium.lxc[&HOST_DNS_V4].why(),
        facts.cilium.drops_before.why(),
        runtime.block_on(cilium_drops(&sources)).counts.why(),
    ]
    .map(|why| why.map(str::to_owned));
    assert!(whys.iter().all(|why| why.as_ref().is_some_and(|why| !why.contains("not looked for"))), "{whys:#?}");
    assert!(facts.listeners.get().is_some(), "sock_diag needs no /proc");
}
