//! What Cilium's agent says of itself, `/v1/healthz` and `/v1/config` on its socket, beside the settings it was given.
//! The names differ by release (recorded: 1.16.4 to 1.19.0-pre.0; 1.15 from its OpenAPI).

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;

use super::{
    http,
    settings::{self, AllSettings},
};
use crate::facts::{Cilium, Fact, HostRouting, RoutingMode, scope_of, walk::words, would_start_with};

mod masquerade;
mod prefixes;

const LIMIT: Duration = Duration::from_secs(1);

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
    pub(super) fn facts(&self, settings: &AllSettings) -> Cilium {
        let says = Says { agent: self, settings };
        let host_routing = says.host_routing();
        let (excluded, left_out) = says
            .config("ExcludeLocalAddresses", |v| Some(prefixes::read(v)))
            .map_or_else(Default::default, |(source, (prefixes, left_out))| (Some((source, prefixes)), left_out));
        Cilium {
            version: says
                .heard([says.health("/cilium/msg", |v| v.as_str()?.split_whitespace().next().map(str::to_owned))]),
            state: says.heard([says.health("/cilium/state", text)]),
            legacy_routing_configured: says.legacy_routing_configured(&host_routing),
            host_routing,
            routing_mode: says.pick(
                [
                    says.health("/routing/inter-host-routing-mode", |v| routing_mode(v.as_str()?)),
                    says.config("RoutingMode", |v| routing_mode(v.as_str()?)),
                ],
                says.settings("routing-mode", routing_mode),
            ),
            tunnel_protocol: says.pick(
                [says.health("/routing/tunnel-protocol", text), says.config("TunnelProtocol", text)],
                says.settings("tunnel-protocol", word),
            ),
            // A family's own range is told only where the family is on.
            ipv4: says.pick(
                [
                    says.config("EnableIPv4", Value::as_bool),
                    says.health("/masquerading/snat-exclusion-cidr-v4", |v| text(v).map(|_| true)),
                ],
                says.settings("enable-ipv4", flag),
            ),
            ipv6: says.pick(
                [
                    says.config("EnableIPv6", Value::as_bool),
                    says.health("/masquerading/snat-exclusion-cidr-v6", |v| text(v).map(|_| true)),
                ],
                says.settings("enable-ipv6", flag),
            ),
            masquerade: says.masquerade(),
            ip_masq_agent: says.pick(
                [
                    says.config("EnableIPMasqAgent", Value::as_bool),
                    // Left out when off.
                    says.health("/masquerading", |v| Some(v.get("ip-masq-agent").is_some_and(|v| v == true))),
                ],
                says.settings("enable-ip-masq-agent", flag),
            ),
            endpoint_routes: says.pick(
                [says.config("EnableEndpointRoutes", Value::as_bool)],
                says.settings("enable-endpoint-routes", flag),
            ),
            address_scope_max: says.pick(
                [says.config("AddressScopeMax", |v| v.as_u64()?.try_into().ok())],
                says.settings("local-max-addr-scope", scope_of),
            ),
            exclude_local_addresses: says
                .pick(
                    [excluded],
                    // Half a list is not compared.
                    match left_out.is_empty() {
                        true => says.settings("exclude-local-address", |text| {
                            Some(list(text).iter().map(|prefix| prefixes::whole(prefix)).collect())
                        }),
                        false => Vec::new(),
                    },
                )
                .noting(left_out),
            devices: says.pick(
                [
                    says.health("/kube-proxy-replacement/devices", names),
                    says.health("/kube-proxy-replacement/deviceList", names),
                    says.health("/host-firewall/devices", names),
                    says.config("Devices", names),
                ],
                says.settings("devices", plain_names),
            ),
            direct_routing_device: says.pick(
                [
                    says.health("/kube-proxy-replacement/directRoutingDevice", text),
                    says.config("DirectRoutingDevice", text),
                ],
                says.settings("direct-routing-device", plain_name),
            ),
            kube_proxy_replacement: says.kube_proxy_replacement(),
            ipsec: says.pick(
                [
                    says.health("/encryption/mode", |v| Some(v.as_str()?.eq_ignore_ascii_case("ipsec"))),
                    says.config("EnableIPSec", Value::as_bool),
                ],
                says.settings("enable-ipsec", flag),
            ),
            // EnableTCX is a wish: where the kernel has no tcx, the agent falls back.
            attach_mode: says.heard([
                says.health("/attach-mode", text),
                says.config("EnableTCX", |v| (v == false).then(|| "tc".into())),
            ]),
            datapath_mode: says.pick(
                [says.health("/datapath-mode", text), says.config("DatapathMode", text)],
                // With `auto` the agent chooses.
                says.settings("datapath-mode", |text| word(text).filter(|mode| mode != "auto")),
            ),
            local_redirect_policy: says.pick(
                [says.config("EnableLocalRedirectPolicy", Value::as_bool)],
                says.settings("enable-local-redirect-policy", flag),
            ),
            host_firewall: says.pick(
                [
                    says.health("/host-firewall/mode", |v| Some(v.as_str()? == "Enabled")),
                    says.config("EnableHostFirewall", Value::as_bool),
                ],
                says.settings("enable-host-firewall", flag),
            ),
            ..Cilium::default()
        }
    }
}

struct Says<'a> {
    agent: &'a Agent,
    settings: &'a AllSettings,
}

/// What one source says, if it says anything.
type Said<T> = Option<(String, T)>;

/// What a set of settings says.
struct Word<T> {
    source: String,
    value: T,
    /// Of what the agent runs with.
    applied: bool,
}

impl<T> Word<T> {
    /// As what decides.
    fn deciding(self) -> (String, T) {
        (if self.applied { self.source } else { would_start_with(&self.source) }, self.value)
    }
}

impl Says<'_> {
    fn health<T>(&self, pointer: &str, read: impl FnOnce(&Value) -> Option<T>) -> Said<T> {
        let value = read(self.agent.health.as_ref().ok()?.pointer(pointer)?)?;
        Some((format!("agent /v1/healthz {}", pointer.replace('/', ".")), value))
    }

    fn config<T>(&self, key: &str, read: impl FnOnce(&Value) -> Option<T>) -> Said<T> {
        let map = self.agent.config.as_ref().ok()?.pointer("/status/daemonConfigurationMap")?;
        Some((format!("agent /v1/config {key}"), read(map.get(key)?)?))
    }

    /// What each set of settings says of a key, where it can be read as what it should be.
    fn settings<T>(&self, key: &str, read: impl Fn(&str) -> Option<T>) -> Vec<Word<T>> {
        let sets = &self.settings.sets;
        let said = sets.iter().zip(settings::say(sets, key)).filter_map(|(set, said)| Some((set, said?)));
        said.filter_map(|(set, (text, source))| Some(Word { source, value: read(text)?, applied: set.is_applied() }))
            .collect()
    }

    /// The agent alone.
    fn heard<T: PartialEq + Serialize, const N: usize>(&self, said: [Said<T>; N]) -> Fact<T> {
        self.pick(said, Vec::new())
    }

    /// The first source that knows decides; the others are kept where they differ. Where neither the agent nor its own
    /// set knows, a set that was named or the API's decides, and the source says that it holds for an agent that is
    /// started anew. That is better than nothing for a reader, and what a change to come is judged by; what runs now is
    /// not judged by it (`Cilium::legacy_reasons`). A directory that is named is no exception: the kubelet writes a
    /// mounted ConfigMap anew while the agent goes on.
    fn pick<T: PartialEq + Serialize, const N: usize>(&self, said: [Said<T>; N], settings: Vec<Word<T>>) -> Fact<T> {
        let (mut said, mut settings) = (said.into_iter().flatten(), settings.into_iter());
        let decides = said.next().or_else(|| settings.next().map(Word::deciding));
        let Some((source, value)) = decides else { return self.unavailable() };
        let others = said.chain(settings.map(|word| (word.source, word.value)));
        let others =
            others.filter(|(_, other)| *other != value).map(|(source, other)| match serde_json::to_value(other) {
                Ok(other) => format!("{source}: {}", words(&other).unwrap_or_else(|| other.to_string())),
                Err(e) => format!("{source}: {e}"),
            });
        let others = others.collect();
        Fact::Known { value, source, others, notes: Vec::new() }
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
        self.heard([
            self.health("/routing/intra-host-routing-mode", mode),
            self.health("/host-routing/mode", mode), // 1.15
            self.config("EnableHostLegacyRouting", legacy),
        ])
    }

    fn kube_proxy_replacement(&self) -> Fact<String> {
        let said = [
            self.health("/kube-proxy-replacement/mode", text),
            self.config("KubeProxyReplacement", |v| v.as_str().map(capitalized)),
        ];
        // Up to 1.15 a mode has two names, and the agent may say the other one than its settings.
        let told = said.iter().flatten().next().map(|(_, mode)| mode.clone());
        let settings = self.settings("kube-proxy-replacement", |text| {
            let mode = capitalized(text);
            Some(told.clone().filter(|told| is_same_mode(told, &mode)).unwrap_or(mode))
        });
        self.pick(said, settings)
    }

    /// What the agent was started with decides; what it will be started with next time is kept where it differs. Of an
    /// agent whose own set is not there, BPF host routing tells that it was not asked for Legacy.
    fn legacy_routing_configured(&self, effective: &Fact<HostRouting>) -> Fact<bool> {
        let mut configured = self.settings("enable-host-legacy-routing", flag);
        if configured.is_empty() {
            // Where settings were read and none has the key, it is the agent's default.
            configured.extend(self.settings.sets.iter().map(|set| Word {
                source: format!("default, as {} has none", set.place()),
                value: false,
                applied: set.is_applied(),
            }));
        }
        let own = configured.iter().any(|word| word.applied);
        if effective.get() == Some(&HostRouting::Bpf) && !own {
            return self.pick([Some((effective.source().to_owned(), false))], configured);
        }
        if !configured.is_empty() {
            return self.pick([], configured);
        }
        if effective.get().is_none() {
            return self.unavailable();
        }
        let mut why = "the agent tells only what came out; name the directory of its settings with --cilium-config-dir"
            .to_owned();
        for unread in &self.settings.unread {
            why = format!("{why}; {unread}");
        }
        Fact::unavailable(why, effective.source())
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

fn is_same_mode(a: &str, b: &str) -> bool {
    [["True", "Strict"], ["False", "Disabled"]].iter().any(|names| names.contains(&a) && names.contains(&b))
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

fn list(text: &str) -> Vec<String> {
    text.split([' ', ',']).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Names without wildcards, sorted; the agent is what knows which devices `eth+` stands for.
fn plain_names(text: &str) -> Option<Vec<String>> {
    let mut names = list(text);
    names.sort();
    (!names.is_empty() && names.iter().all(|name| is_plain(name))).then_some(names)
}

fn plain_name(text: &str) -> Option<String> {
    word(text).filter(|name| is_plain(name))
}

fn is_plain(name: &str) -> bool {
    !name.contains(['+', '!'])
}

/// Strings, or objects with a name, sorted; an empty list says nothing, and neither do the wildcards it was given.
fn names(value: &Value) -> Option<Vec<String>> {
    let name = |v: &Value| v.as_str().or_else(|| v.get("name")?.as_str()).map(str::to_owned);
    let mut names: Vec<_> = value.as_array()?.iter().filter_map(name).collect();
    names.sort();
    (!names.is_empty() && names.iter().all(|name| is_plain(name))).then_some(names)
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
