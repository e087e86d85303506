//! What is in each type of resource, field by field (siderolabs/talos pkg/machinery/resources/network).

use serde_json::Value;

use super::{ADDRESS_SPEC, Resource};
use crate::facts::{TalosAddress, TalosCache, TalosHostDns, TalosUpstream};

pub(super) fn host_dns(resource: &Resource) -> Result<TalosHostDns, String> {
    let spec = &resource.spec;
    let service = ["serviceHostDNSAddress", "serviceHostDNSAddressV6"].map(|field| optional(spec, field));
    Ok(TalosHostDns {
        enabled: flag(spec, "enabled")?,
        listen_addresses: texts(spec, "listenAddresses")?,
        service_addresses: service.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect(),
    })
}

pub(super) fn address(resource: &Resource) -> Result<TalosAddress, String> {
    let spec = &resource.spec;
    Ok(TalosAddress {
        link: text(spec, "linkName")?,
        address: text(spec, "address")?,
        scope: text(spec, "scope")?,
        layer: optional(spec, "layer")?,
        merged: resource.metadata.r#type == ADDRESS_SPEC && resource.metadata.namespace == "network",
    })
}

/// Whom the node asks. From 1.14 on each has a protocol (`nameServers`: addr, protocol, tlsServerName); plain DNS (Do53)
/// goes without saying.
pub(super) fn resolvers(resource: &Resource) -> Result<Vec<String>, String> {
    let spec = &resource.spec;
    let servers = match spec.get("nameServers") {
        None | Some(Value::Null) => return texts(spec, "dnsServers"),
        Some(Value::Array(servers)) if servers.is_empty() => return texts(spec, "dnsServers"),
        Some(Value::Array(servers)) => servers,
        Some(_) => return Err("spec.nameServers is not a list".into()),
    };
    let server = |server: &Value| -> Result<String, String> {
        let told = |why: String| why.replace("spec.", "spec.nameServers.");
        let address = text(server, "addr").map_err(told)?;
        let protocol = optional(server, "protocol").map_err(told)?.filter(|protocol| protocol != "Do53");
        let name = optional(server, "tlsServerName").map_err(told)?.map(|name| format!(" ({name})"));
        Ok(match protocol {
            Some(protocol) => format!("{protocol} {address}{}", name.unwrap_or_default()),
            None => address,
        })
    };
    servers.iter().map(server).collect()
}

pub(super) fn upstream(resource: &Resource) -> Result<TalosUpstream, String> {
    Ok(TalosUpstream { address: text(&resource.spec, "addr")?, healthy: flag(&resource.spec, "healthy")? })
}

pub(super) fn cache(resource: &Resource) -> Result<TalosCache, String> {
    Ok(TalosCache { id: resource.metadata.id.clone(), status: text(&resource.spec, "status")? })
}

fn text(spec: &Value, field: &str) -> Result<String, String> {
    optional(spec, field)?.ok_or_else(|| format!("spec.{field} is missing or empty"))
}

/// None where it is missing or empty.
fn optional(spec: &Value, field: &str) -> Result<Option<String>, String> {
    match spec.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => Err(format!("spec.{field} is not text")),
    }
}

/// A list of texts; an empty one may be written as null.
fn texts(spec: &Value, field: &str) -> Result<Vec<String>, String> {
    let item =
        |item: &Value| item.as_str().map(str::to_owned).ok_or_else(|| format!("spec.{field} has more than text"));
    match spec.get(field) {
        Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(item).collect(),
        Some(_) => Err(format!("spec.{field} is not a list")),
        None => Err(format!("spec.{field} is missing")),
    }
}

/// Talos writes some as text.
fn flag(spec: &Value, field: &str) -> Result<bool, String> {
    match spec.get(field) {
        Some(Value::Bool(on)) => Ok(*on),
        Some(Value::String(text)) if text == "true" => Ok(true),
        Some(Value::String(text)) if text == "false" => Ok(false),
        Some(_) => Err(format!("spec.{field} is neither true nor false")),
        None => Err(format!("spec.{field} is missing")),
    }
}
