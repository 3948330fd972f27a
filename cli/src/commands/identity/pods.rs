//! Selects pods, reads the certificate that the proxy of each presents, and builds the rows of the
//! output.

use std::fmt;
use std::time::SystemTime;

use crds::objects::{GATEWAY_CONTAINER, PROXY_CONTAINER};
use crds::observe::ProxyList;
use k8s_openapi::api::core::v1 as k8s;
use kube::api::ObjectList;
use policy::well_known::ADMIN_PORT;
use serde::Serialize;

use super::certificate::{self, Certificate};
use crate::cluster::names::{Named, ResourceKind};
use crate::cluster::nearest::{hint, nearest};
use crate::cluster::{Cluster, existing, forward};
use crate::console::Console;
use crate::failure::Failure;
use crate::output::table::{Cell, Table, Tone};
use crate::output::{self, Format, number};

/// A pod with a proxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PodName {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The pods with a proxy that a pod's or an account's name means; all without one.
pub(super) async fn meshed(
    cluster: &Cluster,
    named: Option<&Named>,
) -> Result<Vec<PodName>, Failure> {
    let path = ResourceKind::Pod.path(cluster.scope()).unwrap_or_default();
    let found: ObjectList<k8s::Pod> = cluster.read("Pods", &path).await?;
    let kind = named.map_or(ResourceKind::Pod, |named| named.kind);
    let wanted = named.and_then(|named| named.name.as_deref());
    let meshed = || found.items.iter().filter(|pod| is_meshed(pod));
    let meant: Vec<PodName> = meshed()
        .filter(|pod| wanted.is_none_or(|wanted| wanted == called(kind, pod)))
        .map(|pod| PodName {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
        })
        .collect();
    if !meant.is_empty() {
        return Ok(meant);
    }
    let Some(wanted) = wanted else {
        if found.items.is_empty() {
            existing::must_be_in_a_namespace(cluster).await?;
        }
        let scope_label = cluster.scope_label();
        return Err(Failure::unknown(format!("no meshed pods {scope_label}")));
    };
    let there = found.items.iter().any(|pod| called(kind, pod) == wanted);
    let known: Vec<&str> = meshed().map(|pod| called(kind, pod)).collect();
    Err(match (kind, there) {
        (ResourceKind::Pod, true) => Failure::unknown(format!("Pod {wanted} has no proxy")),
        (ResourceKind::Pod, false) => existing::absent(cluster, (kind, wanted), &known).await,
        _ => no_match(cluster, (kind, wanted), &known, None).await,
    })
}

/// The pods of a workload, as controllers know them.
pub(super) async fn of_workload(
    cluster: &Cluster,
    listed: &ProxyList,
    named: &Named,
) -> Result<Vec<PodName>, Failure> {
    let kind = named.kind;
    // Name of the workload, of one of this kind.
    let names = listed.items.iter().filter_map(|proxy| {
        let (of, name) = proxy.status.workload.split_once('/')?;
        (of == kind.as_str()).then_some((name, &proxy.metadata))
    });
    let wanted = named.name.as_deref();
    let meant: Vec<PodName> = names
        .clone()
        .filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name))
        .map(|(_, pod)| PodName {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
        })
        .collect();
    if !meant.is_empty() {
        return Ok(meant);
    }
    let known: Vec<&str> = names.map(|(name, _)| name).collect();
    if let Some(wanted) = wanted {
        let of_another = of_another_kind(listed, wanted);
        return Err(no_match(cluster, (kind, wanted), &known, of_another).await);
    }
    if listed.items.is_empty() {
        existing::must_be_in_a_namespace(cluster).await?;
    }
    let scope_label = cluster.scope_label();
    Err(Failure::unknown(format!(
        "no meshed pods of {kind} {scope_label}"
    )))
}

/// A workload of this very name, as `KIND/NAME`.
fn of_another_kind(listed: &ProxyList, wanted: &str) -> Option<String> {
    listed.items.iter().find_map(|proxy| {
        let (of, name) = proxy.status.workload.split_once('/')?;
        let kind = ResourceKind::named(of).filter(|_| name == wanted)?;
        Some(format!("{}/{name}", kind.short()))
    })
}

/// Why the name of a workload or an account matches no pod: there is none, or no pod of it has a
/// proxy. A user without the right to see which gets the nearest name that has one. `of_another`:
/// an object of this name and of another kind, which was probably meant if there is none.
async fn no_match(
    cluster: &Cluster,
    (kind, wanted): (ResourceKind, &str),
    known: &[&str],
    of_another: Option<String>,
) -> Failure {
    let hint = match existing::read(cluster, kind, wanted).await {
        Ok(None) if of_another.is_some() => {
            return existing::no_such(cluster, (kind, wanted), of_another);
        }
        Ok(None) => return existing::absent(cluster, (kind, wanted), known).await,
        Ok(Some(_)) => String::new(),
        Err(_) => {
            let near = nearest(wanted, known.iter().copied());
            hint(near.map(|near| format!("{}/{near}", kind.short())))
        }
    };
    let scope_label = cluster.scope_label();
    Failure::unknown(format!(
        "no meshed pods of {kind} {wanted} {scope_label}{hint}"
    ))
}

fn is_meshed(pod: &k8s::Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let mut sidecars = spec.init_containers.iter().flatten();
    // A Gateway is a proxy by itself.
    sidecars.any(|one| one.name == PROXY_CONTAINER)
        || spec
            .containers
            .iter()
            .any(|one| one.name == GATEWAY_CONTAINER)
}

/// The name by which a pod is meant: its own, or its account's.
fn called(kind: ResourceKind, pod: &k8s::Pod) -> &str {
    if kind == ResourceKind::Pod {
        return pod.metadata.name.as_deref().unwrap_or_default();
    }
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.as_deref());
    account.unwrap_or("default")
}

/// The certificate that a pod's proxy presents, and those behind it.
pub(super) async fn presented(
    cluster: &Cluster,
    pod: &PodName,
) -> Result<(Certificate, Vec<Certificate>), Failure> {
    let (namespace, name) = (&pod.namespace, &pod.name);
    let page = forward::page(cluster, namespace, name, ADMIN_PORT, "/certificate");
    let unreadable = |why: String| Failure::unknown(format!("the proxy of {pod}: {why}"));
    let chain = certificate::in_chain(page.await?.as_bytes()).map_err(unreadable)?;
    // Its own comes first.
    let mut chain = chain.into_iter();
    let own = chain.next();
    let own = own.ok_or_else(|| unreadable("shows no certificate".to_owned()))?;
    Ok((own, chain.collect()))
}

/// One certificate, and its pod.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// Of a pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) certificate: Certificate,
}

impl Row {
    pub(super) fn of(pod: PodName, certificate: Certificate) -> Self {
        let PodName { namespace, name } = pod;
        Self {
            namespace,
            name,
            certificate,
        }
    }

    /// What is no pod's.
    pub(super) fn named(name: &str, certificate: Certificate) -> Self {
        Self {
            namespace: String::new(),
            name: name.to_owned(),
            certificate,
        }
    }
}

/// Prints certificates at this time, a row each for people, and data for programs; `head` is the
/// column of their names, and `all` means that they are of many namespaces.
pub(super) fn print_rows(
    rows: &[Row],
    head: &'static str,
    all: bool,
    now: SystemTime,
    format: Format,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    if output::data(console, format, &rows)? {
        return Ok(());
    }
    let mut heads = Vec::new();
    if all {
        heads.push("NAMESPACE");
    }
    heads.extend([head, "IDENTITY", "SERIAL", "ISSUER", "ENDS", "RENEWAL"]);
    let mut table = Table::new(&heads);
    let until = |time: SystemTime| match time.duration_since(now) {
        Ok(left) => Cell::from(number::age(left)),
        Err(_) => Cell::toned("over", Tone::Bad),
    };
    for row in rows {
        let certificate = &row.certificate;
        let mut cells: Vec<Cell> = Vec::new();
        if all {
            cells.push(row.namespace.clone().into());
        }
        cells.extend([
            row.name.clone().into(),
            certificate.identity.clone().into(),
            certificate.serial.clone().into(),
            certificate.issuer.clone().into(),
            until(certificate.ends()),
            certificate.renewed().map(until).unwrap_or_default(),
        ]);
        table.row(cells);
    }
    table.write(console.out, console.color)?;
    Ok(())
}
