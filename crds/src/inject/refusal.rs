//! The reasons why a pod that requests a proxy cannot have one.

use policy::well_known::{ADMIN_PORT, INBOUND_PORT, MESH_PORT, OUTBOUND_PORT, PROXY_UID};

use crate::labels::BadValue;

/// A clear no: the field, the reason, the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The object has no `spec`, or not the shape of a pod.
    #[error("this is not a pod: spec is missing or malformed")]
    NotAPod,
    /// A label or annotation cannot be understood.
    #[error("{field} {reason}; correct or remove it")]
    BadValue {
        /// Where it stands.
        field: String,
        /// What is wrong with it.
        reason: BadValue,
    },
    /// A container would run as the proxy's user or group, whose traffic is not redirected.
    #[error(
        "{field} is {PROXY_UID}, the id of the proxy, so the traffic of container {container:?} \
         would bypass the mesh; choose another id"
    )]
    ProxyId {
        /// Where it stands.
        field: String,
        /// The container that it applies to.
        container: String,
    },
    /// Every process of the pod would be a member of the proxy's group.
    #[error(
        "{field} is {PROXY_UID}, the group of the proxy, whose traffic is not redirected: any \
         container could take it on and bypass the mesh; choose another group"
    )]
    ProxyGroup {
        /// Where it stands.
        field: String,
    },
    /// The pod can only run on nodes that the proxy is not built for.
    #[error(
        "{field} lets the pod run on nodes of {found} only, and the proxy is built for {built}; \
         let it run there, or label the pod weft.dev/inject=disabled"
    )]
    Architecture {
        /// Where it stands.
        field: String,
        /// What it requests.
        found: String,
        /// What the proxy is built for.
        built: String,
    },
    /// The proxy would never find its controller, and the pod never start.
    #[error(
        "spec.dnsPolicy is Default, so the pod asks the node's name servers, which do not know \
         the Service of the proxy's controller; remove it or write ClusterFirst, which \
         spec.dnsConfig can add to, or label the pod weft.dev/inject=disabled"
    )]
    NodeDns,
    /// A container uses a port of the proxy.
    #[error(
        "{field} is {port}, a port of the proxy ({OUTBOUND_PORT}, {INBOUND_PORT}, {MESH_PORT}, \
         {ADMIN_PORT}); choose another port, or label the pod weft.dev/inject=disabled"
    )]
    ProxyPort {
        /// Where it stands.
        field: String,
        /// The port.
        port: i64,
    },
    /// A container or volume has a name that the proxy needs.
    #[error("{field} {name:?} is a name that the proxy needs; choose another name")]
    NameTaken {
        /// Where it stands.
        field: String,
        /// The name.
        name: &'static str,
    },
    /// A probe or hook names a port that its container does not declare.
    #[error(
        "{field} {name:?} is not the name of a port of container {container:?}; name one, or use a number"
    )]
    UnknownPort {
        /// Where it stands.
        field: String,
        /// The name.
        name: String,
        /// Whose ports were searched.
        container: String,
    },
    /// A probe or hook has no usable port.
    #[error("{field} must be a port number from 1 to 65535 or the name of a port")]
    BadPort {
        /// Where it stands.
        field: String,
    },
    /// The label of the account is not the one of the pod's account.
    #[error(
        "metadata.labels[weft.dev/account] is {found:?}, but {right:?} belongs to service account \
         {account:?}; remove the label, it is written when the pod is made"
    )]
    FalseAccount {
        /// The value found.
        found: String,
        /// The pod's service account.
        account: String,
        /// The value expected.
        right: String,
    },
    /// What an earlier run left in the pod cannot be read.
    #[error(
        "{field} was changed since the proxy was added and cannot be read; remove the container weft-proxy and let it be added anew"
    )]
    Damaged {
        /// Where it stands.
        field: String,
    },
}

impl Refusal {
    /// The reason in one word, from a closed list.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NotAPod => "not-a-pod",
            Self::BadValue { .. } => "bad-value",
            Self::ProxyId { .. } | Self::ProxyGroup { .. } => "proxy-id",
            Self::Architecture { .. } => "architecture",
            Self::NodeDns => "dns-policy",
            Self::ProxyPort { .. } => "proxy-port",
            Self::NameTaken { .. } => "name-taken",
            Self::UnknownPort { .. } => "unknown-port",
            Self::BadPort { .. } => "bad-port",
            Self::FalseAccount { .. } => "false-account",
            Self::Damaged { .. } => "damaged",
        }
    }
}
