//! What Cilium's agent says of itself: `/v1/healthz` and `/v1/config` on its socket, and the settings it was given as
//! a directory of files. The names differ by release (recorded: 1.16.4 to 1.19.0-pre.0; 1.15 from its OpenAPI).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;

use super::{http, processes::read_text};
use crate::facts::{Cilium, Fact, HostRouting, Masquerade, RoutingMode};

const LIMIT: Duration = Duration::from_secs(1);

/// The keys of the ConfigMap, as files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    directory: PathBuf,
    by_key: BTreeMap<String, String>,
}

impl Settings {
    /// # Errors
    /// The directory cannot be read, or has nothing in it.
    pub(super) fn read(directory: &Path) -> Result<Self, String> {
        const MAX_FILES: usize = 2000;
        let entries = fs::read_dir(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        // Names that begin with two dots are the kubelet's, behind the links that are the keys.
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let names = names.filter(|name| !name.starts_with('.')).take(MAX_FILES);
        let value = |name: &String| read_text(&directory.join(name), 64 << 10).ok();
        let by_key: BTreeMap<_, _> =
            names.filter_map(|name| value(&name).map(|text| (name, text.trim().to_owned()))).collect();
        if by_key.is_empty() {
            return Err(format!("{} has no settings in it", directory.display()));
        }
        Ok(Self { directory: directory.to_owned(), by_key })
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.by_key.get(key).map(String::as_str)
    }

    fn source(&self, key: &str) -> String {
        self.directory.join(key).display().to_string()
    }
}

/// What the agent answered.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) socket: PathBuf,
    pub(super) health: Result<Value, String>,
    pub(super) config: Result<Value, String>,
}

impl Agent {
    pub(super) async fn ask(socket: &Path) -> Self {
        let json = async |path| {
            let body = http::get(socket, path, LIMIT).await.map_err(|e| e.to_string())?;
            serde_json::from_slice(&body).map_err(|e| format!("{path} is not JSON: {e}"))
        };
        let (health, config) = tokio::join!(json("/v1/healthz"), json("/v1/config"));
        Self { socket: socket.to_owned(), health, config }
    }

    /// Everything of `Cilium` but the maps and the compiled settings.
    pub(super) fn facts(&self, settings: Option<&Settings>) -> Cilium {
        let says = Says { agent: self, settings };
        let host_routing = says.host_routing();
        Cilium {
            version: says
                .pick([says.health("/cilium/msg", |v| v.as_str()?.split_whitespace().next().map(str::to_owned))]),
            state: says.pick([says.health("/cilium/state", text)]),
            legacy_routing_configured: says.legacy_routing_configured(&host_routing),
            host_routing,
            routing_mode: says.pick([
                says.health("/routing/inter-host-routing-mode", |v| routing_mode(v.as_str()?)),
                says.config("RoutingMode", |v| routing_mode(v.as_str()?)),
                says.setting("routing-mode", routing_mode),
            ]),
            tunnel_protocol: says.pick([
                says.health("/routing/tunnel-protocol", text),
                says.config("TunnelProtocol", text),
                says.setting("tunnel-protocol", word),
            ]),
            masquerade: says.masquerade(),
            ip_masq_agent: says.pick([
                says.config("EnableIPMasqAgent", Value::as_bool),
                // Left out when off.
                says.health("/masquerading", |v| Some(v.get("ip-masq-agent").is_some_and(|v| v == true))),
                says.setting("enable-ip-masq-agent", flag),
            ]),
            endpoint_routes: says.pick([
                says.config("EnableEndpointRoutes", Value::as_bool),
                says.setting("enable-endpoint-routes", flag),
            ]),
            address_scope_max: says.pick([
                says.config("AddressScopeMax", |v| v.as_u64()?.try_into().ok()),
                says.setting("local-max-addr-scope", scope),
            ]),
            exclude_local_addresses: says.pick([
                says.config("ExcludeLocalAddresses", |v| Some(prefixes(v))),
                says.setting("exclude-local-address", |text| Some(list(text))),
            ]),
            devices: says.pick([
                says.health("/kube-proxy-replacement/devices", names),
                says.health("/kube-proxy-replacement/deviceList", names),
                says.health("/host-firewall/devices", names),
                says.config("Devices", names),
                says.setting("devices", plain_names),
            ]),
            direct_routing_device: says.pick([
                says.health("/kube-proxy-replacement/directRoutingDevice", text),
                says.config("DirectRoutingDevice", text),
                says.setting("direct-routing-device", word),
            ]),
            kube_proxy_replacement: says.pick([
                says.health("/kube-proxy-replacement/mode", text),
                says.config("KubeProxyReplacement", |v| v.as_str().map(capitalized)),
                says.setting("kube-proxy-replacement", |text| Some(capitalized(text))),
            ]),
            // EnableTCX is a wish: where the kernel has no tcx, the agent falls back.
            attach_mode: says.pick([
                says.health("/attach-mode", text),
                says.config("EnableTCX", |v| (v == false).then(|| "tc".into())),
            ]),
            datapath_mode: says.pick([
                says.health("/datapath-mode", text),
                says.config("DatapathMode", text),
                says.setting("datapath-mode", word),
            ]),
            local_redirect_policy: says.pick([
                says.config("EnableLocalRedirectPolicy", Value::as_bool),
                says.setting("enable-local-redirect-policy", flag),
            ]),
            host_firewall: says.pick([
                says.health("/host-firewall/mode", |v| Some(v.as_str()? == "Enabled")),
                says.config("EnableHostFirewall", Value::as_bool),
                says.setting("enable-host-firewall", flag),
            ]),
            ..Cilium::default()
        }
    }
}

struct Says<'a> {
    agent: &'a Agent,
    settings: Option<&'a Settings>,
}

/// What one source says, if it says anything.
type Said<T> = Option<(String, T)>;

impl Says<'_> {
    fn health<T>(&self, pointer: &str, read: impl FnOnce(&Value) -> Option<T>) -> Said<T> {
        let value = read(self.agent.health.as_ref().ok()?.pointer(pointer)?)?;
        Some((format!("agent /v1/healthz {}", pointer.replace('/', ".")), value))
    }

    fn config<T>(&self, key: &str, read: impl FnOnce(&Value) -> Option<T>) -> Said<T> {
        let map = self.agent.config.as_ref().ok()?.pointer("/status/daemonConfigurationMap")?;
        Some((format!("agent /v1/config {key}"), read(map.get(key)?)?))
    }

    fn setting<T>(&self, key: &str, read: impl FnOnce(&str) -> Option<T>) -> Said<T> {
        let settings = self.settings?;
        Some((settings.source(key), read(settings.get(key)?)?))
    }

    /// The first source that knows decides; the others are noted where they differ.
    fn pick<T: PartialEq + Serialize, const N: usize>(&self, said: [Said<T>; N]) -> Fact<T> {
        let mut said = said.into_iter().flatten();
        let Some((source, value)) = said.next() else { return self.unavailable() };
        let others =
            said.filter(|(_, other)| *other != value).map(|(source, other)| match serde_json::to_value(other) {
                Ok(Value::String(text)) => format!("{source}: {text}"),
                Ok(other) => format!("{source}: {other}"),
                Err(e) => format!("{source}: {e}"),
            });
        let others = others.collect();
        Fact::Known { value, source, others }
    }

    fn unavailable<T>(&self) -> Fact<T> {
        let socket = self.agent.socket.display().to_string();
        match (&self.agent.health, &self.agent.config) {
            (Err(why), Err(_)) => Fact::unavailable(why, socket),
            (Err(why), Ok(_)) => Fact::unavailable(format!("/v1/healthz: {why}"), socket),
            (Ok(_), Err(why)) => Fact::unavailable(format!("/v1/config: {why}"), socket),
            (Ok(_), Ok(_)) => Fact::unavailable("the agent does not say it", socket),
        }
    }

    fn host_routing(&self) -> Fact<HostRouting> {
        let mode = |v: &Value| match v.as_str()? {
            "BPF" => Some(HostRouting::Bpf),
            "Legacy" => Some(HostRouting::Legacy),
            _ => None,
        };
        // The agent overwrites this one with what came out after a fallback.
        let legacy = |v: &Value| v.as_bool().map(|legacy| if legacy { HostRouting::Legacy } else { HostRouting::Bpf });
        self.pick([
            self.health("/routing/intra-host-routing-mode", mode),
            self.health("/host-routing/mode", mode), // 1.15
            self.config("EnableHostLegacyRouting", legacy),
        ])
    }

    fn legacy_routing_configured(&self, effective: &Fact<HostRouting>) -> Fact<bool> {
        const KEY: &str = "enable-host-legacy-routing";
        match (self.settings, effective.get()) {
            (Some(settings), _) => {
                let value = settings.get(KEY).and_then(flag).unwrap_or(false); // the agent's default
                Fact::known(value, settings.source(KEY))
            }
            (None, Some(HostRouting::Bpf)) => Fact::known(false, effective.source()),
            (None, Some(HostRouting::Legacy)) => Fact::unavailable(
                "the agent tells only what came out; name the directory of its settings with --cilium-config-dir",
                effective.source(),
            ),
            (None, None) => self.unavailable(),
        }
    }

    fn masquerade(&self) -> Fact<Masquerade> {
        let mode = |enabled: bool, bpf: bool| match (enabled, bpf) {
            (false, _) => Masquerade::Disabled,
            (true, true) => Masquerade::Bpf,
            (true, false) => Masquerade::Iptables,
        };
        let health = |v: &Value| {
            let enabled = v.get("enabled").is_some_and(|v| v == true);
            match v.get("mode").and_then(Value::as_str) {
                Some("BPF") => Some(mode(enabled, true)),
                Some("iptables") => Some(mode(enabled, false)),
                _ => (!enabled).then_some(Masquerade::Disabled),
            }
        };
        let config_bpf = self.config("EnableBPFMasquerade", Value::as_bool);
        let enabled = |key| self.config(key, Value::as_bool).is_some_and(|(_, on)| on);
        let any = enabled("EnableIPv4Masquerade") || enabled("EnableIPv6Masquerade");
        let settings_bpf = self.setting("enable-bpf-masquerade", flag);
        // Default true.
        let set = |key| self.setting(key, flag).is_none_or(|(_, on)| on);
        self.pick([
            self.health("/masquerading", health),
            config_bpf.map(|(source, bpf)| (source, mode(any, bpf))),
            settings_bpf.map(|(source, bpf)| (source, mode(set("enable-ipv4-masquerade"), bpf))),
        ])
    }
}

fn text(value: &Value) -> Option<String> {
    word(value.as_str()?)
}

fn word(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The agent's status says `True` where its settings say `true`.
fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn flag(text: &str) -> Option<bool> {
    text.parse().ok()
}

fn routing_mode(text: &str) -> Option<RoutingMode> {
    match text.to_ascii_lowercase().as_str() {
        "native" => Some(RoutingMode::Native),
        "tunnel" => Some(RoutingMode::Tunnel),
        _ => None,
    }
}

/// A scope by name or by number, as `local-max-addr-scope` takes it.
fn scope(text: &str) -> Option<u8> {
    let named = (0..=u8::MAX).find(|&scope| crate::facts::scope_name(scope) == text);
    named.or_else(|| text.parse().ok())
}

fn list(text: &str) -> Vec<String> {
    text.split([' ', ',']).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Names without wildcards; the agent is what knows which devices `eth+` stands for.
fn plain_names(text: &str) -> Option<Vec<String>> {
    let names = list(text);
    (!names.is_empty() && names.iter().all(|name| !name.contains(['+', '!']))).then_some(names)
}

/// Strings, or objects with a name; an empty list says nothing.
fn names(value: &Value) -> Option<Vec<String>> {
    let name = |v: &Value| v.as_str().or_else(|| v.get("name")?.as_str()).map(str::to_owned);
    let names: Vec<_> = value.as_array()?.iter().filter_map(name).collect();
    (!names.is_empty()).then_some(names)
}

/// Prefixes as text, or as Go writes a `net.IPNet` (the mask in base64, left out here).
fn prefixes(value: &Value) -> Vec<String> {
    let prefix = |v: &Value| v.as_str().or_else(|| v.get("IP")?.as_str()).map(str::to_owned);
    value.as_array().into_iter().flatten().filter_map(prefix).collect()
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
