//! `weft identity`: shows the identities of pods, as their proxies present them to others, and those
//! of the authority that signs them, which it can have rotated. It can revoke identities, too.

mod certificate;
mod foreseen;
mod pods;
mod revoke;
mod rotate;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use clap::Args;
use crds::objects::{TRUST_BUNDLE, TRUST_BUNDLE_KEY};
use crds::observe::ProxyList;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use tokio::time::timeout;

use self::certificate::Certificate;
use self::pods::{PodName, Row};
use self::revoke::Revoke;
use self::rotate::Rotate;
use super::{ClusterCommand, proxies};
use crate::cluster::names::{Named, ResourceKind};
use crate::cluster::{Cluster, existing};
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::{Format, NARROW, number};

/// What can be named: pods by themselves, by their account or by their workload.
pub(super) const KINDS: &[ResourceKind] = &[
    ResourceKind::Pod,
    ResourceKind::ServiceAccount,
    ResourceKind::Deployment,
    ResourceKind::StatefulSet,
    ResourceKind::DaemonSet,
    ResourceKind::Job,
    ResourceKind::CronJob,
    ResourceKind::Rollout,
    ResourceKind::ReplicaSet,
    ResourceKind::ReplicationController,
];
/// Max proxies that are queried, and how many at the same time.
const MOST: usize = 20;
const AT_ONCE: usize = 8;
/// How long all of them together are waited for; each has the time of one request.
const WITHIN: Duration = Duration::from_secs(30);
/// What is typed in the place of a resource to have the authority rotated.
const ROTATE: &str = "rotate";
/// The same to have an identity revoked.
const REVOKE: &str = "revoke";
/// A pod whose proxy showed nothing, and why, unless it was not queried.
type Silent = (PodName, Option<Failure>);

/// Arguments of `weft identity`.
#[derive(Args, Debug)]
#[command(
    about = "Show the certificates of pods or of the mesh's authority, rotate that, or revoke some",
    long_about = "Shows the certificate that a pod's proxy presents to others, as the proxy \
                  reports it by port-forward: SPIFFE id, serial, issuer, end, and when it is \
                  renewed. Of a proxy that the user may not query, or that does not answer within \
                  half a minute, and of all beyond 20, what controllers know of it. With --ca the \
                  roots that proxies trust, the issuer that signs below them, and on the error \
                  stream the phase of the authority and what it waits for. rotate requests another \
                  root, by the user's own right to patch CertificateAuthority weft (ClusterRole \
                  weft-incident): a planned rotation waits for every proxy and loses nothing, one \
                  with --compromise waits seconds and ends what was opened with certificates of \
                  the old root. With --wait exit status 0 once the rotation has ended, 1 if it \
                  does not run, 3 if it has not ended by then. revoke makes a Revocation of an \
                  account, pod, node, certificate or issuer (sa/NAME, pod/NAME, node/NAME, \
                  certificate/SERIAL, issuer/FINGERPRINT), by the user's own right to create one \
                  (the same ClusterRole): every proxy refuses it within seconds. Exit \
                  status 1 if the controller refuses it, 3 if none has judged it within 5 s. With \
                  --keep-healthy only what was issued before now, so that the workload goes on.",
    after_help = "Example:\n  weft identity pod/web-5d8"
)]
pub(crate) struct Identity {
    /// pod, sa, deploy, sts, ds, job, cj, ro, rs or rc, or one as KIND/NAME; all meshed pods
    /// without it; or rotate, or revoke
    #[arg(value_name = "RES")]
    resource: Option<String>,
    /// Of revoke: sa, pod, node, certificate or issuer, as KIND/NAME
    #[arg(value_name = "SUBJECT")]
    subject: Option<String>,
    /// The roots of the mesh, and the issuer
    #[arg(long, conflicts_with = "resource")]
    ca: bool,
    /// Of rotate: a key was stolen, so seconds count
    #[arg(long)]
    compromise: bool,
    /// Of rotate: its name, of which no other one runs; of revoke: the object's; the time without it
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Of rotate: wait so long for its end
    #[arg(long, value_name = "TIME", value_parser = number::at_least(Duration::ZERO), allow_hyphen_values = true)]
    wait: Option<Duration>,
    /// Of revoke: why, for Events and the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Of revoke: only certificates that were issued before now
    #[arg(long)]
    keep_healthy: bool,
    /// Of revoke: make nothing, and show what would be made
    #[arg(long)]
    dry_run: bool,
}

impl ClusterCommand for Identity {
    const FORMATS: &'static [Format] = NARROW;

    fn must_be_readable(&self, global: &Global) -> Result<(), Failure> {
        if let Some(revoke) = self.revokes()? {
            global.in_one_namespace("an account or pod is of one namespace")?;
            global.without_output("one line")?;
            return revoke.must_be_readable();
        }
        if self.subject.is_some() || self.reason.is_some() || self.keep_healthy || self.dry_run {
            let why = "a second name, --reason, --keep-healthy and --dry-run are for weft identity \
                       revoke";
            return Err(Failure::usage(why));
        }
        if self.rotates() {
            global.in_cluster("the authority is in no namespace")?;
            return global.without_output("one line");
        }
        if self.compromise || self.id.is_some() || self.wait.is_some() {
            let why = "--compromise, --id and --wait are for weft identity rotate";
            return Err(Failure::usage(why));
        }
        self.named().map(drop)
    }

    /// Prints a row per certificate that this cluster's proxies present.
    async fn print(
        &self,
        cluster: &Cluster,
        format: Format,
        now: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        if self.ca {
            return print_authority(cluster, format, now, console).await;
        }
        if let Some(revoke) = self.revokes()? {
            return revoke.run(cluster, now, console).await;
        }
        if self.rotates() {
            let (compromise, id, wait) = (self.compromise, self.id.clone(), self.wait);
            let rotate = Rotate {
                compromise,
                id,
                wait,
            };
            return rotate.run(cluster, now, console).await;
        }
        let named = self.named()?;
        let of_pods = |named: &&Named| {
            [ResourceKind::Pod, ResourceKind::ServiceAccount].contains(&named.kind)
        };
        let (pods, listed) = match named.as_ref().filter(|named| !of_pods(named)) {
            // Controllers know which pods belong to a workload.
            Some(workload) => {
                let listed = proxies::all(cluster).await?;
                let pods = pods::of_workload(cluster, &listed, workload).await?;
                (pods, Some(listed))
            }
            None => (pods::meshed(cluster, named.as_ref()).await?, None),
        };
        let (mut rows, silent) = presented(cluster, pods).await;
        let conclusion = match silent.is_empty() {
            true => Conclusion::Yes,
            false => {
                let listed = match listed {
                    Some(listed) => listed,
                    None => known(cluster, console).await?,
                };
                by_controllers(&mut rows, silent, &listed, console)?
            }
        };
        if rows.is_empty() {
            return Err(Failure::unknown("no proxy showed a certificate"));
        }
        let sort_key = |row: &Row| (row.namespace.clone(), row.name.clone());
        rows.sort_by_key(sort_key);
        let all = cluster.scope().is_none();
        pods::print_rows(&rows, "POD", all, cluster.now(now), format, console)?;
        Ok(conclusion)
    }
}

impl Identity {
    fn rotates(&self) -> bool {
        self.resource.as_deref() == Some(ROTATE)
    }

    /// The Revocation that is to be made, if one is.
    fn revokes(&self) -> Result<Option<Revoke<'_>>, Failure> {
        if self.resource.as_deref() != Some(REVOKE) {
            return Ok(None);
        }
        if self.compromise || self.wait.is_some() {
            let why = "--compromise and --wait are for weft identity rotate";
            return Err(Failure::usage(why));
        }
        let (Some(what), Some(reason)) = (&self.subject, &self.reason) else {
            let why = "name what to revoke and why: weft identity revoke sa/web --reason TEXT";
            return Err(Failure::usage(why));
        };
        Ok(Some(Revoke {
            what,
            reason,
            name: self.id.as_deref(),
            keep_healthy: self.keep_healthy,
            dry_run: self.dry_run,
        }))
    }

    fn named(&self) -> Result<Option<Named>, Failure> {
        let why = "a certificate is that of the whole pod";
        let read = |text: &str| Named::read(text, KINDS)?.without_port(text, why);
        self.resource.as_deref().map(read).transpose()
    }
}

/// The certificates of the proxies that are queried and respond in time, and the other pods.
async fn presented(cluster: &Cluster, mut pods: Vec<PodName>) -> (Vec<Row>, Vec<Silent>) {
    let beyond = pods.split_off(pods.len().min(MOST));
    let mut waiting: BTreeSet<PodName> = pods.iter().cloned().collect();
    let (mut rows, mut silent) = (Vec::new(), Vec::new());
    let mut answers = stream::iter(pods)
        .map(|pod| async move {
            let presented = pods::presented(cluster, &pod).await;
            (pod, presented)
        })
        .buffer_unordered(AT_ONCE);
    let telling = async {
        while let Some((pod, presented)) = answers.next().await {
            waiting.remove(&pod);
            match presented {
                Ok((own, _)) => rows.push(Row::of(pod, own)),
                Err(error) => silent.push((pod, Some(error))),
            }
        }
    };
    // A proxy without a response by then stands in `waiting`.
    let _ = timeout(WITHIN, telling).await;
    silent.extend(waiting.into_iter().map(|pod| {
        let why = format!("the proxy of {pod} did not answer in time");
        (pod, Some(Failure::unknown(why)))
    }));
    silent.extend(beyond.into_iter().map(|pod| (pod, None)));
    (rows, silent)
}

/// What controllers know of proxies; empty if they do not report it.
async fn known(cluster: &Cluster, console: &mut Console<'_>) -> Result<ProxyList, Failure> {
    match proxies::all(cluster).await {
        Ok(listed) => Ok(listed),
        Err(error) => {
            console.word(&error.to_string())?;
            Ok(ProxyList::default())
        }
    }
}

/// Adds what controllers know of proxies without a response of their own, each with the reason,
/// unless it was not queried.
fn by_controllers(
    rows: &mut Vec<Row>,
    silent: Vec<Silent>,
    listed: &ProxyList,
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    let certificates: BTreeMap<PodName, Certificate> = listed
        .items
        .iter()
        .filter_map(|proxy| {
            let pod = PodName {
                namespace: proxy.metadata.namespace.clone(),
                name: proxy.metadata.name.clone(),
            };
            Some((pod, Certificate::reported(&proxy.status)?))
        })
        .collect();
    let (mut conclusion, mut added, mut reason) = (Conclusion::Yes, 0, None);
    for (pod, why) in silent {
        let Some(certificate) = certificates.get(&pod).cloned() else {
            conclusion = Conclusion::No;
            let unreported = || format!("{pod}: no controller reports its certificate");
            console.word(&why.map_or_else(unreported, |why| why.to_string()))?;
            continue;
        };
        rows.push(Row::of(pod, certificate));
        added += 1;
        reason = reason.or(why);
    }
    if added > 0 {
        let reason = reason.map_or_else(
            || format!("no more than {MOST} proxies are queried directly"),
            |why| why.to_string(),
        );
        console.word(&format!(
            "{added} of these certificates are reported by controllers, which do not know whose \
             name stands in them; the identity shown is the one that the proxy has to have: \
             {reason}"
        ))?;
    }
    Ok(conclusion)
}

/// Proxies that are queried for the issuer, one after the other, until one responds.
const MAX_TRIED: usize = 3;

/// `weft identity --ca`: a row for each of the roots that proxies trust, and for the issuer that
/// signs below them.
async fn print_authority(
    cluster: &Cluster,
    format: Format,
    now: SystemTime,
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    // All namespaces have the same.
    let here = cluster.about(Some(cluster.namespace()));
    let mut rows = Vec::new();
    for root in roots(&here).await? {
        // New certificates are signed below the first.
        let name = if rows.is_empty() { "signs" } else { "trusted" };
        rows.push(Row::named(name, root));
    }
    match issuers(&here).await {
        Ok(issuers) => {
            let issuers = issuers.into_iter();
            rows.extend(issuers.map(|issuer| Row::named("issuer", issuer)));
        }
        Err(error) => console.word(&instead(&here, &error).await)?,
    }
    pods::print_rows(&rows, "ROLE", false, here.now(now), format, console)?;
    for note in rotate::notes(&here).await {
        console.word(&note)?;
    }
    Ok(Conclusion::Yes)
}

async fn roots(cluster: &Cluster) -> Result<Vec<Certificate>, Failure> {
    let namespace = cluster.namespace();
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{TRUST_BUNDLE}");
    let what = format!("ConfigMap {}/{TRUST_BUNDLE}", cluster.namespace());
    let map = match cluster.try_read::<ConfigMap>(&what, &path).await {
        Ok(map) => map,
        Err(refusal) => {
            if refusal.is_missing() {
                existing::must_be_in_a_namespace(cluster).await?;
            }
            return Err(refusal.into_failure());
        }
    };
    let pem = map
        .data
        .unwrap_or_default()
        .remove(TRUST_BUNDLE_KEY)
        .unwrap_or_default();
    let roots = certificate::in_pem(pem.as_bytes());
    let roots = roots.map_err(|why| Failure::unknown(format!("{what}: {why}")))?;
    match roots.is_empty() {
        true => Err(Failure::unknown(format!(
            "{what}: {TRUST_BUNDLE_KEY} holds no root, so proxies that start trust no peer; `weft \
             check` says why"
        ))),
        false => Ok(roots),
    }
}

/// What a proxy presents behind its own certificate.
async fn issuers(cluster: &Cluster) -> Result<Vec<Certificate>, Failure> {
    let mut refused = Failure::unknown("no proxy was queried");
    for pod in pods::meshed(cluster, None).await?.iter().take(MAX_TRIED) {
        match pods::presented(cluster, pod).await {
            Ok((_, behind)) => return Ok(behind),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// What is known of the issuer where no proxy presents it.
async fn instead(cluster: &Cluster, why: &Failure) -> String {
    let listed = proxies::all(cluster).await.unwrap_or_default();
    let certificates = listed.items.into_iter();
    let certificates = certificates.filter_map(|proxy| proxy.status.certificate);
    // Issuers may share a name.
    let names = certificates.map(|certificate| match certificate.authority {
        Some(authority) => format!("{} ({authority})", certificate.issuer),
        None => certificate.issuer,
    });
    let names: BTreeSet<String> = names.collect();
    if names.is_empty() {
        // The authority is the mesh's, wherever its pods are.
        return match rotate::issuers(cluster).await {
            Some(named) => format!("CertificateAuthority weft names the issuer, {named}: {why}"),
            None => format!("the issuer is not shown: {why}"),
        };
    }
    let names: Vec<String> = names.into_iter().collect();
    format!(
        "of the issuer only the name is known, {}: {why}",
        names.join(" and ")
    )
}
