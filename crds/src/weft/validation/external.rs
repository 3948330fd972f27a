//! Validates an ExternalService and parses its meaning.
//!
//! A mistake anywhere costs the whole object: it only gives, and half of it would be a wider or
//! another gift than its author meant.

use std::sync::{Arc, LazyLock};

use ipnet::IpNet;
use policy::egress::{ExternalProtocol, HostPattern};
use serde_json::Value;

use super::objects;
use super::reader::{FieldReader, shown};
use crate::label_syntax::{is_dns_label, is_dns_subdomain};
use crate::near::hint;
use crate::smi::schema;
use crate::smi::validation::{
    Mistake, Mistakes, Severity, Source, SourceKind, Validate, ValidationContext, unknown_fields,
};
use crate::weft::{
    ExternalGatewayRef, ExternalServicePort, ExternalServiceSpec, ExternalSource, ExternalTls,
};

/// What every mistake ends with.
const NO_EFFECT: &str = "the object has no effect";
/// Most entries of each list, as in the schema.
const MOST_HOSTS: usize = 32;
const MOST_ADDRESSES: usize = 64;
const MOST_PORTS: usize = 16;
const MOST_SOURCES: usize = 64;
/// The one kind of callers.
const SERVICE_ACCOUNT: &str = "ServiceAccount";

/// Fields of the kind that hold objects wherever they stand.
const OBJECTS: [&str; 3] = ["tls", "caRef", "gateway"];

static SCHEMA: LazyLock<Value> = LazyLock::new(schema::<ExternalServiceSpec>);

/// The content of an ExternalService. Where a mistake stands against it, it names nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct External {
    /// Hosts.
    pub hosts: Vec<HostPattern>,
    /// Networks.
    pub addresses: Vec<IpNet>,
    /// Each number once.
    pub ports: Vec<ExternalPort>,
    /// The callers that it admits. Without any, all of its namespace: an empty list is a mistake.
    pub sources: Vec<Source>,
    /// The Gateway by which calls leave, by namespace and name; `None`: each caller's own proxy.
    pub gateway: Option<(Arc<str>, Arc<str>)>,
}

/// A port of an ExternalService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalPort {
    /// That callers use.
    pub port: u16,
    /// What callers send.
    pub protocol: ExternalProtocol,
    /// That is dialled.
    pub target_port: u16,
    /// TLS that the proxy begins.
    pub tls: Option<Tls>,
}

/// TLS that the proxy begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Name that the certificate must have; `None`: the host that was called.
    pub server_name: Option<Arc<str>>,
    /// ConfigMap with the authorities; `None`: those of the public web.
    pub ca: Option<Arc<str>>,
}

impl External {
    /// Whether it names nothing, so that it gives nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }
}

impl Validate for ExternalServiceSpec {
    type Validated = External;

    const UNREADABLE: &'static str = NO_EFFECT;

    fn validate(&self, at: &ValidationContext<'_>) -> (External, Vec<Mistake>) {
        let mut mistakes = Mistakes::default();
        let mut reader = FieldReader::new(at.namespace, None, &mut mistakes);
        let external = reader.whole_of(NO_EFFECT, |reader| Some(self.read(at, reader)));
        let mistakes = mistakes.into_vec();
        let refused = |mistake: &Mistake| mistake.severity == Severity::Refuse;
        let external = external.filter(|_| !mistakes.iter().any(refused));
        (external.unwrap_or_default(), mistakes)
    }

    fn unreadable(_: &Value, _: &ValidationContext<'_>) -> External {
        External::default()
    }

    fn misshapen(written: &Value, mistakes: &mut Mistakes) {
        objects("spec", written, &OBJECTS, mistakes);
    }

    fn besides(written: &Value, mistakes: &mut Mistakes) {
        unknown_fields("this kind", "spec", written, &SCHEMA, mistakes);
    }
}

impl ExternalServiceSpec {
    fn read(&self, at: &ValidationContext<'_>, reader: &mut FieldReader<'_>) -> External {
        let hosts = hosts(self.hosts.as_deref().unwrap_or_default(), reader);
        let addresses = addresses(self.addresses.as_deref().unwrap_or_default(), reader);
        let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        if is_empty(&self.hosts) && is_empty(&self.addresses) {
            let text = "holds neither hosts nor addresses, so it names nothing; write one of them";
            reader.wrong("spec", text);
        }
        External {
            ports: self.ports(&addresses, reader),
            hosts,
            addresses,
            sources: sources(self.sources.as_deref(), at, reader),
            gateway: self
                .gateway
                .as_ref()
                .map(|named| gateway(named, at, reader)),
        }
    }

    fn ports(&self, addresses: &[IpNet], reader: &mut FieldReader<'_>) -> Vec<ExternalPort> {
        const FIELD: &str = "spec.ports";
        if self.ports.is_empty() {
            reader.wrong(FIELD, "is empty, so nothing may be called; name a port");
        }
        if !reader.fits(FIELD, &self.ports, MOST_PORTS) {
            return Vec::new();
        }
        let mut read: Vec<ExternalPort> = Vec::with_capacity(self.ports.len());
        for (i, written) in self.ports.iter().enumerate() {
            let field = format!("{FIELD}[{i}]");
            let Some(port) = port(&field, written, reader) else {
                continue;
            };
            if read.iter().any(|other| other.port == port.port) {
                let text = format!("{} is named twice; leave one out", port.port);
                reader.wrong(&format!("{field}.port"), &text);
            }
            let nameless = port
                .tls
                .as_ref()
                .is_some_and(|tls| tls.server_name.is_none());
            if nameless && !addresses.is_empty() {
                let text = "is missing, but a call that is recognised by its address has no name \
                            that the certificate could be checked for; write it, or put the \
                            addresses into an object of their own";
                reader.wrong(&format!("{field}.tls.serverName"), text);
            }
            read.push(port);
        }
        read
    }
}

fn hosts(written: &[String], reader: &mut FieldReader<'_>) -> Vec<HostPattern> {
    const FIELD: &str = "spec.hosts";
    if !reader.fits(FIELD, written, MOST_HOSTS) {
        return Vec::new();
    }
    let written = written.iter().enumerate();
    let read = written.filter_map(|(i, text)| {
        let read = text.parse::<HostPattern>();
        if let Err(bad) = &read {
            let text = format!("is {:?}, but {bad}", shown(text));
            reader.wrong(&format!("{FIELD}[{i}]"), &text);
        }
        read.ok()
    });
    read.collect()
}

fn addresses(written: &[String], reader: &mut FieldReader<'_>) -> Vec<IpNet> {
    const FIELD: &str = "spec.addresses";
    if !reader.fits(FIELD, written, MOST_ADDRESSES) {
        return Vec::new();
    }
    let written = written.iter().enumerate();
    let read = written.filter_map(|(i, text)| {
        let read = network(text);
        if read.is_none() {
            let text = format!(
                "is {:?}, but must be a network such as \"203.0.113.0/24\", or an address",
                shown(text)
            );
            reader.wrong(&format!("{FIELD}[{i}]"), &text);
        }
        read
    });
    read.collect()
}

/// A network, or one address. Not one of IPv4 in the form of IPv6: no call is known by it.
fn network(text: &str) -> Option<IpNet> {
    let net = text
        .parse::<IpNet>()
        .ok()
        .or_else(|| Some(IpNet::from(text.parse::<std::net::IpAddr>().ok()?)))?;
    let is_mapped = match net {
        IpNet::V4(_) => false,
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().is_some(),
    };
    (!is_mapped).then(|| net.trunc())
}

fn port(
    field: &str,
    written: &ExternalServicePort,
    reader: &mut FieldReader<'_>,
) -> Option<ExternalPort> {
    let number = reader.number(&format!("{field}.port"), written.port, &(1..=u16::MAX));
    let target = written
        .target_port
        .map(|target| reader.number(&format!("{field}.targetPort"), target, &(1..=u16::MAX)));
    let known = [
        ExternalProtocol::Http,
        ExternalProtocol::Tls,
        ExternalProtocol::Tcp,
    ];
    let known = known.map(|one| (one.as_str(), one));
    let protocol = reader.one_of(&format!("{field}.protocol"), &written.protocol, &known);
    let tls = written.tls.as_ref().map(|tls| {
        let field = format!("{field}.tls");
        if protocol.is_some_and(|protocol| protocol != ExternalProtocol::Http) {
            let text = "stands beside another protocol than HTTP; leave it out, or write HTTP \
                        where callers send plaintext requests";
            reader.wrong(&field, text);
        }
        self::tls(&field, tls, reader)
    });
    let number = number?;
    Some(ExternalPort {
        port: number,
        protocol: protocol?,
        target_port: target.unwrap_or(Some(number))?,
        tls,
    })
}

fn tls(field: &str, written: &ExternalTls, reader: &mut FieldReader<'_>) -> Tls {
    let server_name = written.server_name.as_deref().map(|name| {
        if !matches!(name.parse::<HostPattern>(), Ok(HostPattern::Exact(_))) {
            let text = format!("is {:?}, but must be the name of one host", shown(name));
            reader.wrong(&format!("{field}.serverName"), &text);
        }
        Arc::from(name)
    });
    let ca = written.ca_ref.as_ref().map(|ca| {
        if !is_dns_subdomain(&ca.name) {
            let text = format!(
                "is {:?}, but must be the name of a ConfigMap",
                shown(&ca.name)
            );
            reader.wrong(&format!("{field}.caRef.name"), &text);
        }
        Arc::from(ca.name.as_str())
    });
    Tls { server_name, ca }
}

/// By namespace and name.
fn gateway(
    written: &ExternalGatewayRef,
    at: &ValidationContext<'_>,
    reader: &mut FieldReader<'_>,
) -> (Arc<str>, Arc<str>) {
    if !is_dns_subdomain(&written.name) {
        let text = format!(
            "is {:?}, but must be the name of a Gateway",
            shown(&written.name)
        );
        reader.wrong("spec.gateway.name", &text);
    }
    let namespace = written.namespace.as_deref();
    if namespace.is_some_and(|namespace| !is_dns_label(namespace)) {
        let text = "must be the name of a namespace";
        reader.wrong("spec.gateway.namespace", text);
    }
    (
        namespace.unwrap_or(at.namespace).into(),
        written.name.as_str().into(),
    )
}

/// Accounts of the object's namespace. Those of others only where the mesh itself stands: else any
/// namespace could open the walls of all.
fn sources(
    written: Option<&[ExternalSource]>,
    at: &ValidationContext<'_>,
    reader: &mut FieldReader<'_>,
) -> Vec<Source> {
    const FIELD: &str = "spec.sources";
    let Some(written) = written else {
        return Vec::new();
    };
    // An edit that takes the last account out means none, never all.
    if written.is_empty() {
        let text = "is empty, so it admits no account; name one, remove the field to admit all of \
                    the namespace, or delete the object";
        reader.wrong(FIELD, text);
    }
    if !reader.fits(FIELD, written, MOST_SOURCES) {
        return Vec::new();
    }
    let written = written.iter().enumerate();
    let read = written.map(|(i, source)| {
        let field = format!("{FIELD}[{i}]");
        if source.kind != SERVICE_ACCOUNT {
            let meant = hint(&source.kind, [SERVICE_ACCOUNT]);
            let kind = shown(&source.kind);
            let text = format!("is {kind:?}, but must be {SERVICE_ACCOUNT}{meant}");
            reader.wrong(&format!("{field}.kind"), &text);
        }
        if !is_dns_subdomain(&source.name) {
            let text = "must be the name of a service account";
            reader.wrong(&format!("{field}.name"), text);
        }
        let namespace = source.namespace.as_deref();
        if namespace.is_some_and(|namespace| !is_dns_label(namespace)) {
            let text = "must be the name of a namespace";
            reader.wrong(&format!("{field}.namespace"), text);
        }
        let is_foreign = namespace.is_some_and(|namespace| namespace != at.namespace);
        if is_foreign && at.namespace != at.mesh_namespace {
            let text = format!(
                "is another namespace than the object's, which only objects of namespace {:?} may \
                 name; write the object there, or in the namespace of the account",
                at.mesh_namespace
            );
            reader.wrong(&format!("{field}.namespace"), &text);
        }
        Source {
            kind: Some(SourceKind::ServiceAccount),
            name: source.name.as_str().into(),
            namespace: namespace.unwrap_or(at.namespace).into(),
        }
    });
    read.collect()
}
