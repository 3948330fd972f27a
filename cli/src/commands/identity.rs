//! `weft identity`: who pods are, as their proxies show it to others.

mod certificate;

use std::time::SystemTime;

use clap::Args;
use crds::objects::{PROXY_CONTAINER, TRUST_BUNDLE, TRUST_BUNDLE_KEY};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::ListParams;
use policy::well_known::ADMIN_PORT;

use self::certificate::Certificate;
use crate::cluster::names::{Kind, Named};
use crate::cluster::{Cluster, forward};
use crate::console::Console;
use crate::failure::{Failure, Verdict};
use crate::global::Global;
use crate::output::table::{Cell, Table, Tone};
use crate::output::{self, Format, number};

/// Pods that can be named, by themselves or by their account.
pub(super) const KINDS: &[Kind] = &[Kind::Pod, Kind::ServiceAccount];
/// Most proxies that are asked at once.
const MOST: usize = 20;

/// Arguments of `weft identity`.
#[derive(Args, Debug)]
#[command(
    about = "Show the certificates of pods, or of the mesh's authority",
    long_about = "Shows the certificate that a pod's proxy presents to others, as the proxy tells \
                  it by port-forward: SPIFFE id, serial, issuer, end, and when it is renewed. With \
                  --ca the roots that the namespace's proxies trust.",
    after_help = "Example:\n  weft identity pod/web-5d8"
)]
pub struct Identity {
    /// pod/NAME or sa/NAME; all meshed pods of the namespace without it
    #[arg(value_name = "RES")]
    resource: Option<String>,
    /// The roots of the mesh
    #[arg(long, conflicts_with = "resource")]
    ca: bool,
}

impl Identity {
    /// Prints a row per certificate.
    ///
    /// # Errors
    /// When no certificate can be read.
    pub async fn run(
        &self,
        global: &Global,
        console: &mut Console<'_>,
    ) -> Result<Verdict, Failure> {
        let format = global.format(&[Format::Table, Format::Json, Format::Yaml])?;
        let named = self
            .resource
            .as_deref()
            .map(|text| Named::read(text, KINDS))
            .transpose()?;
        let cluster = Cluster::connect(global).await?;
        if self.ca {
            return roots(&cluster, format, console).await;
        }
        let pods = pods(&cluster, named.as_ref()).await?;
        if pods.is_empty() {
            return Err(Failure::unknown(format!(
                "no meshed pods in {}",
                cluster.namespace()
            )));
        }
        if pods.len() > MOST {
            console.word(&format!(
                "the first {MOST} of {} pods; name one",
                pods.len()
            ))?;
        }
        let mut shown = Vec::new();
        let mut verdict = Verdict::Yes;
        for pod in pods.into_iter().take(MOST) {
            match of_pod(&cluster, &pod).await {
                Ok(certificate) => shown.push((pod, certificate)),
                Err(error) => {
                    verdict = Verdict::No;
                    console.word(&error.to_string())?;
                }
            }
        }
        if shown.is_empty() {
            return Err(Failure::unknown("no proxy showed a certificate"));
        }
        let mut table = Table::new(&["POD", "IDENTITY", "SERIAL", "ISSUER", "ENDS", "RENEWAL"]);
        print(&shown, &mut table, format, console)?;
        Ok(verdict)
    }
}

async fn pods(cluster: &Cluster, named: Option<&Named>) -> Result<Vec<String>, Failure> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), cluster.namespace());
    let all = ListParams::default();
    let found = cluster.ask("Pods", pods.list(&all)).await?;
    let meant = found.items.iter().filter(|pod| {
        let spec = pod.spec.as_ref();
        let account = spec.and_then(|spec| spec.service_account_name.as_deref());
        let containers = spec.and_then(|spec| spec.init_containers.as_ref());
        let meshed =
            containers.is_some_and(|all| all.iter().any(|one| one.name == PROXY_CONTAINER));
        let fits = named.is_none_or(|named| {
            let wanted = named.name.as_deref();
            let own = match named.kind {
                Kind::ServiceAccount => Some(account.unwrap_or("default")),
                _ => pod.metadata.name.as_deref(),
            };
            wanted.is_none() || wanted == own
        });
        meshed && fits
    });
    Ok(meant.filter_map(|pod| pod.metadata.name.clone()).collect())
}

async fn of_pod(cluster: &Cluster, pod: &str) -> Result<Certificate, Failure> {
    let page = forward::page(
        cluster,
        cluster.namespace(),
        pod,
        ADMIN_PORT,
        "/certificate",
    );
    let chain = certificate::in_pem(page.await?.as_bytes());
    let told = |why: String| Failure::unknown(format!("the proxy of {pod}: {why}"));
    // Its own comes first.
    let leaf = chain.map_err(told)?.into_iter().next();
    leaf.ok_or_else(|| told("shows no certificate".to_owned()))
}

async fn roots(
    cluster: &Cluster,
    format: Format,
    console: &mut Console<'_>,
) -> Result<Verdict, Failure> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), cluster.namespace());
    let what = format!("ConfigMap {}/{TRUST_BUNDLE}", cluster.namespace());
    let map = cluster.ask(&what, maps.get(TRUST_BUNDLE)).await?;
    let pem = map
        .data
        .unwrap_or_default()
        .remove(TRUST_BUNDLE_KEY)
        .unwrap_or_default();
    let told = |why: String| Failure::unknown(format!("{what}: {why}"));
    let mut shown = Vec::new();
    for (number, root) in certificate::in_pem(pem.as_bytes())
        .map_err(told)?
        .into_iter()
        .enumerate()
    {
        // New certificates are signed below the first.
        let name = if number == 0 { "signs" } else { "trusted" };
        shown.push((name.to_owned(), root));
    }
    let mut table = Table::new(&["ROOT", "IDENTITY", "SERIAL", "ISSUER", "ENDS", "RENEWAL"]);
    print(&shown, &mut table, format, console)?;
    Ok(Verdict::Yes)
}

fn print(
    shown: &[(String, Certificate)],
    table: &mut Table,
    format: Format,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let listed: Vec<serde_json::Value> = shown
        .iter()
        .map(|(name, certificate)| serde_json::json!({"name": name, "certificate": certificate}))
        .collect();
    if output::data(console, format, &listed)? {
        return Ok(());
    }
    let now = SystemTime::now();
    let until = |time: SystemTime| match time.duration_since(now) {
        Ok(left) => Cell::from(number::age(left)),
        Err(_) => Cell::toned("over", Tone::Bad),
    };
    for (name, certificate) in shown {
        table.row(vec![
            name.clone().into(),
            certificate.identity.clone().into(),
            certificate.serial.clone().into(),
            certificate.issuer.clone().into(),
            until(certificate.ends()),
            if certificate.authority {
                Cell::default()
            } else {
                until(certificate.renewed())
            },
        ]);
    }
    table.write(console.out, console.color)?;
    Ok(())
}
