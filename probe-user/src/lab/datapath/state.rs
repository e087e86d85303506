//! The headers that the agent leaves in its state directory; the few defines that say which datapath was compiled.

use std::{fmt::Write as _, fs, path::PathBuf};

use super::{Error, settings};
use crate::{
    facts::{HostRouting, Masquerade},
    lab::spec::DatapathConfig,
};

/// Writes `<endpoint id>/ep_config.h` and `globals/node_config.h`.
pub(super) fn write(config: &DatapathConfig) -> Result<(), Error> {
    for endpoint in &config.endpoints {
        save(
            config.state_dir.join(endpoint.id.to_string()).join("ep_config.h"),
            &endpoint_header(config, endpoint.id),
        )?;
    }
    save(config.state_dir.join("globals/node_config.h"), &node_header(config))
}

fn save(path: PathBuf, text: &str) -> Result<(), Error> {
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&path, text))
        .map_err(|source| Error::Write { path, source })
}

fn header(defines: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in defines {
        // Writing to a string does not fail.
        let _ok = writeln!(text, "#define {name} {value}");
    }
    text
}

fn endpoint_header(config: &DatapathConfig, id: u16) -> String {
    let mut defines = vec![("LXC_ID", id.to_string())];
    if settings::shortcut(config).is_some() {
        defines.push(("ENABLE_SKIP_FIB", "1".into()));
    }
    header(&defines)
}

fn node_header(config: &DatapathConfig) -> String {
    let mut defines = vec![("ENABLE_IPV4", "1".to_owned())];
    if config.node_ipv6.is_some() {
        defines.push(("ENABLE_IPV6", "1".into()));
    }
    if settings::effective_host_routing(&config.cilium) == HostRouting::Bpf {
        defines.push(("ENABLE_HOST_ROUTING", "1".into()));
    }
    if config.cilium.masquerade == Masquerade::Bpf {
        defines.push(("ENABLE_MASQUERADE_IPV4", "1".into()));
    }
    if config.cilium.ip_masq_agent {
        defines.push(("ENABLE_IP_MASQ_AGENT_IPV4", "1".into()));
    }
    header(&defines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{datapath::settings::tests::config, spec::CiliumSpec};

    #[test]
    fn the_headers_say_which_datapath_was_compiled() {
        let one = config(CiliumSpec::default(), 1);
        assert_eq!(endpoint_header(&one, 7), "#define LXC_ID 7\n#define ENABLE_SKIP_FIB 1\n");
        assert!(node_header(&one).contains("#define ENABLE_HOST_ROUTING 1\n"));
        let two = config(CiliumSpec::default(), 2);
        assert_eq!(endpoint_header(&two, 7), "#define LXC_ID 7\n");
        let legacy = config(CiliumSpec { host_routing: HostRouting::Legacy, ..CiliumSpec::default() }, 1);
        assert!(!node_header(&legacy).contains("ENABLE_HOST_ROUTING"));
        assert!(!endpoint_header(&legacy, 7).contains("ENABLE_SKIP_FIB"));
    }
}
