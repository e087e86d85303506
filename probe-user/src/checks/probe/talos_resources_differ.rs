//! HDP010 talos-resources-differ: the resources that were given are not of this node as it is now.

use std::net::IpAddr;

use crate::{
    checks::{Case, Check, Finding, Severity, code::Code},
    facts::{TalosAddress, scope_name},
    predict::node,
};

pub(in crate::checks) const CHECK: Check = Check { code: Code::TalosResourcesDiffer, explain: EXPLAIN, run };

const EXPLAIN: &str = "\
Talos' resources (--talos-resources) say something else about the address than the kernel.

Talos keeps what it wants (AddressSpecs) and what it sees (AddressStatuses); the kernel has what is.
They differ where the resources were written before a change, are of another node, or where Talos
is still applying a change. Judged is what the kernel says.

By hand: `ip -d addr show lo` on the node beside `talosctl -n NODE get addresses`.

Fix: get the resources again, of this very node: talosctl -n NODE get addresses -o yaml, and
talosctl -n NODE get addressspecs --namespace network-config -o yaml for the layers.

Versions: Talos 1.8 and later.
";

fn run(case: &Case<'_>) -> Vec<Finding> {
    let Some(talos) = &case.facts.talos else { return Vec::new() };
    let mut lines = Vec::new();
    for &target in &case.targets.addresses {
        let Some(held) = node::holders(case.facts, target) else { continue };
        let wanted = talos.address_specs.get().into_iter().flatten().filter(|spec| spec.merged);
        for (what, told) in [
            ("AddressStatus", talos.addresses.get().map(|all| of(all.iter(), target))),
            ("AddressSpec", talos.address_specs.get().map(|_| of(wanted, target)).filter(|specs| !specs.is_empty())),
        ] {
            let Some(told) = told else { continue };
            let differs = told.iter().filter(|told| !held.iter().any(|held| agree(told, held)));
            lines.extend(differs.map(|told| {
                let kernel: Vec<_> = held.iter().map(|held| node::describe(held)).collect();
                let kernel = if kernel.is_empty() { "the kernel has it nowhere".into() } else { kernel.join("; ") };
                format!("{what}: {} on {} with scope {}; {kernel}", told.address, told.link, told.scope)
            }));
            if told.is_empty() {
                lines.extend(held.iter().map(|held| format!("no {what} has it; {}", node::describe(held))));
            }
        }
    }
    if lines.is_empty() {
        return Vec::new();
    }
    let title = "Talos' resources say something else about the address than the kernel.";
    vec![Finding::new(Code::TalosResourcesDiffer, Severity::Warn, title).evidences(lines)]
}

fn of<'a>(all: impl Iterator<Item = &'a TalosAddress>, target: IpAddr) -> Vec<&'a TalosAddress> {
    all.filter(|told| told.address.split('/').next().and_then(|ip| ip.parse().ok()) == Some(target)).collect()
}

fn agree(told: &TalosAddress, held: &crate::facts::InterfaceAddress) -> bool {
    told.link == held.interface && told.scope == scope_name(held.scope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::{Scene, hide, known};
    use crate::facts::Talos;

    fn told(scope: &str) -> Talos {
        let address = TalosAddress {
            link: "lo".into(),
            address: "169.254.116.108/32".into(),
            scope: scope.into(),
            layer: None,
            merged: false,
        };
        Talos { addresses: known(vec![address]), ..Talos::default() }
    }

    #[test]
    fn only_where_the_kernel_says_otherwise() {
        let with = |talos: Talos| Scene::new().facts(|f| f.talos = Some(talos));
        assert_eq!(with(told("global")).finding("HDP010"), None);
        assert_eq!(with(Talos::default()).finding("HDP010"), None, "nothing was told");
        let finding = with(told("host")).finding("HDP010").unwrap();
        assert!(
            finding.evidence[0].contains("scope host; 169.254.116.108/32 is on lo with scope global"),
            "{finding:?}"
        );
        assert!(with(told("global")).facts(hide).finding("HDP010").is_some());
        let nowhere = Talos { addresses: known(vec![]), ..Talos::default() };
        assert!(with(nowhere).finding("HDP010").unwrap().evidence[0].starts_with("no AddressStatus"));
    }

    #[test]
    fn a_spec_of_one_layer_is_not_what_came_out() {
        let mut talos = told("global");
        let layers = ["operator", "configuration"].map(|layer| TalosAddress {
            scope: if layer == "operator" { "host".into() } else { "global".into() },
            layer: Some(layer.into()),
            ..talos.addresses.get().unwrap()[0].clone()
        });
        talos.address_specs = known(layers.to_vec());
        assert_eq!(Scene::new().facts(|f| f.talos = Some(talos)).finding("HDP010"), None);
    }
}
