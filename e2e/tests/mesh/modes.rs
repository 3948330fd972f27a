//! Modes change while everything runs: no restart, no redeploy.

use anyhow::ensure;
use e2e::harness::{App, Namespace, Outcome, eventually};

use super::{SOON, url};

/// A meshed client and server, and a pod without a proxy.
fn beside_an_outsider(name: &str) -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed(name)?;
    for app in ["client", "server"] {
        ns.apply_all(&App::new(app).objects())?;
    }
    ns.apply_all(
        &App::new("outsider")
            .label("weft.dev/inject", "disabled")
            .objects(),
    )?;
    ns.ready(&["client", "server", "outsider"])?;
    Ok(ns)
}

// Claims: mesh-4b
#[test]
fn strict_refuses_plaintext_and_permissive_takes_it_again() -> Outcome {
    let ns = beside_an_outsider("strict")?;
    let (client, outsider, server) = (ns.pod("client")?, ns.pod("outsider")?, ns.pod("server")?);
    let target = url("server", 8080, "/");

    outsider.report(&target, &[])?;
    ns.annotate("weft.dev/mtls", Some("strict"))?;
    eventually(SOON, "plaintext is refused in strict", || {
        outsider.refused(&target, &[], 403, "no-identity")
    })?;
    client.report(&target, &[])?;
    // Opaque bytes have no answer to refuse with; the connection closes.
    let bytes = outsider.exec(&["tcp", "server:9000"]);
    assert!(bytes.is_err(), "bytes came through in strict: {bytes:?}");
    ns.annotate("weft.dev/mtls", None)?;
    eventually(SOON, "plaintext is taken in permissive", || {
        outsider.report(&target, &[])
    })?;
    assert_eq!(
        server.name,
        ns.pod("server")?.name,
        "the server was restarted"
    );
    assert_eq!(ns.pod("server")?.restarts(), 0);
    Ok(())
}

// Claims: R6, mesh-17
#[test]
fn meshed_pod_reads_other_proxys_metrics_in_strict() -> Outcome {
    let ns = beside_an_outsider("strict-scrape")?;
    let (client, outsider, server) = (ns.pod("client")?, ns.pod("outsider")?, ns.pod("server")?);
    ns.annotate("weft.dev/mtls", Some("strict"))?;
    for app in ["client", "server"] {
        eventually(SOON, "both proxies are strict", || {
            outsider.refused(&url(app, 8080, "/"), &[], 403, "no-identity")
        })?;
    }
    client.report(&url("server", 8080, "/"), &[])?;
    let page = format!("http://{}:15190/metrics", server.ip);
    let page = client.get(&page, &[])?.last;
    assert_eq!(page.status, 200, "{page:?}");
    let series = |line: &&str| line.starts_with("weft_");
    let series = page.body.lines().filter(series).count();
    assert!(series > 10, "{series} series: {}", page.body);
    Ok(())
}

// Claims: mesh-4a
#[test]
fn access_mode_switches_under_load_without_own_errors() -> Outcome {
    let ns = Namespace::meshed("access-mode")?;
    ns.run(&["client", "server"])?;
    let client = ns.pod("client")?;
    let target = url("server", 8080, "/");
    client.report(&target, &[])?;
    let load = client.start_load(&target, &["--rate", "50", "--duration", "30s", "-c", "4"])?;

    ns.annotate("weft.dev/access", Some("deny"))?;
    eventually(SOON, "deny refuses", || {
        client.refused(&target, &[], 403, "not-allowed")
    })?;
    ns.annotate("weft.dev/access", Some("audit"))?;
    eventually(SOON, "audit lets through", || client.report(&target, &[]))?;
    eventually(SOON, "audit counts what deny would have refused", || {
        let samples = ns.pod("server")?.proxy_metrics()?;
        let count = samples.sum("weft_audit_refusals_total", &[]);
        ensure!(
            count > 0.0,
            "it counts {count}; there is {:?}",
            samples.names()
        );
        Ok(())
    })?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    eventually(SOON, "deny refuses again", || {
        client.refused(&target, &[], 403, "not-allowed")
    })?;
    ns.annotate("weft.dev/access", Some("open"))?;
    eventually(SOON, "open lets through", || client.report(&target, &[]))?;

    let seen = load.finish()?;
    assert_eq!(seen.sent, seen.planned, "{seen:?}");
    assert!(seen.errors.is_empty(), "requests were lost: {seen:?}");
    let foreign: Vec<_> = seen
        .by_status
        .keys()
        .filter(|status| !["200", "403"].contains(&status.as_str()))
        .collect();
    assert!(
        foreign.is_empty(),
        "other answers than 200 and 403: {seen:?}"
    );
    assert!(
        seen.by_status.len() == 2,
        "the load must have seen both modes: {seen:?}"
    );
    assert_eq!(
        seen.by_reason.keys().collect::<Vec<_>>(),
        ["not-allowed"],
        "{seen:?}"
    );
    Ok(())
}

#[test]
fn pod_may_tighten_its_namespace_but_not_loosen_it() -> Outcome {
    let ns = Namespace::meshed("tighten")?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    ns.apply_all(
        &App::new("loose")
            .annotation("weft.dev/access", "open")
            .objects(),
    )?;
    ns.apply_all(&App::new("client").objects())?;
    let open = Namespace::meshed("tighten-open")?;
    open.annotate("weft.dev/access", Some("open"))?;
    open.apply_all(
        &App::new("tight")
            .annotation("weft.dev/access", "deny")
            .objects(),
    )?;
    ns.ready(&["loose", "client"])?;
    open.ready(&["tight"])?;
    let client = ns.pod("client")?;
    for target in [
        url("loose", 8080, "/"),
        url(&format!("tight.{}", open.name), 8080, "/"),
    ] {
        eventually(SOON, "the tighter mode holds", || {
            client.refused(&target, &[], 403, "not-allowed")
        })?;
    }
    Ok(())
}
