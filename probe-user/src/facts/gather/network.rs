//! The node's network, as rtnetlink and /proc/sys say it is.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path, time::Duration};

use super::{
    Sources, resolv,
    rtnetlink::{self, RouteEntry},
};
use crate::facts::{Fact, InterfaceAddress, Link, Network, Route};
use crate::{
    netlink::{Entries, Error, Netlink},
    netns::Netns,
    target::Targets,
};

/// How long the kernel has for one answer.
const LIMIT: Duration = Duration::from_millis(500);

/// Index of `lo` in every network namespace (LOOPBACK_IFINDEX, include/net/net_namespace.h).
const LO: u32 = 1;

/// Reads the network of the calling thread's namespace.
pub(super) fn read(sources: &Sources) -> Network {
    let (proc_root, targets) = (&sources.proc_root, &sources.targets);
    let asked = Netlink::open(rtnetlink::FAMILY, LIMIT);
    let ask = |what| (asked.as_ref().map_err(ToString::to_string), format!("rtnetlink {what}"));
    let links = fact(ask("RTM_GETLINK"), rtnetlink::links);
    let names = |index: u32| name(&links, index);
    Network {
        netns: match Netns::current().and_then(|netns| netns.id()) {
            Ok(id) => Fact::known(id, "/proc/thread-self/ns/net"),
            Err(e) => Fact::unavailable(e, "/proc/thread-self/ns/net"),
        },
        addresses: fact(ask("RTM_GETADDR"), rtnetlink::addresses).map(|found| with_names(found, names)),
        routes: cut(fact(ask("RTM_GETROUTE"), rtnetlink::routes).map(|found| of_interest(found, targets, names))),
        rules: fact(ask("RTM_GETRULE"), rtnetlink::rules),
        rp_filter: rp_filter(&proc_root.join("sys/net/ipv4/conf")),
        ip_forward: ip_forward(&proc_root.join("sys/net/ipv4/ip_forward")),
        resolv_conf: resolv::of_node(&sources.node_root()),
        pod_resolv_conf: Fact::default(),
        links,
    }
}

/// The address is on the loopback device of the calling thread's namespace; where that cannot be read, it is not.
pub(super) fn is_on_lo(address: IpAddr) -> bool {
    let on_lo =
        |all: Vec<(u32, InterfaceAddress)>| all.iter().any(|(index, held)| *index == LO && held.address == address);
    let found = Netlink::open(rtnetlink::FAMILY, LIMIT).and_then(|netlink| rtnetlink::addresses(&netlink));
    found.is_ok_and(|read| on_lo(read.found))
}

type Asked<'a> = (Result<&'a Netlink, String>, String);

fn fact<T>((netlink, source): Asked<'_>, read: impl FnOnce(&Netlink) -> Result<Entries<T>, Error>) -> Fact<Vec<T>> {
    match netlink.and_then(|netlink| read(netlink).map_err(|e| e.to_string())) {
        Ok(read) => Fact::known(read.found, source).noting(read.unread),
        Err(why) => Fact::unavailable(why, source),
    }
}

fn name(links: &Fact<Vec<Link>>, index: u32) -> String {
    let link = links.get().and_then(|links| links.iter().find(|link| link.index == index));
    link.map_or_else(|| format!("if{index}"), |link| link.name.clone())
}

fn with_names(found: Vec<(u32, InterfaceAddress)>, names: impl Fn(u32) -> String) -> Vec<InterfaceAddress> {
    found.into_iter().map(|(index, address)| InterfaceAddress { interface: names(index), ..address }).collect()
}

/// Routes that cover a target, most specific first, with the defaults of both families among them; then the rest of the
/// main table.
fn of_interest(found: Vec<(Option<u32>, RouteEntry)>, targets: &Targets, names: impl Fn(u32) -> String) -> Vec<Route> {
    const MAIN: u32 = 254;
    let matters = |entry: &RouteEntry| {
        let default = entry.prefix_len == 0 && entry.route.kind == "unicast";
        default || targets.addresses.iter().any(|&target| entry.covers(target))
    };
    // Every device has one to its link-local neighbours.
    let own = |entry: &RouteEntry| matches!(entry.network, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let mut found: Vec<_> =
        found.into_iter().filter(|(_, entry)| matters(entry) || (entry.route.table == MAIN && !own(entry))).collect();
    found.sort_by_key(|(_, entry)| std::cmp::Reverse((matters(entry), entry.prefix_len, entry.route.table)));
    found.into_iter().map(|(index, entry)| Route { interface: index.map(&names), ..entry.route }).collect()
}

/// A node may have a route for every other node.
fn cut(mut routes: Fact<Vec<Route>>) -> Fact<Vec<Route>> {
    const MAX: usize = 200;
    if let Fact::Known { value, notes, .. } = &mut routes
        && let Some(left_out) = value.len().checked_sub(MAX).filter(|&number| number > 0)
    {
        value.truncate(MAX);
        notes.push(format!("{left_out} more routes of the main table were left out"));
    }
    routes
}

/// The kernel applies the higher of `all` and the interface's own (Documentation/networking/ip-sysctl.rst).
fn rp_filter(conf: &Path) -> Fact<BTreeMap<String, u8>> {
    let source = conf.join("*/rp_filter").display().to_string();
    let read = |interface: &str| {
        let text = fs::read_to_string(conf.join(interface).join("rp_filter")).ok()?;
        text.trim().parse::<u8>().ok()
    };
    let Some(all) = read("all") else {
        return Fact::unavailable("cannot be read", conf.join("all/rp_filter").display().to_string());
    };
    match fs::read_dir(conf) {
        Ok(entries) => {
            let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            let effective = |name: String| {
                let own = read(&name)?;
                let value = if name == "default" { own } else { own.max(all) };
                Some((name, value))
            };
            Fact::known(names.filter_map(effective).collect(), source)
        }
        Err(e) => Fact::unavailable(e, source),
    }
}

fn ip_forward(path: &Path) -> Fact<bool> {
    let source = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => Fact::known(text.trim() != "0", source),
        Err(e) => Fact::unavailable(e, source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_higher_rp_filter_counts() {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in [("all", "1\n"), ("default", "0\n"), ("lxc1", "0\n"), ("eth0", "2\n")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("rp_filter"), value).unwrap();
        }
        let found = rp_filter(dir.path());
        let expected = [("all", 1), ("default", 0), ("eth0", 2), ("lxc1", 1)];
        assert_eq!(found.get(), Some(&expected.map(|(name, value)| (name.to_owned(), value)).into()));
    }

    #[test]
    fn no_proc_is_said() {
        let found = ip_forward(Path::new("/nonexistent/ip_forward"));
        assert!(found.why().is_some_and(|why| why.contains("No such file")));
    }

    #[test]
    fn an_address_is_on_lo_or_not() {
        for (address, expected) in [("127.0.0.1", true), ("192.0.2.77", false), ("2001:db8::77", false)] {
            assert_eq!(is_on_lo(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn loopback_is_there_without_root() {
        let network = read(&Sources::default());
        let links = network.links.get().expect("links need no privilege");
        assert!(links.iter().any(|link| link.name == "lo" && link.index == 1));
    }
}
