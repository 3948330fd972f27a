//! Parses one Gateway by itself, with every listener of it.
//!
//! A listener that cannot be served as it is written is [`broken`](Listener::broken), and the
//! others hold. What would restrict a listener is never left out: options and client certificates
//! that Weft does not carry out break the listeners that they are for.

mod listener;

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::gateway::{ListenerProtocol, MAX_LISTENERS};
use serde_json::Value;

pub use self::listener::{
    AllowedRoutes, CertificateRef, FromNamespaces, LabelSelector, Listener, Requirement,
    RouteGroupKind, SelectorOperator,
};
use crate::kinds::{Gateway, GatewayClass};
use crate::reader::{Broken, Field, Object};

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

impl GatewaySpec {
    /// Reads an object.
    #[must_use]
    pub fn read(object: &Gateway) -> Self {
        let mut gateway = Self {
            namespace: object
                .metadata
                .namespace
                .as_deref()
                .unwrap_or_default()
                .into(),
            name: object.metadata.name.as_deref().unwrap_or_default().into(),
            ..Self::default()
        };
        let spec = Field::new("spec", &object.spec);
        let filled = spec.object().and_then(|spec| gateway.fill(&spec));
        gateway.broken = filled.err();
        gateway
    }

    fn fill(&mut self, spec: &Object<'_>) -> Result<(), Broken> {
        self.class = spec.need("gatewayClassName")?.word()?.into();
        let clients = spec.read("tls", Field::object)?;
        let clients = clients.and_then(|tls| tls.field("frontend"));
        let listeners = spec.list("listeners")?;
        let count = listeners.len();
        for field in listeners.iter().take(MAX_LISTENERS) {
            let mut listener = Listener::read(field, &self.namespace);
            if let Some(clients) = &clients
                && listener.served == Some(ListenerProtocol::Https)
            {
                let text = "demands certificates of clients, which Weft does not carry out; leave \
                            it out";
                listener.broken = listener.broken.or_else(|| Some(clients.broken(text)));
            }
            self.listeners.push(listener);
        }
        let addresses = spec.list("addresses")?;
        self.address = addresses.iter().find_map(wanted_address);
        if let Some(written) = spec.read("infrastructure", Field::object)? {
            self.infrastructure = Infrastructure::read(&written)?;
        }
        if count > MAX_LISTENERS {
            let text = format!("has {count} entries, but at most {MAX_LISTENERS} are served");
            return Err(spec.need("listeners")?.broken(text));
        }
        Ok(())
    }
}

/// What is wrong with an address that has a value: without one any address of the type is meant.
fn wanted_address(field: &Field<'_>) -> Option<Broken> {
    let text = "is chosen by the cluster's load balancer; leave the value out";
    let written = match field.object() {
        Ok(written) => written,
        Err(broken) => return Some(broken),
    };
    let value = written.field("value");
    let value = value.filter(|value| value.text() != Ok(""));
    if let Some(value) = value {
        return Some(value.broken(text));
    }
    let kind = written.field("type")?;
    let is_known = matches!(kind.text(), Ok("IPAddress" | "Hostname"));
    (!is_known).then(|| kind.broken("is no type of address that Weft knows; leave it out"))
}

impl ClassSpec {
    /// Reads an object.
    #[must_use]
    pub fn read(object: &GatewayClass) -> Self {
        let text = object.spec.get("controllerName").and_then(Value::as_str);
        let parameters = object.spec.get("parametersRef");
        Self {
            controller: text.unwrap_or_default().into(),
            has_parameters: parameters.is_some_and(|written| !written.is_null()),
        }
    }
}

impl Infrastructure {
    fn read(written: &Object<'_>) -> Result<Self, Broken> {
        let parameters = written.read("parametersRef", |field| {
            let one = field.object()?;
            Ok(ParametersRef {
                group: one.need("group")?.text()?.into(),
                kind: one.need("kind")?.word()?.into(),
                name: one.need("name")?.word()?.into(),
            })
        })?;
        Ok(Self {
            labels: written.texts("labels")?,
            annotations: written.texts("annotations")?,
            parameters,
        })
    }
}

#[cfg(test)]
mod tests;
