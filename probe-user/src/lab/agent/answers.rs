//! What the agent says of a lab. The keys and their spelling are those of recorded answers; kube-proxy-replacement is
//! missing on 1.16, as it was there without Kubernetes.

use serde_json::{Map, Value, json};

use super::Error;
use crate::{
    facts::{HostRouting, Masquerade, RoutingMode},
    lab::{
        datapath::effective_host_routing,
        spec::{CiliumVersion, DatapathConfig, POD_CIDR},
    },
};

const HEALTHZ_1_16: &str = include_str!("healthz-1.16.json");
const HEALTHZ_1_18: &str = include_str!("healthz-1.18.json");
const CONFIG_1_16: &str = include_str!("config-1.16.json");
const CONFIG_1_18: &str = include_str!("config-1.18.json");

/// The tunnel mode's exclusion: the node's own pod range.
const ALLOC_RANGE: &str = "10.244.1.0/24";

const fn message(version: CiliumVersion) -> &'static str {
    match version {
        CiliumVersion::V1_16_4 => "1.16.4 (v1.16.4-0380724290)",
        CiliumVersion::V1_16_5 => "1.16.5 (v1.16.5-ad6882773c)",
        CiliumVersion::V1_18_1 => "1.18.1 (v1.18.1-e8a7070f26)",
        CiliumVersion::V1_19_0Pre0 => "1.19.0-pre.0 (v1.19.0-pre.0-8b31f90cf8)",
    }
}

fn is_1_16(version: CiliumVersion) -> bool {
    version <= CiliumVersion::V1_16_5
}

fn device_names(config: &DatapathConfig) -> Vec<&str> {
    config.external.iter().map(|device| device.name.as_str()).collect()
}

/// Body of `GET /v1/healthz` (`StatusResponse`).
pub(super) fn healthz(config: &DatapathConfig) -> Result<String, Error> {
    let cilium = &config.cilium;
    let mut body: Map<String, Value> =
        serde_json::from_str(if is_1_16(cilium.version) { HEALTHZ_1_16 } else { HEALTHZ_1_18 })?;
    let devices = device_names(config);
    body.insert("cilium".into(), json!({"msg": message(cilium.version), "state": "Ok"}));
    body.insert("host-firewall".into(), json!({"devices": devices, "mode": "Disabled"}));
    body.insert("masquerading".into(), masquerading(config));
    body.insert("routing".into(), routing(config));
    if cilium.netkit {
        body.insert("datapath-mode".into(), "netkit-l2".into());
    }
    if let Some(Value::Object(replacement)) = body.get_mut("kube-proxy-replacement") {
        let list: Vec<Value> = devices.iter().map(|name| json!({"name": name})).collect();
        replacement.insert("deviceList".into(), list.into());
        replacement.insert("devices".into(), devices.clone().into());
        replacement.insert("directRoutingDevice".into(), devices.first().copied().into());
    }
    Ok(Value::Object(body).to_string())
}

fn routing(config: &DatapathConfig) -> Value {
    let intra = match effective_host_routing(&config.cilium) {
        HostRouting::Bpf => "BPF",
        HostRouting::Legacy => "Legacy",
    };
    match config.cilium.routing {
        RoutingMode::Native => json!({"inter-host-routing-mode": "Native", "intra-host-routing-mode": intra}),
        RoutingMode::Tunnel => json!({
            "inter-host-routing-mode": "Tunnel",
            "intra-host-routing-mode": intra,
            "tunnel-protocol": "vxlan",
        }),
    }
}

/// Go leaves out what is false or empty.
fn masquerading(config: &DatapathConfig) -> Value {
    let exclusion = match config.cilium.routing {
        RoutingMode::Native => format!("{}/{}", POD_CIDR.0, POD_CIDR.1),
        RoutingMode::Tunnel => ALLOC_RANGE.to_owned(),
    };
    let mode = match config.cilium.masquerade {
        Masquerade::Bpf => "BPF",
        Masquerade::Iptables => "iptables",
        Masquerade::Disabled => return json!({"enabledProtocols": {}}),
    };
    let mut body = json!({
        "enabled": true,
        "enabledProtocols": {"ipv4": true},
        "mode": mode,
        "snat-exclusion-cidr": exclusion,
        "snat-exclusion-cidr-v4": exclusion,
    });
    if config.cilium.ip_masq_agent && mode == "BPF" {
        body["ip-masq-agent"] = true.into();
    }
    body
}

/// Body of `GET /v1/config` (`DaemonConfiguration`).
pub(super) fn config(config: &DatapathConfig) -> Result<String, Error> {
    let cilium = &config.cilium;
    let mut body: Value = serde_json::from_str(if is_1_16(cilium.version) { CONFIG_1_16 } else { CONFIG_1_18 })?;
    let devices = device_names(config);
    let masquerades = cilium.masquerade != Masquerade::Disabled;
    let map = &mut body["status"]["daemonConfigurationMap"];
    map["AddressScopeMax"] = cilium.address_scope_max.into();
    map["Devices"] = devices.clone().into();
    map["EnableBPFMasquerade"] = (cilium.masquerade == Masquerade::Bpf).into();
    map["EnableEndpointRoutes"] = cilium.endpoint_routes.into();
    // The effective value, after a fallback.
    map["EnableHostLegacyRouting"] = (effective_host_routing(cilium) == HostRouting::Legacy).into();
    map["EnableIPMasqAgent"] = cilium.ip_masq_agent.into();
    map["EnableIPv4Masquerade"] = masquerades.into();
    map["EnableIPv6"] = config.node_ipv6.is_some().into();
    map["IPv4NodeAddr"] = config.node_ipv4.to_string().into();
    map["BPFRoot"] = config.bpf_root.to_string_lossy().into();
    map["SocketPath"] = config.agent_socket.to_string_lossy().into();
    map["StateDir"] = config.state_dir.to_string_lossy().into();
    match cilium.routing {
        RoutingMode::Native => map["RoutingMode"] = "native".into(),
        RoutingMode::Tunnel => {
            map["RoutingMode"] = "tunnel".into();
            map["IPv4NativeRoutingCIDR"] = Value::Null;
        }
    }
    if is_1_16(cilium.version) {
        map["DirectRoutingDevice"] = devices.first().copied().unwrap_or_default().into();
    }
    if cilium.version >= CiliumVersion::V1_19_0Pre0
        && let Some(map) = map.as_object_mut()
    {
        // Not in what 1.19 answered.
        map.remove("EnableWireguard");
        map.remove("IPMasqAgentConfigPath");
    }
    body["status"]["masquerade"] = masquerades.into();
    body["status"]["masqueradeProtocols"] = if masquerades { json!({"ipv4": true}) } else { json!({}) };
    Ok(body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{datapath::tests_config, spec::CiliumSpec};

    fn answers(cilium: CiliumSpec, devices: u32) -> (Value, Value) {
        let lab = tests_config(cilium, devices);
        let parse = |text: Result<String, Error>| serde_json::from_str(&text.expect("a body")).expect("JSON");
        (parse(healthz(&lab)), parse(config(&lab)))
    }

    #[test]
    fn version_1_18_says_what_a_real_one_said() {
        let (healthz, config) = answers(CiliumSpec::default(), 2);
        assert_eq!(healthz["cilium"]["msg"], "1.18.1 (v1.18.1-e8a7070f26)");
        assert_eq!(healthz["routing"], json!({"inter-host-routing-mode": "Native", "intra-host-routing-mode": "BPF"}));
        assert_eq!(healthz["masquerading"]["snat-exclusion-cidr-v4"], "10.244.0.0/16");
        assert_eq!(healthz["kube-proxy-replacement"]["devices"], json!(["eth0", "eth1"]));
        assert_eq!(healthz["kube-proxy-replacement"]["directRoutingDevice"], "eth0");
        assert_eq!(healthz["attach-mode"], "tcx");
        let map = &config["status"]["daemonConfigurationMap"];
        assert_eq!(map["EnableHostLegacyRouting"], false);
        assert_eq!(map["AddressScopeMax"], 252);
        assert!(map.get("KubeProxyReplacement").is_none(), "1.16 only");
    }

    #[test]
    fn version_1_16_has_no_replacement_in_its_status_but_in_its_settings() {
        let (healthz, config) = answers(CiliumSpec { version: CiliumVersion::V1_16_5, ..CiliumSpec::default() }, 1);
        assert!(healthz.get("kube-proxy-replacement").is_none());
        let map = &config["status"]["daemonConfigurationMap"];
        assert_eq!(map["KubeProxyReplacement"], "true");
        assert_eq!(map["DirectRoutingDevice"], "eth0");
        assert_eq!(map["EnableNodePort"], true);
    }

    #[test]
    fn a_fallback_shows_in_both_answers() {
        let iptables = CiliumSpec {
            masquerade: Masquerade::Iptables,
            routing: RoutingMode::Tunnel,
            ip_masq_agent: false,
            ..CiliumSpec::default()
        };
        let (healthz, config) = answers(iptables, 1);
        assert_eq!(healthz["routing"]["intra-host-routing-mode"], "Legacy");
        assert_eq!(healthz["routing"]["tunnel-protocol"], "vxlan");
        assert_eq!(healthz["masquerading"]["mode"], "iptables");
        let map = &config["status"]["daemonConfigurationMap"];
        assert_eq!(map["EnableHostLegacyRouting"], true);
        assert_eq!(map["EnableBPFMasquerade"], false);
        assert_eq!(map["RoutingMode"], "tunnel");
    }
}
