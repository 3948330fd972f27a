//! Parses one listener of a Gateway: its port, protocol, hostname and certificates, and which
//! routes may attach.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::egress::HostPattern;
use policy::gateway::ListenerProtocol;

use crate::kinds::GROUP;
use crate::reader::{Broken, Field, Object};
use crate::route::RouteKind;

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

/// What TLS does at a listener.
const TLS_MODES: [(&str, bool); 2] = [("Terminate", true), ("Passthrough", false)];

/// The protocols that are served.
const PROTOCOLS: [ListenerProtocol; 4] = [
    ListenerProtocol::Http,
    ListenerProtocol::Https,
    ListenerProtocol::Tls,
    ListenerProtocol::Tcp,
];

impl Listener {
    pub(super) fn read(field: &Field<'_>, namespace: &str) -> Self {
        let mut listener = Self::default();
        let filled = field
            .object()
            .and_then(|written| listener.fill(&written, namespace));
        listener.broken = filled.err();
        listener
    }

    /// First what sets it apart from others: it keeps its hosts also where it is broken otherwise. One
    /// without all of that is of no protocol that is served.
    fn fill(&mut self, written: &Object<'_>, namespace: &str) -> Result<(), Broken> {
        self.name = written.need("name")?.word()?.into();
        self.protocol = written.need("protocol")?.word()?.into();
        self.port = written.need("port")?.number(&(1..=u16::MAX))?;
        if let Some(hostname) = written.field("hostname")
            && !hostname.text()?.is_empty()
        {
            let parsed = hostname.text()?.parse::<HostPattern>();
            self.hostname = Some(parsed.map_err(|bad| hostname.broken(bad.to_string()))?);
        }
        let mut known = PROTOCOLS.into_iter();
        self.served = known.find(|known| known.as_str() == &*self.protocol);
        if let Some(allowed) = written.read("allowedRoutes", Field::object)? {
            self.allowed = AllowedRoutes::read(&allowed)?;
        }
        self.tls(written, namespace)?;
        written.only(&[
            "name",
            "hostname",
            "port",
            "protocol",
            "tls",
            "allowedRoutes",
        ])
    }

    fn tls(&mut self, written: &Object<'_>, namespace: &str) -> Result<(), Broken> {
        let Some(tls) = written.read("tls", Field::object)? else {
            return match self.served {
                Some(ListenerProtocol::Https) => Err(written.broken(
                    "has protocol HTTPS and no tls; name its certificate in tls.certificateRefs",
                )),
                Some(ListenerProtocol::Tls) => {
                    Err(written.broken("has protocol TLS and no tls; write tls.mode Passthrough"))
                }
                _ => Ok(()),
            };
        };
        let mode = tls.read("mode", |mode| mode.one_of(&TLS_MODES))?;
        let ends_here = mode.unwrap_or(true);
        match self.served {
            Some(ListenerProtocol::Https) if !ends_here => {
                return Err(tls
                    .need("mode")?
                    .broken("must be Terminate for protocol HTTPS"));
            }
            Some(ListenerProtocol::Tls) if ends_here => {
                let text = "of a listener of protocol TLS must be Passthrough: Weft ends TLS at \
                            listeners of protocol HTTPS only";
                return Err(match tls.field("mode") {
                    Some(mode) => mode.broken(text),
                    None => tls.broken(text),
                });
            }
            Some(ListenerProtocol::Http | ListenerProtocol::Tcp) => {
                return Err(tls.broken("has no meaning for this protocol; leave it out"));
            }
            _ => {}
        }
        // Where TLS goes on, the API gives them no meaning: what is not needed is not read.
        if self.served == Some(ListenerProtocol::Https) {
            for field in tls.list("certificateRefs")? {
                self.certificates
                    .push(CertificateRef::read(&field, namespace)?);
            }
        }
        let options = tls.read("options", Field::object)?;
        if options.is_some_and(|options| options.fields().next().is_some()) {
            let text = "holds options that Weft does not know; leave them out";
            return Err(tls.need("options")?.broken(text));
        }
        if self.served == Some(ListenerProtocol::Https) && self.certificates.is_empty() {
            return Err(tls.broken("has no certificate; name one in certificateRefs"));
        }
        tls.only(&["mode", "certificateRefs", "options"])
    }
}

impl CertificateRef {
    fn read(field: &Field<'_>, namespace: &str) -> Result<Self, Broken> {
        let written = field.object()?;
        let namespace = written.filled("namespace")?.unwrap_or(namespace);
        Ok(Self {
            path: field.path.clone(),
            group: written.filled("group")?.unwrap_or_default().into(),
            kind: written.filled("kind")?.unwrap_or("Secret").into(),
            namespace: namespace.into(),
            name: written.need("name")?.word()?.into(),
        })
    }

    /// Whether it is of a kind that can hold a certificate.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.group.is_empty() && &*self.kind == "Secret"
    }
}

impl AllowedRoutes {
    fn read(written: &Object<'_>) -> Result<Self, Broken> {
        let mut allowed = Self::default();
        for field in written.list("kinds")? {
            let one = field.object()?;
            allowed.kinds.push(RouteGroupKind {
                group: one.filled("group")?.unwrap_or(GROUP).into(),
                kind: one.need("kind")?.word()?.into(),
            });
        }
        let Some(namespaces) = written.read("namespaces", Field::object)? else {
            return Ok(allowed);
        };
        allowed.from = match namespaces.filled("from")? {
            None | Some("Same") => FromNamespaces::Same,
            Some("All") => FromNamespaces::All,
            Some("None") => FromNamespaces::None,
            Some("Selector") => {
                let selector = namespaces.need("selector")?.object()?;
                FromNamespaces::Selector(LabelSelector::read(&selector)?)
            }
            Some(_) => {
                let from = namespaces.need("from")?;
                return Err(from.broken("must be Same, All, Selector or None"));
            }
        };
        Ok(allowed)
    }
}

impl LabelSelector {
    /// Reads a selector of Kubernetes. One without any condition selects everything.
    fn read(written: &Object<'_>) -> Result<Self, Broken> {
        const OPERATORS: [(&str, SelectorOperator); 4] = [
            ("In", SelectorOperator::In),
            ("NotIn", SelectorOperator::NotIn),
            ("Exists", SelectorOperator::Exists),
            ("DoesNotExist", SelectorOperator::DoesNotExist),
        ];
        written.only(&["matchLabels", "matchExpressions"])?;
        let labels = written.texts("matchLabels")?;
        let equal = labels.into_iter().map(|(key, value)| Requirement {
            key,
            operator: SelectorOperator::In,
            values: vec![value],
        });
        let mut requirements: Vec<Requirement> = equal.collect();
        for field in written.list("matchExpressions")? {
            let one = field.object()?;
            let values = one.list("values")?;
            let values = values.iter().map(|value| value.text().map(str::to_owned));
            requirements.push(Requirement {
                key: one.need("key")?.word()?.to_owned(),
                operator: one.need("operator")?.one_of(&OPERATORS)?,
                values: values.collect::<Result<_, _>>()?,
            });
        }
        Ok(Self { requirements })
    }

    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<Arc<str>, Arc<str>>) -> bool {
        self.requirements.iter().all(|one| {
            let value = labels.get(&*one.key);
            let is_listed = || {
                let mut values = one.values.iter();
                value.is_some_and(|value| values.any(|listed| **listed == **value))
            };
            match one.operator {
                SelectorOperator::In => is_listed(),
                SelectorOperator::NotIn => !is_listed(),
                SelectorOperator::Exists => value.is_some(),
                SelectorOperator::DoesNotExist => value.is_none(),
            }
        })
    }
}

impl RouteGroupKind {
    /// The kind of route that is meant, if Weft reads it.
    #[must_use]
    pub fn route(&self) -> Option<RouteKind> {
        let mut known = RouteKind::ALL.into_iter();
        known.find(|known| &*self.group == GROUP && known.word() == &*self.kind)
    }
}
