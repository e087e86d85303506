//! Cilium's settings as it was given them: the keys of its ConfigMap, as files or through the Kubernetes API. The agent's
//! own directory has what it started with; one that is named, and the API, may have what it will start with next time,
//! and the two may differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use super::processes::{Process, read_file};
use crate::facts::Fact;

pub(super) const SOURCE: &str = "Cilium's settings as files";
/// `--config-dir` of the DaemonSet in Cilium's Helm chart.
const DEFAULT_DIRECTORY: &str = "/tmp/cilium/config-map";
const MAX_FILES: usize = 2000;
const MAX_VALUE: u64 = 64 << 10;

/// One set of settings, and where each was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    by_key: BTreeMap<String, Setting>,
    /// Where the set was read.
    place: String,
    /// The agent's own: what it does not name has the agent's default.
    complete: bool,
    /// Keys of which this set does not know what holds on this node.
    unsure: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    value: String,
    source: String,
    /// From the environment or an argument, which win over any file, next time too.
    wins: bool,
}

impl Settings {
    /// A mounted ConfigMap.
    ///
    /// # Errors
    /// The directory cannot be read, or has nothing in it.
    pub(super) fn of_directory(directory: &Path) -> Result<Self, String> {
        Self::read(&directory.display().to_string(), fs::read_dir(directory), |name| read_file(&directory.join(name)))
    }

    /// A ConfigMap through the API. Of the keys `per_node` it has the word for some nodes only.
    ///
    /// # Errors
    /// It has nothing in it.
    pub(super) fn of_config_map(
        place: String,
        data: &BTreeMap<String, String>,
        per_node: &[String],
    ) -> Result<Self, String> {
        let kept = data.iter().filter(|(_, value)| value.len() as u64 <= MAX_VALUE).take(MAX_FILES);
        let setting = |key: &str, value: &str| Setting {
            value: value.trim().to_owned(),
            source: format!("{key} in {place}"),
            wins: false,
        };
        let by_key: BTreeMap<_, _> = kept.map(|(key, value)| (key.clone(), setting(key, value))).collect();
        if by_key.is_empty() {
            return Err(format!("{place} has no settings in it"));
        }
        Ok(Self { by_key, place, complete: false, unsure: per_node.iter().cloned().collect() })
    }

    /// What the agent was started with: its `--config-dir`, then its environment, then its arguments, which win
    /// (viper's order).
    ///
    /// # Errors
    /// Nothing of it can be read.
    pub(super) fn of_agent(agent: &Process) -> Result<Self, String> {
        let arguments = agent.arguments().map_err(|e| format!("the agent's arguments: {e}"))?;
        let flags = flags(&arguments);
        let directory = flags.get("config-dir").map_or(DEFAULT_DIRECTORY, |&directory| directory);
        let place = format!("{directory} of process {}", agent.pid);
        let read = Self::read(&place, agent.list_inside(Path::new(directory)), |name| {
            agent.read_inside(&Path::new(directory).join(name))
        });
        let given = agent.environment().unwrap_or_default();
        let given = given.iter().filter_map(|pair| pair.split_once('=')).filter_map(|(name, value)| {
            let key = name.strip_prefix("CILIUM_")?.to_ascii_lowercase().replace('_', "-");
            default_of(&key).map(|_| (key, value, format!("{name} of process {}", agent.pid)))
        });
        let flags = flags.iter().filter(|(key, _)| default_of(key).is_some());
        let flags = flags.map(|(key, value)| (key.to_string(), *value, format!("--{key} of process {}", agent.pid)));
        let overrides: Vec<_> = given.chain(flags).collect();
        let mut settings = match read {
            Ok(settings) => settings,
            // Settings may all be arguments.
            Err(why) if overrides.is_empty() => return Err(why),
            Err(_) => Self { place, ..Self::default() },
        };
        for (key, value, source) in overrides {
            settings.by_key.insert(key, Setting { value: value.trim().to_owned(), source, wins: true });
        }
        Ok(Self { complete: true, ..settings })
    }

    fn read(
        place: &str,
        entries: io::Result<fs::ReadDir>,
        value: impl Fn(&str) -> io::Result<String>,
    ) -> Result<Self, String> {
        let entries = entries.map_err(|e| format!("{place}: {e}"))?;
        // Names that begin with a dot are the kubelet's, behind the links that are the keys.
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let names = names.filter(|name| !name.starts_with('.')).take(MAX_FILES);
        let (mut by_key, mut refused) = (BTreeMap::new(), None);
        for name in names {
            match value(&name) {
                Ok(text) if text.len() as u64 <= MAX_VALUE => {
                    let source = format!("{name} in {place}");
                    by_key.insert(name, Setting { value: text.trim().to_owned(), source, wins: false });
                }
                Ok(_) => {}
                Err(e) => refused = Some(format!("{name} in {place}: {e}")),
            }
        }
        match (by_key.is_empty(), refused) {
            (true, Some(why)) => Err(why),
            (true, None) => Err(format!("{place} has no settings in it")),
            (false, _) => Ok(Self { by_key, place: place.to_owned(), ..Self::default() }),
        }
    }

    /// What the agent runs with; another set is what it would start with.
    pub(super) const fn is_applied(&self) -> bool {
        self.complete
    }

    /// Where the set was read.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// It knows what holds on this node, and no environment or argument of the agent decides instead.
    fn has_word(&self, sets: &[Self], key: &str) -> bool {
        let decided = || sets.iter().any(|set| set.by_key.get(key).is_some_and(|setting| setting.wins));
        !self.unsure.contains(key) && (self.complete || !decided())
    }

    /// The value and where it was read.
    fn get(&self, key: &str) -> Option<(&str, String)> {
        self.by_key.get(key).map(|setting| (setting.value.as_str(), setting.source.clone()))
    }
}

/// What each of several sets says of a key, as text and where it was read. One that does not name it says the agent's
/// default, where it is the agent's own or where another one names the key: then it was taken out. Where the agent's
/// environment or arguments name the key, nobody else has a word.
pub(super) fn say<'a>(sets: &'a [Settings], key: &str) -> impl Iterator<Item = Option<(&'a str, String)>> {
    let named = sets.iter().any(|set| set.get(key).is_some());
    let default = default_of(key);
    let key = key.to_owned();
    sets.iter().map(move |set| {
        if !set.has_word(sets, &key) {
            return None;
        }
        set.get(&key).or_else(|| {
            let default = default.filter(|_| named || set.complete)?;
            Some((default, format!("default, as {} has no {key}", set.place)))
        })
    })
}

/// Whether a switch is on in each of several sets; none where that is not known. What a set does not name is as the
/// agent has it by default.
pub(super) fn switched(sets: &[Settings], key: &str) -> Vec<Option<bool>> {
    let is_on = |set: &Settings| {
        let text = set.by_key.get(key).map(|setting| setting.value.as_str()).or_else(|| default_of(key))?;
        text.parse().ok()
    };
    sets.iter().map(|set| set.has_word(sets, key).then(|| is_on(set)).flatten()).collect()
}

/// The agent's defaults (cilium daemon/cmd/daemon_main.go, pkg/defaults, 1.15.0 to 1.19.0-pre.0) of the keys that the
/// facts rest on.
fn default_of(key: &str) -> Option<&'static str> {
    Some(match key {
        "enable-bpf-masquerade" | "enable-endpoint-routes" | "enable-host-firewall" | "enable-ipsec" => "false",
        "enable-host-legacy-routing" | "enable-ip-masq-agent" | "enable-local-redirect-policy" => "false",
        "enable-ipv4-masquerade" | "enable-ipv6-masquerade" | "enable-ipv4" => "true",
        "enable-ipv6" => "false",
        "kube-proxy-replacement" => "false",
        "routing-mode" => "tunnel",
        "tunnel-protocol" => "vxlan",
        "local-max-addr-scope" => "252",
        "datapath-mode" => "veth",
        "exclude-local-address" | "devices" | "direct-routing-device" => "",
        _ => return None,
    })
}

/// `--key=value`, and `--key` alone, which is true.
fn flags(arguments: &[String]) -> BTreeMap<&str, &str> {
    let mut flags = BTreeMap::new();
    let mut arguments = arguments.iter().skip(1).peekable();
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.strip_prefix("--") else { continue };
        let (key, value) = match flag.split_once('=') {
            Some(pair) => pair,
            None => match arguments.next_if(|next| !next.starts_with("--")) {
                Some(value) => (flag, value.as_str()),
                None => (flag, "true"),
            },
        };
        flags.insert(key, value);
    }
    flags
}

/// Everything that says what Cilium was set to, and what could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AllSettings {
    /// The agent's own first: what it runs with.
    pub(super) sets: Vec<Settings>,
    pub(super) unread: Vec<String>,
}

impl AllSettings {
    /// From the agent's process, and from a directory that was named.
    pub(super) fn find(named: Option<&Path>, agent: Option<&Process>) -> Self {
        let mut all = Self::default();
        let found = [agent.map(Settings::of_agent), named.map(Settings::of_directory)];
        for result in found.into_iter().flatten() {
            match result {
                Ok(set) => all.sets.push(set),
                Err(why) => all.unread.push(why),
            }
        }
        all
    }

    /// Where they were read.
    pub(super) fn fact(&self) -> Fact<Vec<String>> {
        let places: Vec<_> = self.sets.iter().map(|set| set.place.clone()).collect();
        match (places.is_empty(), self.unread.is_empty()) {
            (true, true) => Fact::unavailable(
                "no cilium-agent was seen among the processes; name their directory with --cilium-config-dir",
                SOURCE,
            ),
            (true, false) => Fact::unavailable(self.unread.join("; "), SOURCE),
            (false, _) => Fact::known(places, SOURCE).noting(self.unread.iter().cloned()),
        }
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
pub(super) mod tests;
