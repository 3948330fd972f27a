//! One Gateway by itself: what its author means, with every listener parsed.
//!
//! A listener that cannot be served as it is written is [`broken`](Listener::broken), and the
//! others hold. What would restrict a listener is never left out: options and client certificates
//! that Weft does not carry out break the listeners that they are for.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::egress::HostPattern;
use policy::gateway::ListenerProtocol;
use serde_json::Value;

use crate::kinds::{GROUP, Gateway, GatewayClass};
use crate::reader::{Broken, Field, Object};
use crate::route::RouteKind;

/// Label of everything that is made for a Gateway, with its name.
pub const NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";

/// Name of the ServiceAccount, the Deployment and the Service that are made for a Gateway.
#[must_use]
pub fn resource_name(gateway: &str) -> String {
    format!("{gateway}-weft")
}

/// A Gateway, validated by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewaySpec {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Name of its GatewayClass.
    pub class: Arc<str>,
    /// In the order of the object.
    pub listeners: Vec<Listener>,
    /// What is written for the objects that are made for it.
    pub infrastructure: Infrastructure,
    /// An address that it wants to have. None can be chosen.
    pub address: Option<Broken>,
    /// Why it cannot be served as a whole.
    pub broken: Option<Broken>,
}

/// A GatewayClass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassSpec {
    /// Which controller serves its Gateways.
    pub controller: Arc<str>,
    /// It names parameters, which no class of Weft has.
    pub has_parameters: bool,
}

/// What a Gateway says of the objects that are made for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Infrastructure {
    /// Labels of all of them.
    pub labels: BTreeMap<String, String>,
    /// Annotations of all of them.
    pub annotations: BTreeMap<String, String>,
    /// An object of the Gateway's namespace with further parameters.
    pub parameters: Option<ParametersRef>,
}

/// A reference to an object of the Gateway's own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParametersRef {
    /// API group; empty for Kubernetes' own.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// One listener, validated by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listener {
    /// Unique in its Gateway.
    pub name: Arc<str>,
    /// That clients call; 0 for what is no port.
    pub port: u16,
    /// As it is written.
    pub protocol: Arc<str>,
    /// Which of the protocols that are served it is; `None`: another one.
    pub served: Option<ListenerProtocol>,
    /// The hosts that it is for; `None`: every host.
    pub hostname: Option<HostPattern>,
    /// Certificates, where TLS ends at it.
    pub certificates: Vec<CertificateRef>,
    /// Which routes may attach.
    pub allowed: AllowedRoutes,
    /// Why it cannot be served.
    pub broken: Option<Broken>,
}

/// A reference to a certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateRef {
    /// Where it is written, such as `spec.listeners[0].tls.certificateRefs[0]`.
    pub path: String,
    /// API group; empty for Kubernetes' own.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Namespace; the Gateway's own where none is written.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// Which routes may attach to a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedRoutes {
    /// By their namespaces.
    pub from: FromNamespaces,
    /// By their kinds, as they are written; empty: all kinds that the protocol can have.
    pub kinds: Vec<RouteGroupKind>,
}

/// Namespaces whose routes may attach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FromNamespaces {
    /// The Gateway's own.
    #[default]
    Same,
    /// Every one.
    All,
    /// Those with these labels.
    Selector(LabelSelector),
    /// None.
    None,
}

/// Labels that a namespace must have. One that cannot be understood selects nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// All of these.
    pub requirements: Vec<Requirement>,
}

/// One condition of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Key of the label.
    pub key: String,
    /// What is compared.
    pub operator: SelectorOperator,
    /// With which values.
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorOperator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// A kind of route that a listener allows, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteGroupKind {
    /// API group.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
}
