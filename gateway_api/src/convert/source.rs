//! The input of a conversion: a TrafficSplit, and the Services and HTTPRouteGroups that it names.

use crds::smi::{
    HTTPRouteGroup, TrafficSplit,
    validation::{Split, ValidationContext},
};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

/// What a TrafficSplit may name, and what else there is.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// HTTPRouteGroups.
    pub groups: Vec<HTTPRouteGroup>,
    /// Services.
    pub services: Vec<Service>,
    /// All TrafficSplits; the one that is converted may be among them.
    pub splits: Vec<TrafficSplit>,
}

/// A split that has an effect, and what it is about.
pub(super) struct Source<'a> {
    pub(super) split: &'a Split,
    pub(super) namespace: &'a str,
    pub(super) root: &'a Service,
    pub(super) around: &'a Around,
}

/// What cannot be said, without any route: the split has no effect, or nothing of it can be said.
pub(super) struct Nothing;

impl Source<'_> {
    /// The reference to the Service that is split, at one of its ports.
    pub(super) fn root_ref(&self, port: u16) -> Value {
        json!({"name": self.root_name(), "port": port})
    }

    pub(super) fn root_name(&self) -> &str {
        self.root.metadata.name.as_deref().unwrap_or_default()
    }
}

pub(super) fn context<'a>(namespace: &'a str, around: &'a Around) -> ValidationContext<'a> {
    ValidationContext {
        namespace,
        cluster_domain: &around.cluster_domain,
        mesh_namespace: "",
    }
}

pub(super) fn service<'a>(around: &'a Around, namespace: &str, name: &str) -> Option<&'a Service> {
    let mut services = around.services.iter();
    services.find(|service| is_named(&service.metadata, namespace, name))
}

pub(super) fn is_named(metadata: &ObjectMeta, namespace: &str, name: &str) -> bool {
    metadata.namespace.as_deref() == Some(namespace) && metadata.name.as_deref() == Some(name)
}

pub(super) fn is_external(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName")
}

pub(super) fn is_tcp(port: &ServicePort) -> bool {
    port.protocol
        .as_deref()
        .is_none_or(|protocol| protocol == "TCP")
}
