//! Who masquerades what leaves for the outside: Cilium's programs, iptables, or nobody.

use serde_json::Value;

use super::{Says, Word, flag};
use crate::facts::{Fact, Masquerade, gather::settings};

impl Says<'_> {
    pub(super) fn masquerade(&self) -> Fact<Masquerade> {
        let health = |v: &Value| {
            let enabled = v.get("enabled").is_some_and(|v| v == true);
            match v.get("mode").and_then(Value::as_str) {
                Some("BPF") => Some(mode(enabled, true)),
                Some("iptables") => Some(mode(enabled, false)),
                _ => (!enabled).then_some(Masquerade::Disabled),
            }
        };
        let bpf = self.config("EnableBPFMasquerade", Value::as_bool);
        let config = bpf.map(|(source, bpf)| (source, mode(self.is_on_by_config(), bpf)));
        self.pick([self.health("/masquerading", health), config], self.masquerade_set())
    }

    /// Of either family. The agent's own value of a family's masquerading is off where the family is (cilium
    /// pkg/option/config.go, `Populate`).
    fn is_on_by_config(&self) -> bool {
        let said = |key: &str| self.config(key, Value::as_bool).map(|(_, on)| on);
        let is_on = |masquerades: &str, family: &str, default: bool| match (said(masquerades), said(family)) {
            (Some(on), family) => on && family.unwrap_or(true),
            (None, family) => family.unwrap_or(default),
        };
        is_on("EnableIPv4Masquerade", "EnableIPv4", true) || is_on("EnableIPv6Masquerade", "EnableIPv6", false)
    }

    /// What each set of settings makes of it; one that does not know its own switches makes nothing.
    fn masquerade_set(&self) -> Vec<Word<Masquerade>> {
        let sets = &self.settings.sets;
        let switched = |key| settings::switched(sets, key);
        let (v4, v6) = (switched("enable-ipv4"), switched("enable-ipv6"));
        let (masquerades4, masquerades6) = (switched("enable-ipv4-masquerade"), switched("enable-ipv6-masquerade"));
        let bpf = settings::say(sets, "enable-bpf-masquerade");
        let set = |(at, said): (usize, Option<(&str, String)>)| {
            let (text, source) = said?;
            let families = [both(v4[at], masquerades4[at]), both(v6[at], masquerades6[at])];
            let enabled = match families {
                [Some(false), Some(false)] => false,
                [Some(true), _] | [_, Some(true)] => true,
                _ => return None,
            };
            Some(Word { source, value: mode(enabled, flag(text)?), applied: sets[at].is_applied() })
        };
        bpf.enumerate().filter_map(set).collect()
    }
}

const fn mode(enabled: bool, bpf: bool) -> Masquerade {
    match (enabled, bpf) {
        (false, _) => Masquerade::Disabled,
        (true, true) => Masquerade::Bpf,
        (true, false) => Masquerade::Iptables,
    }
}

/// Both are on; one that is off suffices to know that they are not.
const fn both(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(true), Some(true)) => Some(true),
        (Some(false), _) | (_, Some(false)) => Some(false),
        _ => None,
    }
}
