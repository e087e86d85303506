//! Talos' resources, from files with the output of `talosctl get TYPE -o yaml` or `-o json`: YAML documents behind each
//! other, or JSON objects behind each other. What is not understood is left out and told by file, document and field;
//! types that are not of interest (a machine configuration with its secrets) are not looked into.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read as _,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use crate::facts::{Fact, InterfaceAddress, Talos};

mod spec;

const MAX_FILE: u64 = 16 << 20;
const MAX_DOCUMENTS: usize = 20_000;
const MAX_DEPTH: usize = 32;
/// Gaps beyond this are counted.
const MAX_GAPS: usize = 20;

/// What `talosctl` writes of each resource.
#[derive(Debug, Deserialize)]
struct Resource {
    #[serde(default)]
    node: String,
    metadata: Metadata,
    #[serde(default)]
    spec: Value,
    /// File and document.
    #[serde(skip)]
    place: String,
}

impl Resource {
    /// The address that it is about, of a prefix as "192.0.2.7/24".
    fn address(&self) -> Option<IpAddr> {
        self.spec.get("address")?.as_str()?.split('/').next()?.parse().ok()
    }
}

#[derive(Debug, Deserialize)]
struct Metadata {
    #[serde(default)]
    namespace: String,
    r#type: String,
    id: String,
    #[serde(default)]
    phase: String,
}

/// Everything the files have that is of interest.
#[derive(Debug, Default)]
pub(super) struct Dump {
    files: Vec<PathBuf>,
    resources: Vec<Resource>,
    gaps: Vec<String>,
    /// Files that nothing was learnt from, each with the reason.
    unread: Vec<String>,
}

/// What this node is known by.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Own<'a> {
    /// None: they could not be read, so nobody is another node.
    pub(super) addresses: Option<&'a [InterfaceAddress]>,
    pub(super) name: Option<&'a str>,
}

impl Own<'_> {
    fn is(self, node: &str) -> bool {
        match node.parse::<IpAddr>() {
            Ok(address) => self.addresses.unwrap_or_default().iter().any(|held| held.address == address),
            Err(_) => self.name == Some(node),
        }
    }

    /// An address that this node does not have. talosctl may know a node by a name that it does not have itself.
    fn is_not(self, node: &str) -> bool {
        self.addresses.is_some() && node.parse::<IpAddr>().is_ok() && !self.is(node)
    }
}

const HOST_DNS: &str = "HostDNSConfigs.net.talos.dev";
const ADDRESS: &str = "AddressStatuses.net.talos.dev";
const ADDRESS_SPEC: &str = "AddressSpecs.net.talos.dev";
const RESOLVER: &str = "ResolverStatuses.net.talos.dev";
const UPSTREAM: &str = "DNSUpstreams.net.talos.dev";
const CACHE: &str = "DNSResolveCaches.net.talos.dev";

impl Dump {
    pub(super) fn read(files: &[PathBuf]) -> Self {
        let mut dump = Self { files: files.to_vec(), ..Self::default() };
        for file in files {
            match read(file) {
                Ok(text) => dump.take(&file.display().to_string(), &text),
                Err(why) => dump.nothing_in(&file.display().to_string(), &why),
            }
        }
        dump
    }

    fn take(&mut self, file: &str, text: &str) {
        let documents = if text.trim_start().starts_with('{') { json(text) } else { yaml(text) };
        let mut number = 0;
        for document in documents {
            number += 1;
            if number > MAX_DOCUMENTS {
                self.gap(format!("{file}: it has more than {MAX_DOCUMENTS} documents; the rest was left out"));
                break;
            }
            let place = format!("{file}: document {number}");
            match document {
                Ok(None) => number -= 1, // nothing between two separators
                Ok(Some(mut resource)) if is_wanted(&resource) => {
                    resource.place = place;
                    self.resources.push(resource);
                }
                Ok(Some(_)) => {}
                Err(why) => self.gap(format!("{place}: {why}")),
            }
        }
        if number == 0 {
            self.nothing_in(file, "it has no resources in it; is it the output of `talosctl get ... -o yaml`?");
        }
    }

    fn nothing_in(&mut self, file: &str, why: &str) {
        let why = format!("{file}: {why}");
        self.gap(why.clone());
        self.unread.push(why);
    }

    fn gap(&mut self, why: String) {
        if self.gaps.len() < MAX_GAPS {
            self.gaps.push(why);
        }
    }

    /// The facts of this node, told apart from others by its addresses and its name.
    pub(super) fn facts(mut self, targets: &[IpAddr], own: Own<'_>) -> Talos {
        let unread = std::mem::take(&mut self.unread);
        Talos { unread, ..self.of_own(targets, own) }
    }

    fn of_own(&mut self, targets: &[IpAddr], own: Own<'_>) -> Talos {
        let source = self.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
        let nodes: BTreeSet<String> =
            self.resources.iter().filter(|r| !r.node.is_empty()).map(|r| r.node.clone()).collect();
        let possible: Vec<&String> = nodes.iter().filter(|node| !own.is_not(node)).collect();
        let node = match (possible.as_slice(), possible.iter().find(|node| own.is(node))) {
            (_, Some(node)) => Fact::known((*node).clone(), &source),
            ([only], None) => Fact::known((*only).clone(), &source),
            ([], None) if nodes.is_empty() => {
                Fact::unavailable("the resources do not say of which node they are", &source)
            }
            ([], None) if let Some(node) = self.with_addresses_of(own, targets) => Fact::known(node, &source),
            (_, None) => {
                let other_nodes = Vec::from_iter(nodes);
                let several = other_nodes.join(", ");
                let why = format!(
                    "the resources are of {several}, and this node is known by none of these; `talosctl get addresses` among \
                     them tells nodes apart"
                );
                return Talos { other_nodes, ..Talos::unknown(&why, &source) };
            }
        };
        if let Some(node) = node.get() {
            self.resources.retain(|resource| resource.node == *node || resource.node.is_empty());
        }
        let is_target = |resource: &&Resource| {
            // One that cannot be read is told.
            resource.address().is_none_or(|address| targets.contains(&address))
        };
        Talos {
            host_dns: self.one(HOST_DNS, &source, spec::host_dns),
            addresses: self.every(ADDRESS, &source, &is_target, &spec::address),
            address_specs: self.every(ADDRESS_SPEC, &source, &is_target, &spec::address),
            resolvers: self.one(RESOLVER, &source, spec::resolvers),
            upstreams: self.every(UPSTREAM, &source, &|_| true, &spec::upstream),
            caches: self.every(CACHE, &source, &|_| true, &spec::cache),
            node,
            ..Talos::default()
        }
    }

    /// The node whose AddressStatuses have an address of this one: talosctl may know it by one that it does not have itself
    /// (a translation in front of it). What every node has tells none apart.
    fn with_addresses_of(&self, own: Own<'_>, targets: &[IpAddr]) -> Option<String> {
        let held = own.addresses.unwrap_or_default();
        let common = |address: &IpAddr| match address {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
        };
        let is_own = |resource: &&Resource| {
            resource.address().is_some_and(|address| {
                !common(&address) && !targets.contains(&address) && held.iter().any(|held| held.address == address)
            })
        };
        self.of(ADDRESS).into_iter().find(is_own).map(|resource| resource.node.clone()).filter(|node| !node.is_empty())
    }

    fn of(&self, kind: &str) -> Vec<&Resource> {
        self.resources.iter().filter(|resource| resource.metadata.r#type == kind).collect()
    }

    /// A type of which a node has one. One that does not say of which node it is counts only where none does; of several
    /// the last counts, and those that say something else are kept.
    fn one<T: PartialEq>(&self, kind: &str, source: &str, read: impl Fn(&Resource) -> Result<T, String>) -> Fact<T> {
        let mut found = self.of(kind);
        if found.iter().any(|resource| !resource.node.is_empty()) {
            found.retain(|resource| !resource.node.is_empty());
        }
        let Some((last, before)) = found.split_last() else { return self.none(kind, source) };
        match read(last) {
            Ok(value) => {
                let differs = before.iter().filter(|resource| read(resource).as_ref() != Ok(&value));
                let others: Vec<_> = differs.map(|resource| format!("{}: {}", tell(resource), resource.spec)).collect();
                let mut fact = Fact::known(value, last.place.clone());
                others.into_iter().for_each(|other| fact.differs(other));
                fact
            }
            Err(why) => Fact::unavailable(why, tell(last)),
        }
    }

    /// A type of which there may be many; those that cannot be read are told.
    fn every<T: PartialEq>(
        &self,
        kind: &str,
        source: &str,
        wanted: &dyn Fn(&&Resource) -> bool,
        read: &dyn Fn(&Resource) -> Result<T, String>,
    ) -> Fact<Vec<T>> {
        let found = self.of(kind);
        if found.is_empty() {
            return self.none(kind, source);
        }
        let (mut value, mut notes) = (Vec::new(), self.gaps.clone());
        for resource in found.iter().filter(|resource| wanted(resource)) {
            match read(resource) {
                Ok(one) if !value.contains(&one) => value.push(one),
                Ok(_) => {}
                Err(why) if notes.len() < MAX_GAPS => notes.push(format!("{}: {why}", tell(resource))),
                Err(_) => {}
            }
        }
        match value.is_empty() && !notes.is_empty() {
            true => Fact::unavailable(notes.join("; "), source),
            false => Fact::known(value, source).noting(notes),
        }
    }

    fn none<T>(&self, kind: &str, source: &str) -> Fact<T> {
        let mut why = format!("there is no {kind}; add `talosctl get {} -o yaml`", kind.to_lowercase());
        for gap in &self.gaps {
            why = format!("{why}; {gap}");
        }
        Fact::unavailable(why, source)
    }
}

/// Of a type the facts are made of, and not on its way out.
fn is_wanted(resource: &Resource) -> bool {
    let kinds = [HOST_DNS, ADDRESS, ADDRESS_SPEC, RESOLVER, UPSTREAM, CACHE];
    kinds.contains(&resource.metadata.r#type.as_str()) && resource.metadata.phase != "tearingDown"
}

fn tell(resource: &Resource) -> String {
    format!("{} ({} {})", resource.place, resource.metadata.r#type, resource.metadata.id)
}

fn read(file: &Path) -> Result<String, String> {
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(file).map_err(|e| e.to_string())?;
    if !opened.metadata().is_ok_and(|meta| meta.is_file()) {
        return Err("it is not a file".into());
    }
    let mut bytes = Vec::new();
    opened.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("it is longer than {} MiB", MAX_FILE >> 20));
    }
    String::from_utf8(bytes).map_err(|e| format!("it is not text: byte {} is not UTF-8", e.utf8_error().valid_up_to()))
}

type Document = Result<Option<Resource>, String>;

/// JSON objects behind each other. Behind one that does not parse there is nothing to be found any more.
fn json(text: &str) -> Box<dyn Iterator<Item = Document> + '_> {
    let mut ended = false;
    let stream = serde_json::Deserializer::from_str(text).into_iter::<Resource>();
    Box::new(stream.map(|found| found.map(Some).map_err(|e| e.to_string())).take_while(move |found| {
        let go_on = !ended;
        ended = found.is_err();
        go_on
    }))
}

/// YAML documents. talosctl writes `---` between them but not before the first, so that the outputs of two calls in one
/// file meet without it: a second `node:` begins a document too.
fn yaml(text: &str) -> Box<dyn Iterator<Item = Document> + '_> {
    let (mut begins, mut at, mut has_node) = ((0, 0), 0, false);
    let mut bounds = Vec::new();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let separator = line.trim_end() == "---";
        let node = line.starts_with("node:");
        if separator || (node && has_node) {
            bounds.push((begins, at));
            begins = if separator { (at + line.len(), number + 1) } else { (at, number) };
            has_node = node;
        } else {
            has_node |= node;
        }
        at += line.len();
    }
    bounds.push((begins, at));
    Box::new(
        bounds.into_iter().map(|((start, line), end)| {
            document(&text[start..end]).map_err(|why| format!("behind line {line}: {why}"))
        }),
    )
}

fn document(text: &str) -> Document {
    let content = |line: &str| !line.trim_start().is_empty() && !line.trim_start().starts_with('#');
    if !text.lines().any(content) {
        return Ok(None);
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: 20_000,
            max_events: 50_000,
            max_anchors: 0,
            max_aliases: 0,
        },
        with_snippet: false, // what stands there may be a secret
    };
    serde_saphyr::from_str_with_options(text, options).map(Some).map_err(|e| e.to_string())
}

#[cfg(test)]
#[path = "talos_tests.rs"]
mod tests;
