//! `weft proxies`: lists the proxies, and whether each has the configuration that it needs.

use std::time::SystemTime;

use clap::Args;
use crds::observe::{Certificate, Proxy, ProxyList, Resource};
use k8s_openapi::jiff::Timestamp;

use super::ClusterCommand;
use super::lifetime::is_late;
use crate::cluster::{Cluster, existing};
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::output::table::{Cell, Table, Tone};
use crate::output::{self, COMMON, Format, number};

/// Proxies per request, as kubectl does.
const PAGE: &str = "500";

/// Arguments of `weft proxies`.
#[derive(Args, Debug)]
#[command(
    about = "Show the proxies and whether they have what they need",
    long_about = "Shows every proxy: version, whether it is connected to a controller, how many \
                  of the objects that concern it it has acknowledged, what it refused, when its \
                  certificate ends, what it holds in memory. Exit status 1 if one is not connected, \
                  unless it is revoked, or refused something.",
    after_help = "Example:\n  weft proxies -A"
)]
pub(crate) struct Proxies {}

impl ClusterCommand for Proxies {
    const FORMATS: &'static [Format] = COMMON;

    /// Prints a row per proxy.
    async fn print(
        &self,
        cluster: &Cluster,
        format: Format,
        now: SystemTime,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let list = all(cluster).await?;
        if list.items.is_empty() {
            existing::must_be_in_a_namespace(cluster).await?;
        }
        let wrong = |Proxy { status, .. }: &Proxy| {
            let is_lost = !status.connected && status.revoked_by.is_none();
            is_lost || !status.nacks.is_empty()
        };
        let conclusion = if list.items.iter().any(wrong) {
            Conclusion::No
        } else {
            Conclusion::Yes
        };
        if output::data(console, format, &list)? {
            return Ok(conclusion);
        }
        if list.items.is_empty() {
            console.word("no proxies")?;
            return Ok(conclusion);
        }
        let all = cluster.scope().is_none();
        table(&list, all, format, cluster.now(now)).write(console.out, console.color)?;
        for proxy in &list.items {
            for nack in &proxy.status.nacks {
                console.word(&format!(
                    "{} refused {}: {}",
                    proxy.metadata.name, nack.object, nack.reason
                ))?;
            }
        }
        Ok(conclusion)
    }
}

/// All pages. If one is empty and yet names a next page, `metadata` keeps that name.
pub(super) async fn all(cluster: &Cluster) -> Result<ProxyList, Failure> {
    let mut list = ProxyList::default();
    loop {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", PAGE);
        if let Some(next) = &list.metadata.next {
            query.append_pair("continue", next);
        }
        let query = query.finish();
        let page: ProxyList = cluster
            .observe(Resource::Proxies, cluster.scope(), None, &query)
            .await?;
        let ends = page.items.is_empty() || page.metadata.next.is_none();
        let mut items = std::mem::take(&mut list.items);
        items.extend(page.items);
        list = ProxyList { items, ..page };
        if ends {
            return Ok(list);
        }
    }
}

fn table(list: &ProxyList, all: bool, format: Format, now: SystemTime) -> Table {
    let mut head = Vec::new();
    if all {
        head.push("NAMESPACE");
    }
    head.extend([
        "POD",
        "WORKLOAD",
        "VERSION",
        "CONNECTED",
        "ACKED",
        "NACKS",
        "CERT",
        "MEMORY",
    ]);
    if format == Format::Wide {
        head.extend(["IDENTITY", "CLOCK", "DRAINING", "LACKS", "TOO-OLD-FOR"]);
    }
    let mut table = Table::new(&head);
    for proxy in &list.items {
        let status = &proxy.status;
        let mut row: Vec<Cell> = Vec::new();
        if all {
            row.push(proxy.metadata.namespace.clone().into());
        }
        row.extend([
            proxy.metadata.name.clone().into(),
            status.workload.clone().into(),
            status.version.clone().unwrap_or_default().into(),
            match (status.connected, &status.revoked_by) {
                (_, Some(_)) => Cell::toned("revoked", Tone::Warning),
                (true, None) => Cell::toned("yes", Tone::Good),
                (false, None) => Cell::toned("no", Tone::Bad),
            },
            acked(status.acknowledged, status.needed),
            if status.nacks.is_empty() {
                "0".into()
            } else {
                Cell::toned(status.nacks.len().to_string(), Tone::Bad)
            },
            certificate(status.certificate.as_ref(), now),
            status.memory.map(memory).unwrap_or_default().into(),
        ]);
        if format == Format::Wide {
            let clock = status.clock_ahead_ms.map(|ms| format!("{ms:+}ms"));
            let draining = status
                .draining
                .map(|draining| if draining { "yes" } else { "no" });
            row.extend([
                status.identity.clone().into(),
                clock.unwrap_or_default().into(),
                draining.unwrap_or_default().into(),
                status.lacks.join(",").into(),
                status.too_old_for.join(",").into(),
            ]);
        }
        table.row(row);
    }
    table
}

fn acked(acknowledged: u32, needed: u32) -> Cell {
    let tone = if acknowledged < needed {
        Tone::Warning
    } else {
        Tone::Plain
    };
    Cell::toned(format!("{acknowledged}/{needed}"), tone)
}

/// In how long a certificate ends.
fn certificate(certificate: Option<&Certificate>, now: SystemTime) -> Cell {
    let Some((certificate, ends)) = certificate.and_then(|certificate| {
        let ends: Timestamp = certificate.not_after.parse().ok()?;
        Some((certificate, SystemTime::from(ends)))
    }) else {
        return Cell::default();
    };
    match ends.duration_since(now) {
        Err(_) => Cell::toned("ended", Tone::Bad),
        Ok(left) if is_late(certificate, None, now) => {
            Cell::toned(number::age(left), Tone::Warning)
        }
        Ok(left) => number::age(left).into(),
    }
}

fn memory(bytes: u64) -> String {
    format!("{:.1}Mi", bytes as f64 / f64::from(1 << 20))
}
