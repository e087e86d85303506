//! Which queries `check` must make in a scenario, and how each must end.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CoreDns, Scenario};
use crate::{ended::Ended, facts::Transport, query::VantageKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// Who asks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Test {
    pub vantage: VantageKind,
    pub family: Family,
    pub transport: Transport,
}

impl Scenario {
    /// Every query that `check` must make here, and how it must end.
    #[must_use]
    pub fn tests(&self) -> Vec<(Test, Ended)> {
        let expected = &self.expected;
        let families: Vec<Family> = self.node.host_dns.iter().map(|dns| Family::of(dns.address)).collect();
        let pods: &[VantageKind] = match self.node.coredns {
            CoreDns::Pod | CoreDns::BypassesHostDns => &[VantageKind::Coredns, VantageKind::Health],
            CoreDns::HostNetwork | CoreDns::Elsewhere => &[VantageKind::Health, VantageKind::Pod],
        };
        let node: &[VantageKind] = match self.node.coredns {
            CoreDns::HostNetwork => &[VantageKind::CorednsOnHost, VantageKind::Node],
            CoreDns::Pod | CoreDns::BypassesHostDns | CoreDns::Elsewhere => &[VantageKind::Node],
        };
        let each = |vantage, family, ended: &dyn Fn(Transport) -> Ended| {
            [Transport::Udp, Transport::Tcp].map(|transport| (Test { vantage, family, transport }, ended(transport)))
        };
        let mut tests = Vec::new();
        for (vantages, ends) in [(pods, &expected.pods), (node, &expected.node)] {
            for &vantage in vantages {
                tests.extend(families.iter().flat_map(|&family| each(vantage, family, &|over| ends.of(family, over))));
            }
        }
        // Host DNS serves the node at 127.0.0.53, whatever becomes of the address.
        tests.extend(each(VantageKind::NodeLoopback, Family::Ipv4, &|_over| Ended::Answered));
        tests
    }
}
