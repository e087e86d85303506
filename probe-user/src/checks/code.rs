//! The codes of every finding. A number is never reused; the audit's (5xx to 7xx) are added with its rules.

use std::{fmt, str::FromStr};

macro_rules! codes {
    ($($number:literal $name:ident $slug:literal,)*) => {
        /// What a finding is about. The hundreds: 0 the probe, 1 the node, 2 Cilium, 3 CoreDNS, 4 measured.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $($name = $number),*
        }

        impl Code {
            /// Every code there is, in order.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The words that stand beside the number.
            #[must_use]
            pub const fn slug(self) -> &'static str {
                match self {
                    $(Self::$name => $slug),*
                }
            }
        }
    };
}

codes! {
    1 MissingPrivilege "missing-privilege",
    2 NoBtf "no-btf",
    3 HookUnavailable "hook-unavailable",
    4 CgroupRootNotFound "cgroup-root-not-found",
    5 EventsLost "events-lost",
    6 SourceUnreachable "source-unreachable",
    7 UnknownMapLayout "unknown-map-layout",
    8 NamespaceUnreachable "namespace-unreachable",
    9 OutOfTime "out-of-time",
    10 TalosResourcesDiffer "talos-resources-differ",
    11 SourcesDisagree "sources-disagree",
    101 AddressAbsent "address-absent",
    102 AddressScopeHidden "address-scope-hidden-from-cilium",
    103 NobodyListens "nobody-listens",
    104 ListenerIncomplete "listener-incomplete",
    105 AddressElsewhere "address-elsewhere",
    106 LocalRouteMissing "local-route-missing",
    107 RpFilterStrict "rp-filter-strict",
    108 NodeFirewallBlocks "node-firewall-blocks",
    201 UnknownAddressLeaks "unknown-address-leaks",
    202 UnknownAddressDropped "unknown-address-dropped",
    203 SettingsNotApplied "settings-not-applied",
    204 LegacyFallback "legacy-fallback",
    205 WorkaroundRedundant "workaround-redundant",
    206 WorkaroundIgnored "workaround-ignored-by-version",
    207 RegressionRange "version-in-regression-range",
    208 IpMasqAgentNoHelp "ip-masq-agent-no-help",
    209 SnatEntry "snat-entry-to-address",
    210 ScopeAndMapDisagree "scope-and-map-disagree",
    211 LocalRedirectPolicy "local-redirect-policy",
    212 DatapathNotObservable "datapath-not-observable",
    213 PolicyDrop "policy-drop",
    214 AgentUnhealthy "agent-unhealthy",
    301 CorednsElsewhere "coredns-not-on-this-node",
    302 CorednsBypasses "coredns-bypasses-host-dns",
    303 CorefileUnreadable "corefile-unreadable",
    304 CorednsOnHost "coredns-on-host-network",
    305 NoVantage "no-vantage",
    401 QueryDropped "query-dropped",
    402 QueryLeaked "query-leaked",
    403 ReplyLost "reply-lost",
    404 ReplyDropped "reply-dropped",
    405 PortUnreachable "port-unreachable",
    406 Unanswered "unanswered",
    407 UpstreamFailing "upstream-failing",
    408 OneTransportBroken "one-transport-broken",
    409 OneFamilyBroken "one-family-broken",
    410 Slow "slow",
    411 AnswersDiffer "answers-differ",
    412 TruncatedWithoutTcp "truncated-without-tcp",
    413 PredictionDisagrees "prediction-disagrees",
    414 QueryLost "query-lost",
    415 MalformedAnswer "malformed-answer",
}

impl Code {
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// `HDP201`.
    #[must_use]
    pub fn id(self) -> String {
        format!("HDP{:03}", self.number())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.id())
    }
}

/// Nothing is called that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no finding {0:?}")]
pub struct UnknownCode(pub String);

impl FromStr for Code {
    type Err = UnknownCode;

    /// `HDP201`, `hdp201`, `201` or the slug, in any case.
    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let wanted = text.trim().to_ascii_lowercase();
        let number = wanted.strip_prefix("hdp").unwrap_or(&wanted).parse::<u16>().ok();
        Self::ALL
            .iter()
            .copied()
            .find(|code| Some(code.number()) == number || code.slug() == wanted)
            .ok_or_else(|| UnknownCode(text.trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_and_slugs_are_unique_and_in_order() {
        let numbers: BTreeSet<_> = Code::ALL.iter().map(|code| code.number()).collect();
        let slugs: BTreeSet<_> = Code::ALL.iter().map(|code| code.slug()).collect();
        assert_eq!(numbers.len(), Code::ALL.len());
        assert_eq!(slugs.len(), Code::ALL.len());
        assert!(Code::ALL.is_sorted());
    }

    /// Other people's scripts rely on these: a line may be added, none changed or taken away.
    #[test]
    fn snapshot() {
        let all: Vec<String> = Code::ALL.iter().map(|code| format!("{code} {}", code.slug())).collect();
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn is_found_by_code_number_and_slug() {
        for text in ["HDP201", "hdp201", "201", " unknown-address-leaks ", "Unknown-Address-Leaks"] {
            assert_eq!(text.parse(), Ok(Code::UnknownAddressLeaks), "{text}");
        }
        assert_eq!("HDP001".parse(), Ok(Code::MissingPrivilege));
        assert_eq!("HDP999".parse::<Code>(), Err(UnknownCode("HDP999".into())));
    }
}
