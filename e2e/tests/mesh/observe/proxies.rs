//! The state and the logs of single proxies, as they and their controllers report them.
//!
//! Claims: observe-103, observe-105, observe-51, observe-90

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{Namespace, Outcome, Pod, eventually};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::super::url;
use super::{SHOWN, cell, weft};

/// Until it is looked no longer whether a log followed; when it did, it says itself.
const FOLLOWS: Duration = Duration::from_secs(60);
/// The promise, from the end of the command to the log's own line of it.
const FOLLOWS_WITHIN: time::Duration = time::Duration::seconds(5);
/// An odd number of changes, of which the median counts: a machine that stalls for some
/// seconds holds one of them up. Each lets the line of the next one pass.
const LEVELS: [&str; 5] = [
    "debug",
    "info,weft_proxy=debug",
    "debug",
    "info,weft_proxy=debug",
    "debug",
];
/// What a log says of its change, before it is made.
const CHANGED: &str = "the log's level changes";

#[test]
fn proxies_report_version_certificate_memory_and_clock() -> Outcome {
    let ns = Namespace::meshed("eyes-proxies")?;
    ns.run(&["web", "cart"])?;
    let (web, cart) = (ns.pod("web")?, ns.pod("cart")?);
    let table = eventually(SHOWN, "every proxy has reported", || {
        let output = weft(&ns, &["proxies", "-o", "wide"])?.with_status(0)?;
        for pod in [&web, &cart] {
            let memory = cell(&output.out, &pod.name, "MEMORY")?;
            let mebibytes = memory
                .strip_suffix("Mi")
                .with_context(|| output.out.clone())?;
            // Of a program that runs.
            ensure!(mebibytes.parse::<f64>()? >= 1.0, "{}", output.out);
        }
        Ok(output.out)
    })?;
    for (pod, workload) in [(&web, "Deployment/web"), (&cart, "Deployment/cart")] {
        for (column, expected) in [
            ("WORKLOAD", workload),
            ("VERSION", env!("CARGO_PKG_VERSION")),
            ("CONNECTED", "yes"),
            ("NACKS", "0"),
            ("DRAINING", "no"),
        ] {
            assert_eq!(cell(&table, &pod.name, column)?, expected, "{table}");
        }
        let clock = cell(&table, &pod.name, "CLOCK")?.trim_end_matches("ms");
        assert!(clock.parse::<i64>()?.abs() < 5_000, "{table}");
    }
    // Any replica answers, and one may learn of the other's proxies a moment later.
    eventually(SHOWN, "the end of a certificate is reported", || {
        let list = weft(&ns, &["proxies", "-o", "json"])?.json()?;
        let items = list["items"].as_array().context("no items")?;
        ensure!(items.len() == 2, "{list:#}");
        for item in items {
            let ends = item["status"]["certificate"]["notAfter"].as_str();
            let ends = ends.with_context(|| format!("no end: {item:#}"))?;
            let ends = OffsetDateTime::parse(ends, &Rfc3339)?;
            ensure!(ends > OffsetDateTime::now_utc(), "{item:#}");
        }
        Ok(())
    })?;
    Ok(())
}

#[test]
fn identity_and_configuration_come_from_the_proxies() -> Outcome {
    let ns = Namespace::meshed("eyes-identity")?;
    ns.run(&["web", "cart"])?;
    let web = ns.pod("web")?;
    web.report(&url("cart", 8080, "/"), &[])?;
    let output = weft(&ns, &["identity", &format!("pod/{}", web.name)])?.with_status(0)?;
    let spiffe = format!("spiffe://cluster.local/ns/{}/sa/web", ns.name);
    assert_eq!(cell(&output.out, &web.name, "IDENTITY")?, spiffe);
    let all = weft(&ns, &["identity"])?.with_status(0)?;
    assert_eq!(all.out.lines().count(), 3, "{}", all.out);
    let roots = weft(&ns, &["identity", "--ca"])?.with_status(0)?;
    assert!(roots.out.contains("signs"), "{}", roots.out);
    assert!(roots.out.contains("issuer"), "{}", roots.out);
    let of_web = weft(&ns, &["identity", "deploy/web"])?.with_status(0)?;
    assert_eq!(cell(&of_web.out, &web.name, "IDENTITY")?, spiffe);
    assert_eq!(of_web.out.lines().count(), 2, "{}", of_web.out);

    let direct = weft(&ns, &["proxy-config", &web.name, "--direct", "-o", "json"])?;
    let direct = direct.with_status(0)?.json()?;
    let reported = weft(&ns, &["proxy-config", &web.name, "-o", "json"])?;
    assert_eq!(reported.with_status(0)?.json()?["identity"], spiffe);
    assert_eq!(direct["identity"], spiffe);
    // Its controller queries it, whichever replica that is: no port forward is needed.
    let path = "/apis/observe.weft.dev/v1alpha1/namespaces";
    let path = format!("{path}/{}/proxies/{}", ns.name, web.name);
    let proxy = ns.cluster.kubectl(&["get", "--raw", &path])?;
    let proxy: Value = serde_json::from_str(&proxy)?;
    assert_eq!(proxy["status"]["config"]["identity"], spiffe, "{proxy:#}");
    let resources = direct["resources"].as_object().context("no resources")?;
    let service = format!("service/{}/cart:8080", ns.name);
    assert!(resources.contains_key("workload"), "{direct:#}");
    assert!(resources.contains_key(&service), "{direct:#}");
    Ok(())
}

/// To which filters the log of a pod's proxy changed, and when.
fn changes(ns: &Namespace, pod: &Pod) -> anyhow::Result<Vec<(String, OffsetDateTime)>> {
    let log = ns.kubectl(&["logs", &pod.name, "-c", "weft-proxy"])?;
    let mut all = Vec::new();
    for line in log.lines().filter(|line| line.contains(CHANGED)) {
        let entry: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let text = |field: &str| {
            let text = entry[field].as_str();
            text.with_context(|| format!("no {field}: {line}"))
        };
        let at = OffsetDateTime::parse(text("timestamp")?, &Rfc3339)?;
        all.push((text("filter")?.to_owned(), at));
    }
    Ok(all)
}

/// Sets one level after the other: how long each took to hold, the shortest first.
fn followed(ns: &Namespace, pod: &Pod) -> anyhow::Result<Vec<time::Duration>> {
    let mut took = Vec::new();
    for (before, level) in LEVELS.into_iter().enumerate() {
        weft(ns, &["log-level", &pod.name, level])?.with_status(0)?;
        let written = OffsetDateTime::now_utc();
        let at = eventually(FOLLOWS, "the log follows", || {
            let all = changes(ns, pod)?;
            ensure!(all.len() == before + 1, "{level}: {all:?}");
            let (filter, at) = &all[before];
            ensure!(filter == level, "{level}: {all:?}");
            Ok(*at)
        })?;
        took.push(at - written);
    }
    took.sort();
    Ok(took)
}

/// Nothing restarts: the pod is the same before and after.
// Claims: observability-18
#[test]
fn proxy_log_level_follows_annotation_of_live_pod() -> Outcome {
    let ns = Namespace::meshed("eyes-log")?;
    ns.run(&["web", "cart"])?;
    let (web, cart) = (ns.pod("web")?, ns.pod("cart")?);
    let logs = |pod: &str, word: &str| -> anyhow::Result<bool> {
        let log = ns.kubectl(&["logs", pod, "-c", "weft-proxy"])?;
        Ok(log.lines().any(|line| line.contains(word)))
    };
    let debug = "\"level\":\"DEBUG\"";
    for pod in [&web, &cart] {
        let before = logs(&pod.name, CHANGED)? || logs(&pod.name, debug)?;
        assert!(!before, "{} logs details before it was asked to", pod.name);
    }
    let took = followed(&ns, &web)?;
    println!("the log followed after {took:?}");
    assert!(took[LEVELS.len() / 2] <= FOLLOWS_WITHIN, "{took:?}");
    eventually(FOLLOWS, "the proxy logs details", || {
        web.report(&url("cart", 8080, "/"), &[])?;
        ensure!(logs(&web.name, debug)?, "nothing yet");
        Ok(())
    })?;
    assert!(!logs(&cart.name, CHANGED)?, "another proxy follows too");
    weft(&ns, &["log-level", &web.name, "-"])?.with_status(0)?;
    eventually(FOLLOWS, "the default holds again", || {
        ensure!(logs(&web.name, "\"filter\":\"info\"")?, "nothing yet");
        Ok(())
    })?;
    // The CLI refuses an unknown level before the write; written by other means it becomes an
    // Event.
    weft(&ns, &["log-level", &web.name, "loud"])?.with_status(2)?;
    ns.kubectl(&["annotate", "pod", &web.name, "weft.dev/log-level=loud"])?;
    eventually(SHOWN, "an Event reports it", || {
        let events = ns.kubectl(&["get", "events"])?;
        ensure!(events.contains("weft.dev/log-level"), "{events}");
        Ok(())
    })?;
    let now = ns.pod("web")?;
    assert_eq!((&now.name, now.restarts()), (&web.name, 0));
    Ok(())
}
