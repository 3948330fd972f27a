//! `weft identity --ca`: the roots that proxies trust, and the issuer that signs below them.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crds::objects::{TRUST_BUNDLE, TRUST_BUNDLE_KEY};
use k8s_openapi::api::core::v1::ConfigMap;

use super::certificate::{self, Certificate};
use super::pods;
use super::pods::{self, Row};
use crate::cluster::{Cluster, existing};
use crate::commands::proxies;
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::output::Format;

/// Proxies that are queried for the issuer, one after the other, until one responds.
const MAX_TRIED: usize = 3;

/// Prints a row for each.
pub(super) async fn print(
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
    let mut refused = Failure::unknown("no proxy was asked");
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
    let names: BTreeSet<String> = certificates.map(|certificate| certificate.issuer).collect();
    if names.is_empty() {
        return format!("the issuer is not shown: {why}");
    }
    let names: Vec<String> = names.into_iter().collect();
    format!(
        "of the issuer only the name is known, {}: {why}",
        names.join(" and ")
    )
}
