//! Explains calls that leave the mesh as the caller's proxy decides them: which ExternalService
//! gives a call, or that none does.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crds::weft;
use http::header::HOST;
use policy::egress::{
    Admitted, By, Decision, Egress, ExternalCall, ExternalProtocol, Unnamed, host_name,
};
use policy::origin::Origin;
use policy::reason::Reason;
use serde_json::{Value, json};

use super::call::{Called, Caller, Request};
use super::outside::{Outside, PORT};
use crate::model::{Index, modes};
use crate::world::{Annotations, ObjectKey};

/// Label of what is called outside the cluster.
pub(super) const OUTSIDE: &str = "outside the cluster";

/// The way of calls that leave, or why they do not.
#[derive(Debug)]
pub(super) struct Leaving {
    /// What they go to, as users read it.
    pub(super) label: String,
    /// The object that gives them.
    pub(super) object: Option<Origin>,
    pub(super) refused: Option<Reason>,
    pub(super) note: Option<String>,
}

/// The way of a caller's calls to something outside.
pub(super) fn route(index: &Index, caller: &Caller, to: &Outside, request: &Request) -> Leaving {
    let relayed = |note: Option<String>| Leaving {
        label: OUTSIDE.to_owned(),
        object: None,
        refused: None,
        note,
    };
    let Some(egress) = egress(index, caller) else {
        return relayed(None);
    };
    let name = host_name(&to.name);
    let written = request.headers.get(HOST);
    let written = written.and_then(|host| host_name(host.to_str().ok()?));
    let resolved = name
        .as_deref()
        .and_then(|name| index.addresses_of_host(name).first().copied());
    let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let call = ExternalCall {
        addr: to.address().or(resolved).unwrap_or(unknown),
        port: to.port(),
        host: written
            .as_deref()
            .or(name.as_deref())
            .filter(|_| !request.tcp),
        sni: name.as_deref(),
    };
    let port = match to.port {
        Some(_) => String::new(),
        None => format!("; port {PORT}, since none was named"),
    };
    match egress.decide(&call) {
        Decision::Object(admitted) => given(index, to, &admitted, &port),
        Decision::NoObject(Unnamed::Allowed) => relayed(None),
        Decision::NoObject(Unnamed::Audit) => relayed(Some(format!(
            "no ExternalService gives it, which weft.dev/egress=audit counts{port}"
        ))),
        Decision::Denied => Leaving {
            refused: Some(Reason::EgressDenied),
            ..relayed(Some(format!(
                "no ExternalService gives it to this account, and weft.dev/egress is deny{port}"
            )))
        },
    }
}

/// Whether objects or a mode decide about the calls of these.
pub(super) fn decides(index: &Index, callers: &[Caller], to: &Called) -> bool {
    let mut callers = callers.iter();
    matches!(to, Called::External(_)) && callers.any(|caller| egress(index, caller).is_some())
}

/// What the pods of a caller may call; `None` where all of it passes. Of an account without pods,
/// what its first one may call that has no annotation of its own.
fn egress(index: &Index, caller: &Caller) -> Option<Egress> {
    let identity = caller.identity.as_ref()?;
    if let Some(pod) = &caller.example {
        let facts = index.world.pods.get(pod)?;
        return index.egress(pod, facts).map(|(egress, _)| egress);
    }
    let (namespace, account) = (identity.namespace()?, identity.service_account()?);
    let entries = index.externals.of(namespace, account);
    let egress = Egress {
        mode: modes::egress(
            &index.defaults,
            index.world.namespace(namespace),
            &Annotations::default(),
        ),
        objects: entries
            .map(|entry| index.with_resolved(&entry.object))
            .collect(),
    };
    (!egress.is_idle()).then_some(egress)
}

/// What becomes of calls that leave by a Gateway, `namespace/name`: why they do not, and the end of a
/// note.
fn by_gateway(index: &Index, gateway: Option<&str>) -> (Option<Reason>, String) {
    let Some((namespace, name)) = gateway.and_then(|gateway| gateway.split_once('/')) else {
        return (None, String::new());
    };
    let gateway = ObjectKey::new(namespace, name);
    match index.handing_over(&gateway).len() {
        0 => {
            let note = format!("; it leaves by Gateway {gateway} alone, of which no pod is ready");
            (Some(Reason::NoEndpoint), note)
        }
        pods => {
            let note = format!("; it leaves by Gateway {gateway}, which has {pods} ready pods");
            (None, note)
        }
    }
}

/// The way of a call that an object gives.
fn given(index: &Index, to: &Outside, admitted: &Admitted<'_>, port: &str) -> Leaving {
    let (unready, way) = by_gateway(index, admitted.object.gateway.as_deref());
    let target_port = admitted.port.target_port;
    let is_inside = |ip| index.is_inside(ip, target_port);
    let (by, refused) = match admitted.by {
        By::Address if admitted.object.gateway.is_some() && to.address().is_some_and(is_inside) => {
            let by =
                "by its address, which is inside the cluster: a Gateway lets no call out there";
            (by.to_owned(), Some(Reason::EgressDenied))
        }
        By::Address => ("by its address".to_owned(), None),
        By::Host(host) => match index.outside(host, target_port) {
            None => (format!("by host {host}, which is not resolved yet"), None),
            Some(found) if found.is_empty() => {
                let by =
                    format!("by host {host}, and none of its addresses is outside the cluster");
                (by, Some(Reason::EgressDenied))
            }
            Some(found) => {
                let addresses = found.len();
                (
                    format!("by host {host}, to one of {addresses} addresses"),
                    None,
                )
            }
        },
    };
    let tls = match (&admitted.port.tls, &admitted.object.gateway) {
        (Some(_), Some(_)) => "; the Gateway begins TLS",
        (Some(_), None) => "; the caller's proxy begins TLS",
        (None, _) => "",
    };
    Leaving {
        label: to.name.clone(),
        object: Some(admitted.object.origin.clone()),
        refused: unready.or(refused),
        note: Some(format!("{by}{tls}{way}{port}")),
    }
}

/// The way of calls to a port of a Service that stands for an object.
pub(super) fn of_service(
    index: &Index,
    caller: &Caller,
    (service, port): (&ObjectKey, u16),
) -> Option<Leaving> {
    let identity = caller.identity.as_ref()?;
    let account = identity.service_account()?;
    // The namespace counts, and no pod is called so.
    let pod = ObjectKey::new(identity.namespace()?, "");
    let route = index.external_route((service, port), &pod, account)?;
    let (object, host) = (&route.target.object, &route.target.host);
    let changed = match (&route.port.tls, route.gateway, route.port.protocol) {
        (Some(_), Some(_), _) => ", which requests name, in TLS that the Gateway begins",
        (Some(_), None, _) => ", which requests name, in TLS that the caller's proxy begins",
        (None, _, ExternalProtocol::Http) => ", which requests name",
        (None, ..) => "",
    };
    let (refused, note) = if route.target.denied {
        let note = format!("{object} stands for it, and admits no call of this account");
        (Some(Reason::EgressDenied), note)
    } else if route.gateway.is_some() {
        let (refused, way) = by_gateway(index, route.target.gateway.as_deref());
        (
            refused,
            format!("{object} stands for it, as host {host}{changed}{way}"),
        )
    } else if route.addresses.is_empty() {
        let note = format!("host {host} of {object} has no address outside the cluster");
        (Some(Reason::NoEndpoint), note)
    } else {
        let addresses = route.addresses.len();
        let note = format!("{object} leads to host {host}{changed}; it has {addresses} addresses");
        (None, note)
    };
    Some(Leaving {
        label: service.to_string(),
        object: None,
        refused,
        note: Some(note),
    })
}

/// By which names proxies count such calls: by the objects that give them, and without one by the
/// host, else the address. None where that is not known: bytes to a host may be counted by the
/// address that was dialled.
pub(super) fn counted_as<'a>(
    to: &Outside,
    request: &Request,
    objects: impl Iterator<Item = &'a Origin>,
) -> BTreeSet<Arc<str>> {
    let mut names: BTreeSet<Arc<str>> = objects.map(|object| Arc::clone(object.label())).collect();
    if let Some(address) = to.address() {
        names.insert(address.to_canonical().to_string().into());
    } else if request.tcp && names.is_empty() {
        return names;
    } else if let Some(host) = host_name(&to.name) {
        names.insert(Arc::from(&*host));
    }
    if !request.tcp
        && let Some(host) = request.headers.get(HOST)
        && let Some(host) = host.to_str().ok().and_then(host_name)
    {
        names.insert(Arc::from(&*host));
    }
    names
}

/// The object that would give a refused call, where none does; to a caller whose account is known.
pub(super) fn missing(to: &Called, caller: &Caller, request: &Request) -> Option<Value> {
    let Called::External(to) = to else {
        return None;
    };
    let identity = caller.identity.as_ref()?;
    let account = identity.service_account()?;
    let (field, value, protocol) = match (to.address(), host_name(&to.name)) {
        (Some(address), _) => {
            let prefix = if address.is_ipv4() { 32 } else { 128 };
            let value = format!("{address}/{prefix}");
            ("addresses", value, ExternalProtocol::Tcp)
        }
        (None, Some(host)) => {
            let protocol = match request.tcp || to.port() == PORT {
                true => ExternalProtocol::Tls,
                false => ExternalProtocol::Http,
            };
            ("hosts", host.into_owned(), protocol)
        }
        (None, None) => return None,
    };
    let name: String = to
        .name
        .chars()
        .map(|letter| match letter.is_ascii_alphanumeric() {
            true => letter.to_ascii_lowercase(),
            false => '-',
        })
        .take(48)
        .collect();
    let name = format!("to-{}-{}", name.trim_matches('-'), to.port());
    let mut spec = json!({
        "ports": [{"port": to.port(), "protocol": protocol.as_str()}],
        "sources": [{"kind": "ServiceAccount", "name": account}],
    });
    spec[field] = json!([value]);
    Some(json!({
        "apiVersion": format!("{}/{}", weft::GROUP, weft::VERSION),
        "kind": "ExternalService",
        "metadata": {"name": name, "namespace": identity.namespace()?},
        "spec": spec,
    }))
}
