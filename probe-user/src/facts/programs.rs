//! The programs on the node's devices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A program that sees packets of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttachedProgram {
    pub interface: String,
    pub hook: AttachPoint,
    /// With tcx and netkit what the kernel keeps of it, 15 characters (`BPF_OBJ_NAME_LEN`): `cil_from_contai`. With clsact what it
    /// was attached as (`TCA_BPF_NAME`).
    pub name: String,
    /// The kernel's id of the program.
    pub id: Option<u32>,
    /// Of a clsact filter; the lower runs first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// Of a clsact filter, within its priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<u32>,
}

/// Where on a device, in the order in which a packet comes by. On ingress and egress alike tcx runs before clsact
/// (net/core/dev.c, `sch_handle_ingress`). Inside of a netkit pair programs run while one end transmits to the other
/// (drivers/net/netkit.c, `netkit_xmit`); both ends' are attached to the primary device, which is the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum AttachPoint {
    /// As the other end, the pod's, transmits.
    #[serde(rename = "netkit peer")]
    NetkitPeer,
    #[serde(rename = "tcx ingress")]
    TcxIngress,
    #[serde(rename = "clsact ingress")]
    ClsactIngress,
    #[serde(rename = "tcx egress")]
    TcxEgress,
    #[serde(rename = "clsact egress")]
    ClsactEgress,
    /// As the device itself transmits, towards the pod.
    #[serde(rename = "netkit primary")]
    NetkitPrimary,
}

impl AttachPoint {
    /// As the report writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NetkitPeer => "netkit peer",
            Self::TcxIngress => "tcx ingress",
            Self::ClsactIngress => "clsact ingress",
            Self::TcxEgress => "tcx egress",
            Self::ClsactEgress => "clsact egress",
            Self::NetkitPrimary => "netkit primary",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_one_spelling() {
        use AttachPoint::{ClsactEgress, ClsactIngress, NetkitPeer, NetkitPrimary, TcxEgress, TcxIngress};
        for hook in [NetkitPeer, TcxIngress, ClsactIngress, TcxEgress, ClsactEgress, NetkitPrimary] {
            assert_eq!(serde_json::to_value(hook).unwrap(), hook.as_str());
        }
    }
}
