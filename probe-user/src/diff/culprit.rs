//! Which of the changes did it, by the model: each is made alone to the node as it was, and predicted again.

use super::Culprit;
use crate::{
    facts::{self, Fact, Facts},
    predict::{
        Deciding, predict_for,
        what_if::{self, Change},
    },
    report::{Prediction, Report, Status},
    verdict::deciding_in,
};

/// The change of who decides: CoreDNS in a network of its own, or with hostNetwork.
const COREDNS_NETWORK: &str = "coredns.network";

/// Nothing where the prediction is the same, or one of them is unknown.
pub(super) fn find(before: &Report, after: &Report) -> Vec<Culprit> {
    let (targets, facts) = (before.target_sockets(), &before.facts);
    let (decided, decides) = (deciding_in(before), deciding_in(after));
    let (then, now) = (predict_for(facts, &targets, decided), predict_for(&after.facts, &targets, decides));
    if then.status == Status::Unknown || now.status == Status::Unknown || is_same(&then, &now) {
        return Vec::new();
    }
    let because = |alone: Prediction| alone.because.into_iter().filter(|step| !then.because.contains(step)).collect();
    let settings = between(facts, &after.facts).into_iter().filter_map(|change| {
        let alone = what_if::after(facts, &targets, decided, std::slice::from_ref(&change));
        is_same(&alone, &now).then(|| Culprit {
            what: change.key().to_owned(),
            before: what_if::now(facts, &targets, &change).unwrap_or_else(|| "unknown".to_owned()),
            after: what_if::now(&after.facts, &targets, &change).unwrap_or_else(|| "unknown".to_owned()),
            because: because(alone),
        })
    });
    let moved = Some(predict_for(facts, &targets, decides)).filter(|alone| decided != decides && is_same(alone, &now));
    let moved = moved.map(|alone| Culprit {
        what: COREDNS_NETWORK.to_owned(),
        before: network(decided).to_owned(),
        after: network(decides).to_owned(),
        because: because(alone),
    });
    settings.chain(moved).collect()
}

const fn network(deciding: Deciding) -> &'static str {
    match deciding {
        Deciding::Pods => "a pod's own",
        Deciding::Node => "the node's (hostNetwork)",
        Deciding::Both => "one in a pod's own, one in the node's",
    }
}

fn is_same(one: &Prediction, other: &Prediction) -> bool {
    (one.status, one.ended, &one.cause) == (other.status, other.ended, &other.cause)
}

/// Settings that are known both times and differ.
fn between(before: &Facts, after: &Facts) -> Vec<Change> {
    let (old, new) = (&before.cilium, &after.cilium);
    let legacy = |legacy: &bool| if *legacy { facts::HostRouting::Legacy } else { facts::HostRouting::Bpf };
    let replaced = |mode: &String| facts::replaces_kube_proxy(mode);
    let addresses = changed(&before.network.addresses, &after.network.addresses)
        .zip(after.network.routes.get())
        .map(|(addresses, routes)| Change::Addresses(addresses.clone(), routes.clone()));
    [
        changed(&old.version, &new.version).cloned().map(Change::CiliumVersion),
        changed(&old.legacy_routing_configured, &new.legacy_routing_configured).map(legacy).map(Change::HostRouting),
        changed(&old.masquerade, &new.masquerade).copied().map(Change::Masquerade),
        changed(&old.kube_proxy_replacement, &new.kube_proxy_replacement)
            .map(replaced)
            .map(Change::KubeProxyReplacement),
        changed(&old.ipsec, &new.ipsec).copied().map(Change::Ipsec),
        changed(&old.routing_mode, &new.routing_mode).copied().map(Change::RoutingMode),
        changed(&old.devices, &new.devices).cloned().map(Change::Devices),
        changed(&old.endpoint_routes, &new.endpoint_routes).copied().map(Change::EndpointRoutes),
        changed(&old.address_scope_max, &new.address_scope_max).copied().map(Change::AddressScopeMax),
        changed(&old.exclude_local_addresses, &new.exclude_local_addresses).cloned().map(Change::ExcludeLocalAddress),
        addresses,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The value after, where it is another one.
fn changed<'a, T: PartialEq>(before: &Fact<T>, after: &'a Fact<T>) -> Option<&'a T> {
    after.get().filter(|new| before.get().is_some_and(|old| old != *new))
}
