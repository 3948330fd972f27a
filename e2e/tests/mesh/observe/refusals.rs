//! Explanations of refused calls: the printed fix lets that call pass and no other.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{Namespace, Outcome, Pod, eventually};
use serde_json::Value;

use super::super::url;
use super::{SHOWN, edge, graph, weft};

/// A change takes effect within 2 s; kubectl's own time and a busy machine come on top.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(30);
/// A connection of bytes that is answered.
const BYTES: [&str; 2] = ["tcp", "cart:9000"];

fn passes(pod: &Pod, method: &str, path: &str) -> anyhow::Result<()> {
    let url = url("cart", 8080, path);
    pod.report(&url, &["-X", method]).map(drop)
}

fn refused(pod: &Pod, method: &str, path: &str) -> anyhow::Result<()> {
    pod.refused(
        &url("cart", 8080, path),
        &["-X", method],
        403,
        "not-allowed",
    )
}

/// A shop in which `web` may read the cart, and `other` may nothing.
fn shop(claim: &str) -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed(claim)?;
    ns.run(&["web", "other", "cart"])?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    ns.apply(
        "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\n\
         metadata: {name: cart}\nspec: {matches: [{name: read, methods: [GET]}]}\n---\n\
         apiVersion: access.smi-spec.io/v1alpha4\nkind: TrafficTarget\n\
         metadata: {name: cart-read}\nspec:\n  \
         destination: {kind: ServiceAccount, name: cart, namespace: $NS}\n  \
         rules: [{kind: HTTPRouteGroup, name: cart, matches: [read]}]\n  \
         sources: [{kind: ServiceAccount, name: web, namespace: $NS}]\n",
    )?;
    let web = ns.pod("web")?;
    eventually(IN_FORCE_WITHIN, "the rule holds", || {
        passes(&web, "GET", "/items/7")?;
        refused(&web, "DELETE", "/items/7")
    })?;
    Ok(ns)
}

// Claims: observability-6
#[test]
fn explained_fix_allows_refused_call_and_no_neighbour() -> Outcome {
    let ns = shop("eyes-fix")?;
    let (web, other) = (ns.pod("web")?, ns.pod("other")?);
    let args = [
        "explain",
        "deploy/web",
        "svc/cart:8080",
        "DELETE",
        "/items/7",
    ];
    // Any replica answers, and not only the one by whose word the proxies refuse already.
    eventually(IN_FORCE_WITHIN, "both calls are explained", || {
        let output = weft(&ns, &args)?.with_status(1)?;
        let first = output.out.lines().next().unwrap_or_default();
        ensure!(
            first == "REFUSED 403 not-allowed, by the proxies of cart",
            "{}",
            output.out
        );
        for word in ["cart-read", "DELETE", "-o fix", "of 1 proxies have it"] {
            ensure!(output.out.contains(word), "no {word} in\n{}", output.out);
        }
        let read = ["explain", "deploy/web", "svc/cart:8080", "GET", "/items/7"];
        let read = weft(&ns, &read)?.with_status(0)?;
        ensure!(read.out.starts_with("ALLOWED"), "{}", read.out);
        Ok(())
    })?;

    // What was refused shows on the edge and in the explanation.
    eventually(SHOWN, "the refusals are counted", || {
        let found = edge(&ns, &graph(&ns)?, "web", "cart")?;
        ensure!(
            found["refused"]["not-allowed"].as_u64() >= Some(1),
            "{found:#}"
        );
        let json = weft(&ns, &[&args[..], &["-o", "json"]].concat())?.json()?;
        let seen = json["status"]["seen"]["refused"]["not-allowed"].as_u64();
        ensure!(seen >= Some(1), "{json:#}");
        Ok(())
    })?;

    let fix = weft(&ns, &[&args[..], &["-o", "fix"]].concat())?.with_status(0)?;
    ns.apply(&fix.out)?;
    eventually(IN_FORCE_WITHIN, "the call passes", || {
        passes(&web, "DELETE", "/items/7")
    })?;
    passes(&web, "GET", "/items/7")?;
    for (pod, method, path) in [
        (&web, "DELETE", "/items/70"),
        (&web, "DELETE", "/items/7/x"),
        (&web, "DELETE", "/items"),
        (&web, "POST", "/items/7"),
        (&other, "DELETE", "/items/7"),
    ] {
        refused(pod, method, path).with_context(|| format!("{} {method} {path}", pod.name))?;
    }
    eventually(IN_FORCE_WITHIN, "the explanation follows", || {
        let now = weft(&ns, &args)?.with_status(0)?;
        ensure!(now.out.starts_with("ALLOWED"), "{}", now.out);
        Ok(())
    })?;
    Ok(())
}

// Claims: observability-6
#[test]
fn explanations_agree_with_what_becomes_of_the_calls() -> Outcome {
    let ns = shop("eyes-agree")?;
    for (from, method, path) in [
        ("web", "GET", "/"),
        ("web", "GET", "/items/7"),
        ("web", "POST", "/"),
        ("web", "PUT", "/items/7"),
        ("other", "GET", "/"),
        ("other", "DELETE", "/items"),
    ] {
        let pod = ns.pod(from)?;
        let real = pod.get(&url("cart", 8080, path), &["-X", method])?.last;
        let real = (real.status, real.headers.get("weft-reason").cloned());
        let from = format!("deploy/{from}");
        // By any replica, which may receive the rule a moment after the proxies do.
        eventually(IN_FORCE_WITHIN, "the explanation agrees", || {
            let args = ["explain", &from, "svc/cart:8080", method, path];
            let json = weft(&ns, &[&args[..], &["-o", "json"]].concat())?.json()?;
            let status = &json["status"];
            let verdict = match status["verdict"].as_str() {
                Some("Allowed") => (200, None),
                _ => (
                    u16::try_from(status["httpStatus"].as_u64().unwrap_or_default())?,
                    status["reason"].as_str().map(str::to_owned),
                ),
            };
            ensure!(
                verdict == real,
                "{from} {method} {path}: {real:?} is explained as {json:#}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

/// A call of gRPC to the port of the HTTP calls, and a line of bytes to another one.
fn grpc_and_bytes_pass(pod: &Pod) -> anyhow::Result<()> {
    let seen = pod.grpc(&["cart:8080"])?;
    ensure!(seen.grpc_status.as_deref() == Some("0"), "{seen:?}");
    pod.exec(&BYTES).map(drop)
}

/// Calls of gRPC and bytes have a caller of their own: the rule for the HTTP calls must not be
/// what lets them pass.
// Claims: observability-15, observe-18
#[test]
fn suggested_targets_allow_served_calls_and_stay_valid() -> Outcome {
    let ns = Namespace::meshed("eyes-suggest")?;
    ns.run(&["web", "feed", "other", "cart"])?;
    let (web, feed, other) = (ns.pod("web")?, ns.pod("feed")?, ns.pod("other")?);
    web.report(&url("cart", 8080, "/"), &[])?;
    grpc_and_bytes_pass(&feed)?;
    let suggested = eventually(SHOWN, "the calls are suggested", || {
        let output = weft(&ns, &["suggest", "--to", "deploy/cart"])?.with_status(0)?;
        // Sources, and a route that has its ports in its name.
        for part in ["name: web\n", "name: feed\n", "name: cart-8080-9000-"] {
            ensure!(output.out.contains(part), "no {part:?}: {output:?}");
        }
        Ok(output.out)
    })?;
    ns.apply(&suggested)?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    eventually(IN_FORCE_WITHIN, "what was never seen is refused", || {
        refused(&other, "GET", "/")?;
        let seen = other.grpc(&["cart:8080"])?;
        ensure!(seen.grpc_status.as_deref() == Some("7"), "{seen:?}");
        // Who may call one port may not call the other one.
        for pod in [&other, &web] {
            let answer = pod.exec(&BYTES);
            ensure!(answer.is_err(), "{} was answered {answer:?}", pod.name);
        }
        Ok(())
    })?;
    eventually(IN_FORCE_WITHIN, "what was seen passes", || {
        passes(&web, "GET", "/")?;
        grpc_and_bytes_pass(&feed)
    })?;
    let targets: Value = ns.json(&["get", "traffictargets"])?;
    assert!(!targets["items"].as_array().context("no list")?.is_empty());
    Ok(())
}
