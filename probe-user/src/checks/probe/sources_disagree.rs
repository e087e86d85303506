//! HDP011 sources-disagree: several sources for one fact, and they say different things.

use crate::{
    checks::{Case, Check, Finding, Severity, cilium::settings_not_applied, code::Code},
    facts::{Disagreement, Fact, Facts, HostRouting, disagreements},
    predict::cilium,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::SourcesDisagree, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
Several sources say different things of one fact; the finding names each of them.

Many facts have more than one source: Cilium's agent says its devices, and so do the pins of its
programs; its map of endpoints says whom an address belongs to, and so does its ipcache. The first
source counts, the others are kept beside it in the report (`others`). A difference that lasts means
that one of them is stale: an agent that is starting or stuck, programs of an earlier release, a
name that changed. What has a finding of its own is not told here: settings that were not applied
(HDP203), the address's scope against Cilium's map (HDP210), Talos' resources (HDP010).

By hand: `cilium-dbg status --verbose` and `cilium-dbg bpf ipcache get ADDRESS` in the agent's pod,
beside `ls /sys/fs/bpf/cilium/devices` on the node; `hostdns-probe check --output json` has every
fact with its sources.

Fix: check again after a minute. If it stays, look at the source that is wrong; where that is
Cilium's, its agent's log says what it could not do.

Versions: any.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let facts = case.facts;
    let mut lines: Vec<String> = disagreements(facts).into_iter().filter_map(|told| untold(facts, told)).collect();
    lines.extend(shortcut(facts));
    lines.extend(case.targets.addresses.iter().filter_map(|address| {
        let host = facts.cilium.lxc.get(address).and_then(Fact::get)?.is_some_and(|entry| entry.flags & HOST != 0);
        let identity = *facts.cilium.ipcache.get(address).and_then(Fact::get)?;
        let (source, other) = (facts.cilium.lxc[address].source(), facts.cilium.ipcache[address].source());
        let holds = if host { "holds" } else { "does not hold" };
        let has = identity.map_or_else(|| "no identity".to_owned(), |identity| format!("identity {identity}"));
        (host != (identity == Some(HOST_IDENTITY))).then(|| {
            format!("cilium_lxc {holds} {address} as the host's ({source}); but the ipcache has {has} for it ({other})")
        })
    }));
    if lines.is_empty() {
        return Vec::new();
    }
    let title = "Sources say different things of the same fact.";
    vec![Finding::new(Code::SourcesDisagree, Severity::Info, title).evidences(lines)]
}

/// `ENDPOINT_F_HOST` (cilium bpf/lib/common.h). What is merely in the host's namespace (2) has another identity.
const HOST: u32 = 1;
/// `ReservedIdentityHost` (cilium pkg/identity/numericidentity.go).
const HOST_IDENTITY: u32 = 1;

/// What no other finding tells of it.
fn untold(facts: &Facts, mut disagreement: Disagreement) -> Option<String> {
    let mut all = std::mem::take(&mut disagreement.others);
    if disagreement.fact == "cilium.devices" {
        all.retain(|other| !names_the_same(facts, other));
    }
    disagreement.others = all.into_iter().filter(|other| !settings_not_applied::tells(&disagreement, other)).collect();
    let Disagreement { fact, known, source, others } = disagreement;
    let is = known.map(|known| format!(" is {known}")).unwrap_or_default();
    (!others.is_empty()).then(|| format!("{fact}{is} ({source}); but {}", others.join("; ")))
}

/// Devices that this node has: a setting for every node may name more, and a pin outlives its device.
fn names_the_same(facts: &Facts, other: &str) -> bool {
    let (Some(links), Some(devices)) = (facts.network.links.get(), facts.cilium.devices.get()) else { return false };
    let names = other.rsplit(": ").next().unwrap_or_default().split(' ');
    let mut here: Vec<&str> = names.filter(|name| links.iter().any(|link| link.name == *name)).collect();
    here.sort_unstable();
    let mut known: Vec<&str> = devices.iter().map(String::as_str).collect();
    known.sort_unstable();
    here == known
}

/// The one-device shortcut as it was compiled, and as Cilium's devices and settings make it. Only BPF host routing has
/// it, and where the direct-routing device is not known it may be what is missing.
fn shortcut(facts: &Facts) -> Option<String> {
    let agent = &facts.cilium;
    let compiled = *agent.skip_fib.get()?;
    let routes_in_bpf = agent.host_routing.get() == Some(&HostRouting::Bpf);
    let measured = cilium::version(facts).is_some_and(|version| !version.is_beyond_measured());
    if !routes_in_bpf || !measured || agent.direct_routing_device.get().is_none() {
        return None;
    }
    let mut alone = facts.clone();
    alone.cilium.skip_fib = Fact::default();
    let (expected, how) = cilium::skips_fib(&alone).ok()?;
    let is = if compiled { "with" } else { "without" };
    let source = agent.skip_fib.source();
    (compiled != expected)
        .then(|| format!("the datapath is compiled {is} the one-device shortcut ({source}); but {how}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checks::testing::{HOST_DNS, Scene, hide, known, link},
        facts::would_start_with,
    };

    fn evidence(scene: &Scene) -> Vec<String> {
        let finding = scene.finding("HDP011");
        assert!(finding.as_ref().is_none_or(|finding| finding.severity == Severity::Info), "{finding:?}");
        finding.map(|finding| finding.evidence).unwrap_or_default()
    }

    #[test]
    fn every_source_is_named() {
        assert_eq!(evidence(&Scene::new()), [""; 0]);
        let scene = Scene::new().facts(|f| f.cilium.devices.differs("/sys/fs/bpf/cilium/devices: eth0 eth1"));
        assert_eq!(evidence(&scene), [""; 0], "it has no eth1");
        let scene = scene.facts(|f| f.network.links = known(vec![link(1, "lo"), link(2, "eth0"), link(3, "eth1")]));
        assert_eq!(evidence(&scene), ["cilium.devices is eth0 (test); but /sys/fs/bpf/cilium/devices: eth0 eth1"]);
        let scene = Scene::new().facts(|f| f.cilium.devices.differs("devices in ConfigMap x: lo"));
        assert_eq!(evidence(&scene).len(), 1);
        let scene = Scene::new().facts(|f| f.coredns.differs("ConfigMap kube-system/coredns: forwards to 1.1.1.1"));
        assert_eq!(evidence(&scene), ["coredns (test); but ConfigMap kube-system/coredns: forwards to 1.1.1.1"]);
    }

    #[test]
    fn nothing_is_told_twice() {
        let setting = "local-max-addr-scope in ConfigMap kube-system/cilium-config: 254";
        let mut scene = Scene::new().facts(|f| f.cilium.address_scope_max.differs(setting));
        assert!(scene.finding("HDP203").is_some());
        assert_eq!(evidence(&scene), [""; 0]);
        // The agent's own two answers are no settings.
        scene.facts.cilium.address_scope_max.differs("agent /v1/config AddressScopeMax: 253");
        assert_eq!(
            evidence(&scene),
            ["cilium.address_scope_max is 252 (test); but agent /v1/config AddressScopeMax: 253"]
        );
        // Two places that say what the agent would start with say nothing of what it runs with.
        let next = Fact::known(252, would_start_with("local-max-addr-scope in /config"));
        let mut scene = Scene::new().facts(|f| f.cilium.address_scope_max = next);
        scene.facts.cilium.address_scope_max.differs(setting);
        assert_eq!((scene.finding("HDP203"), evidence(&scene).len()), (None, 1));
    }

    #[test]
    fn what_is_missing_is_no_disagreement() {
        let scene = Scene::new().facts(|f| f.listeners = known(vec![]).noting(["half of them".to_owned()]));
        assert_eq!(evidence(&scene), [""; 0]);
    }

    #[test]
    fn the_map_of_endpoints_and_the_ipcache_go_together() {
        let with = |identity| {
            move |f: &mut Facts| {
                f.cilium.ipcache.insert(HOST_DNS, known(identity));
            }
        };
        assert_eq!(evidence(&Scene::new().facts(with(Some(1)))), [""; 0]);
        assert_eq!(evidence(&Scene::new().facts(hide).facts(with(Some(2)))), [""; 0]);
        let world = evidence(&Scene::new().facts(with(Some(2))));
        assert!(world[0].starts_with("cilium_lxc holds 169.254.116.108 as the host's"), "{world:?}");
        assert!(world[0].contains("the ipcache has identity 2"), "{world:?}");
        let host = evidence(&Scene::new().facts(hide).facts(with(Some(1))));
        assert!(host[0].starts_with("cilium_lxc does not hold 169.254.116.108"), "{host:?}");
        assert!(evidence(&Scene::new().facts(with(None)))[0].contains("no identity"));
    }

    #[test]
    fn the_shortcut_follows_from_devices_and_settings() {
        let compiled = |skip: bool, change: fn(&mut Facts)| {
            let with = |f: &mut Facts| {
                f.cilium.skip_fib = known(skip);
                f.cilium.direct_routing_device = known("eth0".into());
            };
            evidence(&Scene::new().facts(with).facts(change))
        };
        assert_eq!(compiled(true, |_| {}), [""; 0]);
        assert!(compiled(false, |_| {})[0].contains("compiled without the one-device shortcut (test); but eth0 is"));
        let two: fn(&mut Facts) = |f| f.cilium.devices = known(vec!["eth0".into(), "eth1".into()]);
        assert!(compiled(true, two)[0].contains("2 external devices"));
        assert_eq!(compiled(false, two), [""; 0]);
        assert!(compiled(true, |f| f.cilium.endpoint_routes = known(true))[0].contains("endpoint routes are on"));
        // Nobody has it with Legacy host routing, and who the direct-routing device is may not be known.
        assert_eq!(compiled(false, |f| f.cilium.host_routing = known(HostRouting::Legacy)), [""; 0]);
        assert_eq!(compiled(false, |f| f.cilium.direct_routing_device = Fact::default()), [""; 0]);
        assert_eq!(compiled(false, |f| f.cilium.version = known("1.20.0".into())), [""; 0]);
    }
}
