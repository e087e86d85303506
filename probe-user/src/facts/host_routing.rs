//! Why Cilium routes by the node's own stack though nobody told it to (daemon/cmd/kube_proxy_replacement.go,
//! `finishKubeProxyReplacementInit`): the reasons that its settings show.

use super::{Cilium, Fact, HostRouting, Masquerade};

/// What settings say of host routing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacyReasons {
    /// Each is enough by itself.
    pub found: Vec<String>,
    /// Settings that could hold another one, and are not known of what runs.
    pub unknown: Vec<String>,
}

const NEXT_START: &str = " (what its agent would start with)";

/// A source that holds for an agent which is started anew: what runs now may run with another value.
#[must_use]
pub fn would_start_with(source: &str) -> String {
    format!("{source}{NEXT_START}")
}

/// A source that holds for what runs now.
#[must_use]
pub fn is_running(source: &str) -> bool {
    !source.ends_with(NEXT_START)
}

impl<T> Fact<T> {
    /// The value, where it is what runs now.
    #[must_use]
    pub fn running(&self) -> Option<&T> {
        self.get().filter(|_| is_running(self.source()))
    }

    /// It is what runs, after a restart.
    fn restart(&mut self) {
        if let Self::Known { source, .. } = self
            && let Some(place) = source.strip_suffix(NEXT_START)
        {
            *source = place.to_owned();
        }
    }
}

impl Cilium {
    /// The agent is started anew: what is only known of its next start is what it runs with. For a change that nobody has
    /// made yet.
    pub fn restart(&mut self) {
        self.legacy_routing_configured.restart();
        self.ipsec.restart();
        self.masquerade.restart();
        self.kube_proxy_replacement.restart();
        self.routing_mode.restart();
        self.devices.restart();
        self.direct_routing_device.restart();
        self.endpoint_routes.restart();
        self.address_scope_max.restart();
        self.exclude_local_addresses.restart();
        self.ipv4.restart();
        self.ipv6.restart();
    }

    /// What of the settings makes host routing Legacy, as it runs.
    #[must_use]
    pub fn legacy_reasons(&self) -> LegacyReasons {
        let mut reasons = LegacyReasons::default();
        reasons.weigh("enable-host-legacy-routing", &self.legacy_routing_configured, |&legacy| {
            legacy.then(|| "enable-host-legacy-routing is true".to_owned())
        });
        reasons.weigh("enable-ipsec", &self.ipsec, |&on| on.then(|| "IPsec encrypts between nodes".to_owned()));
        reasons.weigh("enable-bpf-masquerade", &self.masquerade, |&mode| {
            (mode == Masquerade::Iptables).then(|| "masquerading is done by iptables".to_owned())
        });
        reasons.weigh("kube-proxy-replacement", &self.kube_proxy_replacement, |mode| {
            (!replaces_kube_proxy(mode)).then(|| format!("kube-proxy replacement is {mode}"))
        });
        reasons
    }

    /// The reasons as a fact, for a node whose effective host routing was read.
    #[must_use]
    pub fn why_legacy(&self) -> Fact<Vec<String>> {
        let mode = match self.host_routing.get() {
            Some(HostRouting::Bpf) => return Fact::known(Vec::new(), self.host_routing.source()),
            Some(HostRouting::Legacy) => &self.host_routing,
            None => {
                let why = self.host_routing.why().unwrap_or("not read");
                return Fact::unavailable(why, self.host_routing.source());
            }
        };
        let LegacyReasons { found, unknown } = self.legacy_reasons();
        let unknown = (!unknown.is_empty()).then(|| format!("not known: {}", unknown.join(", ")));
        match (found.is_empty(), unknown) {
            (false, unknown) => Fact::known(found, "its settings").noting(unknown),
            (true, Some(unknown)) => Fact::unavailable(format!("no setting that is known; {unknown}"), mode.source()),
            // Up to 1.17 a kernel without the helpers bpf_redirect_neigh and bpf_redirect_peer is the last reason.
            (true, None) => {
                Fact::unavailable("none of the settings is a reason; its log has a line for it", mode.source())
            }
        }
    }
}

impl LegacyReasons {
    fn weigh<T>(&mut self, name: &'static str, fact: &Fact<T>, reason: impl FnOnce(&T) -> Option<String>) {
        if let Some(value) = fact.running() {
            let reason = reason(value).map(|reason| format!("{reason} ({})", fact.source()));
            self.found.extend(reason);
        } else {
            let next = fact.source().strip_suffix(NEXT_START);
            let next = next.map(|place| format!(" as it runs ({place} is what its agent would start with)"));
            self.unknown.push(format!("{name}{}", next.unwrap_or_default()));
        }
    }
}

/// `True`, or `Strict` as 1.15 still has it; `Partial`, `Probe`, `Disabled` and `False` do not suffice.
#[must_use]
pub fn replaces_kube_proxy(mode: &str) -> bool {
    ["true", "strict"].iter().any(|all| mode.eq_ignore_ascii_case(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{facts, known};

    fn cilium(change: impl FnOnce(&mut Cilium)) -> Cilium {
        let mut cilium = facts().cilium;
        cilium.host_routing = known(HostRouting::Legacy);
        cilium.ipsec = known(false);
        cilium.kube_proxy_replacement = known("True".into());
        change(&mut cilium);
        cilium
    }

    #[test]
    fn each_reason_is_found_alone() {
        let reason = |change: fn(&mut Cilium)| match cilium(change).why_legacy() {
            Fact::Known { value, notes, .. } if notes.is_empty() => value.join("; "),
            other => panic!("{other:?}"),
        };
        assert!(
            reason(|c| c.legacy_routing_configured = known(true)).starts_with("enable-host-legacy-routing is true (")
        );
        assert!(reason(|c| c.ipsec = known(true)).starts_with("IPsec"));
        assert!(reason(|c| c.masquerade = known(Masquerade::Iptables)).contains("iptables"));
        for mode in ["False", "Disabled", "Partial", "probe"] {
            let cilium = cilium(|c| c.kube_proxy_replacement = known(mode.into()));
            let found = cilium.why_legacy().get().cloned().unwrap_or_default();
            assert!(matches!(found.as_slice(), [one] if one.contains(mode)), "{mode}: {found:?}");
        }
        assert_eq!(cilium(|c| c.kube_proxy_replacement = known("Strict".into())).legacy_reasons().found.len(), 0);
    }

    #[test]
    fn what_is_not_known_is_named() {
        let iptables = cilium(|c| {
            c.masquerade = known(Masquerade::Iptables);
            c.ipsec = Fact::default();
        });
        assert_eq!(iptables.why_legacy().notes(), ["not known: enable-ipsec"]);
        let nothing = cilium(|c| c.ipsec = Fact::default());
        assert!(nothing.why_legacy().why().is_some_and(|why| why.contains("enable-ipsec")));
        assert!(cilium(|_| {}).why_legacy().why().is_some_and(|why| why.contains("log")));
    }

    #[test]
    fn what_the_agent_would_start_with_is_no_reason_for_what_runs() {
        let place = "enable-host-legacy-routing in ConfigMap kube-system/cilium-config";
        let next = |c: &mut Cilium| c.legacy_routing_configured = Fact::known(true, would_start_with(place));
        let mut cilium = cilium(next);
        let LegacyReasons { found, unknown } = cilium.legacy_reasons();
        assert_eq!(found, [""; 0]);
        assert_eq!(
            unknown,
            [format!("enable-host-legacy-routing as it runs ({place} is what its agent would start with)")]
        );
        cilium.restart();
        assert_eq!(cilium.legacy_reasons().found, [format!("enable-host-legacy-routing is true ({place})")]);
    }

    #[test]
    fn a_change_is_judged_by_what_the_agent_would_start_with() {
        use crate::predict::{Deciding, cilium::host_routing, what_if};
        let mut facts = facts();
        facts.cilium.host_routing = Fact::unavailable("no agent", "socket");
        facts.cilium.ipsec = Fact::known(true, would_start_with("enable-ipsec in /config"));
        let why = host_routing(&facts).unwrap_err();
        assert!(why.contains("enable-ipsec as it runs"), "{why}");
        let change = what_if::Change::Masquerade(Masquerade::Bpf);
        let after = what_if::after(&facts, &crate::target::Targets::default(), Deciding::Pods, &[change]);
        assert!(after.because.iter().any(|line| line.contains("IPsec") && line.contains("Legacy")), "{after:#?}");
    }

    #[test]
    fn bpf_needs_no_reason() {
        let bpf = cilium(|c| c.host_routing = known(HostRouting::Bpf));
        assert_eq!(bpf.why_legacy().get(), Some(&Vec::new()));
        let unread = cilium(|c| c.host_routing = Fact::unavailable("no agent", "socket"));
        assert_eq!(unread.why_legacy().why(), Some("no agent"));
    }
}
