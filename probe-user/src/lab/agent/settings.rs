//! The settings the agent was given: the ConfigMap's keys as files, where Cilium's DaemonSet puts them. They say what
//! was asked for; the agent's answers say what came out.

use crate::{
    facts::{HostRouting, Masquerade, RoutingMode},
    lab::spec::CiliumSpec,
};

/// `--config-dir` of the DaemonSet in Cilium's Helm chart, below the agent's /tmp.
const DIRECTORY: &str = "cilium/config-map";

/// Names below /tmp, and what is in them.
pub(crate) fn files(cilium: &CiliumSpec, ipv6: bool) -> Vec<(String, String)> {
    let flag = |on: bool| on.to_string();
    let mut keys = vec![
        ("enable-bpf-masquerade", flag(cilium.masquerade == Masquerade::Bpf)),
        ("enable-endpoint-routes", flag(cilium.endpoint_routes)),
        ("enable-host-legacy-routing", flag(cilium.host_routing == HostRouting::Legacy)),
        ("enable-ip-masq-agent", flag(cilium.ip_masq_agent)),
        ("enable-ipv4", flag(true)),
        ("enable-ipv6", flag(ipv6)),
        ("enable-ipv4-masquerade", flag(cilium.masquerade != Masquerade::Disabled)),
        ("kube-proxy-replacement", flag(true)),
        ("local-max-addr-scope", cilium.address_scope_max.to_string()),
    ];
    if cilium.netkit {
        keys.push(("datapath-mode", "netkit-l2".to_owned()));
    }
    keys.extend(match cilium.routing {
        RoutingMode::Native => vec![("routing-mode", "native".to_owned())],
        RoutingMode::Tunnel => vec![("routing-mode", "tunnel".to_owned()), ("tunnel-protocol", "vxlan".to_owned())],
    });
    keys.into_iter().map(|(key, value)| (format!("{DIRECTORY}/{key}"), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_default_is_set() {
        let has = |cilium: &CiliumSpec, ipv6: bool, key: &str, value: &str| {
            files(cilium, ipv6).contains(&(format!("{DIRECTORY}/{key}"), value.to_owned()))
        };
        assert!(has(&CiliumSpec { netkit: true, ..CiliumSpec::default() }, true, "datapath-mode", "netkit-l2"));
        assert!(has(&CiliumSpec::default(), true, "enable-ipv6", "true"));
    }

    #[test]
    fn a_fallback_is_not_what_was_asked_for() {
        let asked = |cilium: &CiliumSpec| {
            let key = "cilium/config-map/enable-host-legacy-routing";
            files(cilium, false).into_iter().find_map(|(name, value)| (name == key).then_some(value)).unwrap()
        };
        let fallback = CiliumSpec { masquerade: Masquerade::Iptables, ..CiliumSpec::default() };
        assert_eq!(asked(&fallback), "false");
        assert_eq!(asked(&CiliumSpec { host_routing: HostRouting::Legacy, ..fallback }), "true");
    }
}
