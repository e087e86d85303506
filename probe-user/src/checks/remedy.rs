//! Ways out that would work on this node: each is offered only where the release and the settings let it.

use std::net::IpAddr;

use super::{Case, Remedy};
use crate::{
    facts::HostRouting,
    predict::{cilium, node, version::Version},
    target::{HOST_DNS_V4, HOST_DNS_V6},
};

const IDENTITY: &str = "The address becomes identity \"host\" for Cilium: where egress policies apply to CoreDNS, allow \
                        the entity host on port 53 first, or this cuts CoreDNS off.";

/// Talos' own address, so that Talos' settings are the ones to change.
#[must_use]
pub fn is_talos(address: IpAddr) -> bool {
    address == HOST_DNS_V4 || address == HOST_DNS_V6
}

/// Talos' release, from the node's PRETTY_NAME "Talos (v1.11.2)".
fn talos_version(case: &Case<'_>) -> Option<Version> {
    let os = case.facts.kernel.os.get()?.strip_prefix("Talos")?;
    Version::parse(os.trim().trim_matches(['(', ')']))
}

/// Everything that makes Cilium deliver to an address it does not know, least side effect first.
#[must_use]
pub fn unknown_address(case: &Case<'_>, address: IpAddr) -> Vec<Remedy> {
    let mut all = Vec::from_iter(lo_global(case, address));
    if !has_netkit(case) {
        all.push(legacy_routing(case));
    }
    all.extend(scope_max(case, address));
    all.extend(upgrade_for_device(case, address));
    if is_talos(address) {
        all.push(forwarding_off(case));
    }
    all
}

/// Gives `lo` the address with scope global, so that Cilium learns it; none where this Cilium would not.
#[must_use]
pub fn lo_global(case: &Case<'_>, address: IpAddr) -> Option<Remedy> {
    let facts = case.facts;
    // An agent that does not answer, in the night that this is needed, should not hide the smallest fix.
    let version = cilium::version(facts);
    let learns = version.as_ref().is_none_or(Version::learns_from_lo);
    let since = if version.is_none() { " Needs Cilium 1.15.8, 1.16.1 or later." } else { "" };
    let there = node::holders(facts, address).unwrap_or_default();
    let visible = there.iter().any(|held| held.interface == "lo" && held.scope <= cilium::scope_max(facts));
    if !learns || cilium::is_excluded(facts, address) || visible {
        return None;
    }
    let prefix = if address.is_ipv4() { 32 } else { 128 };
    if !is_talos(address) {
        let title = format!("Node: put the address on lo with scope global. Works live, no restart of Cilium.{since}");
        let mut remedy = Remedy::new(title);
        for held in there.iter().filter(|held| held.interface == "lo") {
            remedy = remedy.step(format!("ip addr del {address}/{} dev lo", held.prefix_len));
        }
        return Some(
            remedy
                .step(format!("ip addr add {address}/{prefix} dev lo scope global"))
                .step("make it last: an init container or the manifest of your node-local DNS, or the node's network setup")
                .caution(IDENTITY),
        );
    }
    let remedy = Remedy::new(format!(
        "Talos: give lo the address yourself, so that its scope is global. Works live, no restart.{since}"
    ))
    .step("talosctl -n NODE patch machineconfig --patch @lo.yaml")
    .patch(format!(
        "machine:\n  network:\n    interfaces:\n      - interface: lo\n        addresses: [{address}/{prefix}]\n"
    ))
    .caution(IDENTITY);
    let document =
        format!("apiVersion: v1alpha1\nkind: LinkConfig\nname: lo\naddresses:\n  - address: {address}/{prefix}\n");
    Some(or_as_document(case, remedy, (1, 12), document))
}

/// Adds the document that Talos takes instead of the patch from this release on, unless the node's is known to be older.
fn or_as_document(case: &Case<'_>, remedy: Remedy, since: (u32, u32), document: impl Into<String>) -> Remedy {
    let (major, minor) = since;
    if talos_version(case).is_some_and(|version| version < Version::new(major, minor, 0)) {
        return remedy;
    }
    remedy.variant(format!("Talos {major}.{minor} and later, as a document"), document)
}

/// Lets Cilium take addresses of scope host; only where the scope is what hides it.
fn scope_max(case: &Case<'_>, address: IpAddr) -> Option<Remedy> {
    let facts = case.facts;
    let version = cilium::version(facts)?;
    let hidden = node::holders(facts, address)?.into_iter().any(|held| {
        held.scope == 254 && cilium::scope_max(facts) < 254 && cilium::learns(facts, &version, &held.interface)
    });
    let remedy = Remedy::new("Cilium: take addresses of scope host too. Talos stays as it is; agents restart.")
        .step(helm(case))
        .step("kubectl -n kube-system rollout restart ds/cilium")
        .patch("extraConfig:\n  local-max-addr-scope: \"254\"\n")
        .variant(WITHOUT_HELM, config_map("local-max-addr-scope", "254"))
        .caution(
            "Every address of scope host on every node becomes identity \"host\" for Cilium: egress policies must \
             allow the entity host.",
        );
    (hidden && !cilium::is_excluded(facts, address)).then_some(remedy)
}

/// Where Cilium was not installed with Helm, or nobody has its values at hand.
const WITHOUT_HELM: &str = "Without Helm, in the ConfigMap (Helm's next upgrade undoes it): kubectl patch -f \
                            cilium-config.yaml --patch-file cilium-config.yaml, then restart the agents";

/// A setting of Cilium's in its ConfigMap: whole enough for kubectl to know which object it is.
fn config_map(key: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: cilium-config\n  namespace: kube-system\ndata:\n  \
         {key}: \"{value}\"\n"
    )
}

/// Without `--version` Helm would upgrade Cilium on the way.
fn helm(case: &Case<'_>) -> String {
    let version = cilium::version(case.facts).map_or_else(|| "SAME-AS-NOW".into(), |version| version.to_string());
    format!("helm upgrade cilium cilium/cilium -n kube-system --version {version} --reuse-values -f values.yaml")
}

/// Cilium leaves the way to the host to the kernel.
#[must_use]
pub fn legacy_routing(case: &Case<'_>) -> Remedy {
    Remedy::new("Cilium: bpf.hostLegacyRouting: true. Works with every release and scope; agents restart.")
        .step(helm(case))
        .step("kubectl -n kube-system rollout restart ds/cilium")
        .patch("bpf:\n  hostLegacyRouting: true\n")
        .variant(WITHOUT_HELM, config_map("enable-host-legacy-routing", "true"))
        .caution(
            "Costs the eBPF host routing speed-up on every node, and connections of pods may break on the restart.",
        )
}

/// CoreDNS asks the upstreams itself.
#[must_use]
pub fn forwarding_off(case: &Case<'_>) -> Remedy {
    let remedy = Remedy::new("Talos: forwardKubeDNSToHost: false, then restart CoreDNS.")
        .step("talosctl -n NODE patch machineconfig --patch @hostdns.yaml   (every node)")
        .step("kubectl -n kube-system rollout restart deploy/coredns")
        .caution(
            "CoreDNS then asks the node's upstreams itself, without the node's cache. The address stays on lo until the \
             node is rebooted, which does no harm.",
        );
    forwarding(case, remedy, false)
}

/// Talos serves the address again.
#[must_use]
pub fn forwarding_on(case: &Case<'_>) -> Remedy {
    let remedy = Remedy::new("Talos: let host DNS serve the address.")
        .step("talosctl -n NODE patch machineconfig --patch @hostdns.yaml")
        .step("talosctl -n NODE get dnsresolvecache   (udp- and tcp- of the address should be running)")
        .caution("CoreDNS reads its upstreams at its start: restart it afterwards.");
    forwarding(case, remedy, true)
}

/// Whether Talos' host DNS serves the pods, in both forms of its configuration.
fn forwarding(case: &Case<'_>, remedy: Remedy, on: bool) -> Remedy {
    let patch = format!("machine:\n  features:\n    hostDNS:\n      enabled: true\n      forwardKubeDNSToHost: {on}\n");
    let document = format!(
        "apiVersion: v1alpha1\nkind: ResolverConfig\nhostDNS:\n  enabled: true\n  forwardKubeDNSToHost: {on}\n"
    );
    or_as_document(case, remedy.patch(patch), (1, 14), document)
}

/// CoreDNS forgets an address that nobody is meant to serve.
#[must_use]
pub fn stop_asking() -> Remedy {
    Remedy::new("If nobody is meant to serve it: restart CoreDNS, so that it stops asking it.")
        .step("kubectl -n kube-system rollout restart deploy/coredns")
}

/// Talos asks other upstreams. Which ones are right only the reader knows: those of the patch are examples.
#[must_use]
pub fn resolvers(case: &Case<'_>) -> Remedy {
    const DOCUMENT: &str =
        "apiVersion: v1alpha1\nkind: ResolverConfig\nnameservers:\n  - address: 1.1.1.1\n  - address: 9.9.9.9\n";
    let remedy = Remedy::new("Repair the resolvers that the node's server asks.")
        .step("talosctl -n NODE get dnsupstreams")
        .step("talosctl -n NODE get resolvers")
        .step("talosctl -n NODE logs dns-resolve-cache")
        .step("talosctl -n NODE patch machineconfig --patch @resolvers.yaml   (with resolvers that you trust)")
        .patch("machine:\n  network:\n    nameservers: [1.1.1.1, 9.9.9.9]\n");
    let remedy = or_as_document(case, remedy, (1, 12), DOCUMENT);
    if remedy.variants.is_empty() {
        return remedy;
    }
    remedy.caution("Talos takes one of the two forms: with a ResolverConfig, machine.network.nameservers must go.")
}

/// Cilium releases that learn the addresses of every device; only where it is the device that hides the address.
fn upgrade_for_device(case: &Case<'_>, address: IpAddr) -> Option<Remedy> {
    let facts = case.facts;
    let (version, since) = (cilium::version(facts)?, Version::new(1, 17, 0));
    let held = node::holders(facts, address)?;
    let hidden = version < since
        && held.iter().any(|at| at.scope <= cilium::scope_max(facts) && at.interface != "lo")
        && held.iter().all(|at| !cilium::learns(facts, &version, &at.interface));
    (hidden && !cilium::is_excluded(facts, address)).then(|| {
        Remedy::new("Cilium: upgrade to 1.17 or later, which learns the addresses of every device.")
            .step(format!("hostdns-probe check --address {address} --what-if cilium-version=1.17.0"))
            .caution(IDENTITY)
    })
}

/// Cilium releases whose FIB lookup passes local addresses to the stack.
#[must_use]
pub fn upgrade_for_fib(case: &Case<'_>) -> Option<Remedy> {
    cilium::version(case.facts).filter(|version| !version.passes_local_fib_result()).map(|_| {
        Remedy::new("Cilium: upgrade to 1.18.2 or later, which passes such packets to the stack.")
            .step("hostdns-probe check --what-if cilium-version=1.18.2   (what the model says of this node)")
            .caution("With exactly one external device and endpoint routes off the query leaks instead (HDP201).")
    })
}

/// A command in the agent of this node: `exec ds/cilium` would take any node's.
#[must_use]
pub fn exec_agent(case: &Case<'_>) -> String {
    let node = node_name(case);
    format!(
        "kubectl -n kube-system exec -c cilium-agent $(kubectl -n kube-system get pod -l k8s-app=cilium --field-selector \
         spec.nodeName={node} -o name)"
    )
}

fn node_name<'a>(case: &Case<'a>) -> &'a str {
    case.facts.kernel.node_name.get().map_or("NODE", |name| name.trim())
}

/// Restart of the agent on this node.
#[must_use]
pub fn restart_agent(case: &Case<'_>) -> Remedy {
    let node = node_name(case);
    Remedy::new("Restart the Cilium agent on this node, so that it reads its settings again.")
        .step(format!("kubectl -n kube-system delete pod -l k8s-app=cilium --field-selector spec.nodeName={node}"))
}

/// Pods' devices are netkit pairs, which need BPF host routing: newer agents do not even start without.
fn has_netkit(case: &Case<'_>) -> bool {
    let links = case.facts.network.links.get().map_or(&[][..], Vec::as_slice);
    case.facts.cilium.datapath_mode.get().is_some_and(|mode| mode.starts_with("netkit"))
        || links.iter().any(|link| link.kind.as_deref() == Some("netkit"))
}

/// Cilium routes to the host through the kernel already.
#[must_use]
pub fn is_legacy(case: &Case<'_>) -> bool {
    matches!(cilium::host_routing(case.facts), Ok((HostRouting::Legacy, _)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{HOST_DNS, Scene, address, hide, known};

    fn titles(remedies: &[Remedy]) -> Vec<&str> {
        remedies.iter().map(|remedy| remedy.title.split(':').next().unwrap()).collect()
    }

    #[test]
    fn least_side_effect_first() {
        let scene = Scene::new().facts(hide);
        let all = unknown_address(&scene.case(), HOST_DNS);
        assert_eq!(titles(&all), ["Talos", "Cilium", "Cilium", "Talos"]);
        assert!(all[0].patch.as_ref().unwrap().contains("interface: lo"));
        assert!(all[1].patch.as_ref().unwrap().contains("hostLegacyRouting: true"));
        assert!(all[1].steps[0].contains("--version 1.18.1 "), "{:?}", all[1].steps);
        assert!(all[2].patch.as_ref().unwrap().contains("local-max-addr-scope: \"254\""));
        assert!(all[3].patch.as_ref().unwrap().contains("forwardKubeDNSToHost: false"));
    }

    #[test]
    fn netkit_has_no_legacy_routing() {
        let scene = Scene::new().facts(hide).facts(|f| f.cilium.datapath_mode = known("netkit-l2".into()));
        let all = unknown_address(&scene.case(), HOST_DNS);
        assert!(all.iter().all(|remedy| !remedy.title.contains("hostLegacyRouting")), "{:?}", titles(&all));
        assert!(!all.is_empty());
    }

    #[test]
    fn newer_talos_gets_the_documents_too() {
        let scene = Scene::new().facts(|facts| {
            hide(facts);
            facts.kernel.os = known("Talos (v1.14.0)".into());
        });
        let all = unknown_address(&scene.case(), HOST_DNS);
        let has = |text: &str| all.iter().any(|remedy| remedy.variants.iter().any(|form| form.patch.contains(text)));
        assert!(has("kind: LinkConfig") && has("kind: ResolverConfig"));
        assert_eq!(all.len(), 4, "another form is no other remedy");
    }

    #[test]
    fn a_document_is_offered_from_the_release_that_knows_it() {
        let documents = |release: &str, make: fn(&Case<'_>) -> Remedy| {
            let scene = Scene::new().facts(|facts| facts.kernel.os = known(format!("Talos ({release})")));
            make(&scene.case()).variants.len()
        };
        for (make, before, since) in [
            (resolvers as fn(&Case<'_>) -> Remedy, "v1.11.5", "v1.12.0"),
            (forwarding_on, "v1.13.9", "v1.14.0"),
            (forwarding_off, "v1.13.9", "v1.14.0"),
        ] {
            assert_eq!((documents(before, make), documents(since, make)), (0, 1), "{since}");
        }
    }

    #[test]
    fn what_this_cilium_would_ignore_is_not_offered() {
        for version in ["1.15.7", "1.16.0"] {
            let scene = Scene::new().facts(|facts| {
                hide(facts);
                facts.cilium.version = known(version.into());
            });
            assert_eq!(titles(&unknown_address(&scene.case(), HOST_DNS)), ["Cilium", "Talos"], "{version}");
        }
        let scene = Scene::new().facts(|facts| {
            hide(facts);
            facts.cilium.exclude_local_addresses = known(vec![HOST_DNS.to_string()]);
        });
        assert_eq!(titles(&unknown_address(&scene.case(), HOST_DNS)), ["Cilium", "Talos"]);
    }

    #[test]
    fn where_the_release_is_unknown_the_smallest_fix_says_what_it_needs() {
        let scene = Scene::new().facts(|facts| {
            hide(facts);
            facts.cilium.version = crate::facts::Fact::default();
        });
        let all = unknown_address(&scene.case(), HOST_DNS);
        assert!(all[0].title.ends_with("Needs Cilium 1.15.8, 1.16.1 or later."), "{}", all[0].title);
        let known = Scene::new().facts(hide);
        assert!(!unknown_address(&known.case(), HOST_DNS)[0].title.contains("Needs"));
    }

    #[test]
    fn node_local_dns_is_not_told_of_talos() {
        let dns = "169.254.20.10".parse().unwrap();
        let scene = Scene::new().facts(|facts| facts.network.addresses = known(vec![address("nodelocaldns", dns, 0)]));
        let all = unknown_address(&scene.case(), dns);
        assert_eq!(titles(&all), ["Node", "Cilium"], "1.18.1 learns from every device: an upgrade is no way out");
        let scene = scene.facts(|facts| facts.cilium.version = known("1.16.5".into()));
        let older = unknown_address(&scene.case(), dns);
        assert_eq!(titles(&older), ["Node", "Cilium", "Cilium"]);
        assert!(older[2].title.contains("upgrade to 1.17"), "{}", older[2].title);
        assert!(all[0].steps.iter().any(|step| step == "ip addr add 169.254.20.10/32 dev lo scope global"));
        assert!(all.iter().all(|remedy| !format!("{remedy:?}").contains("talosctl")));
    }
}
