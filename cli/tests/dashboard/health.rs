//! The health page for a mesh that is well, and for one that is not.
//!
//! Claims: observe-74

use policy::reason::Reason;
use serde_json::{Value, json};

use crate::Shown;
use crate::shop;

/// Until the row of this name has this result.
async fn shows_result(shown: &mut Shown, name: &str, result: &str) {
    let row = format!(
        "[...document.querySelectorAll('tbody tr')].find((row) => row.cells[0].textContent === '{name}')"
    );
    let wanted = format!("{row}?.cells[1].textContent.trim() === '{result}'");
    shown.browser.wait(&wanted).await;
}

#[tokio::test]
async fn unsettled_window_is_healthy_and_lossy_window_is_not() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.page("Health").await;
    shows_result(&mut shown, "Numbers are complete", "✓ well").await;
    let known = shown.browser.text("footer").await;
    assert!(
        known.contains("Known at") && !known.contains("not complete"),
        "{known}"
    );
    let mut graph = shop::shop(60);
    graph["metadata"]["unsettled"] = json!(false);
    graph["metadata"]["incomplete"] = json!("some of what was counted had no room");
    shown.mesh.graph(&graph);
    shows_result(&mut shown, "Numbers are complete", "✗ problem").await;
    shown.browser.see("had no room").await;
    let known = shown.browser.text("footer").await;
    assert!(known.contains("; not complete"), "{known}");
    // An older controller reports it only by this text.
    graph["metadata"]["incomplete"] = json!("reports of the last seconds may still come");
    shown.mesh.graph(&graph);
    shows_result(&mut shown, "Numbers are complete", "✓ well").await;
}

#[tokio::test]
async fn workload_that_asked_for_no_proxy_is_well_without() {
    let mut graph = shop::shop(60);
    let name = "Workloads are in the mesh";
    let mut shown = Shown::of(&graph).await;
    shown.page("Health").await;
    // An older controller does not report the caller.
    shows_result(&mut shown, name, "✗ problem").await;
    for node in graph["nodes"].as_array_mut().unwrap() {
        node["withoutProxy"] = json!(0);
    }
    shown.mesh.graph(&graph);
    shows_result(&mut shown, name, "✓ well").await;
    graph["nodes"][4]["withoutProxy"] = json!(1);
    shown.mesh.graph(&graph);
    shows_result(&mut shown, name, "✗ problem").await;
    shown.browser.see("shop/payments: 1 of 2 pods").await;
}

/// Adds Service `name`, of which all calls are refused for this reason.
fn refuse_all(graph: &mut Value, name: &str, reason: &str) {
    let id = format!("shop/Service/{name}");
    let mut refused = graph["edges"][3].clone();
    refused["id"] = json!(name);
    refused["to"] = json!(id);
    refused["service"] = json!(format!("shop/{name}"));
    refused["refused"] = json!({reason: 37});
    let service = json!({"id": id, "kind": "Service", "namespace": "shop", "name": name});
    graph["nodes"].as_array_mut().unwrap().push(service);
    graph["edges"].as_array_mut().unwrap().push(refused);
}

/// Until the node of this kind and name has this health.
async fn shows_health(shown: &mut Shown, name: &str, health: &str) {
    let node = format!(
        "[...document.querySelectorAll('.node.{health}')].some((node) => node.querySelector('title').textContent.startsWith('{name} '))"
    );
    shown.browser.wait(&node).await;
}

/// A reason that is new is no policy's until it is listed on the page, and stands here.
#[tokio::test]
async fn refusals_by_policy_alone_are_excused() {
    let mut graph = shop::shop(60);
    for reason in Reason::ALL {
        refuse_all(&mut graph, reason.as_str(), reason.as_str());
    }
    let mut shown = Shown::of(&graph).await;
    for reason in Reason::ALL {
        let health = match reason {
            Reason::NotAllowed
            | Reason::NoIdentity
            | Reason::Limit
            | Reason::ShadowWrite
            | Reason::EgressDenied
            | Reason::Revoked => "ok",
            // If mutual TLS is strict and no controller responds: others may be called.
            Reason::UnknownDestination
            | Reason::NoBackend
            | Reason::NoEndpoint
            | Reason::ConnectFailed
            | Reason::ConnectionLost
            | Reason::TlsFailed
            | Reason::NoConfiguration
            | Reason::BadRequest
            | Reason::Deadline
            | Reason::Overload
            | Reason::CircuitOpen
            | Reason::NoRoute
            | Reason::InvalidBackend
            | Reason::InvalidRoute
            | Reason::Misdirected => "bad",
        };
        shows_health(&mut shown, &format!("Service {}", reason.as_str()), health).await;
    }
}

/// Calls of a Service without endpoints are refused by the mesh as well, and not by a policy.
#[tokio::test]
async fn outage_looks_like_one_and_a_denial_does_not() {
    let mut graph = shop::shop(60);
    refuse_all(&mut graph, "ledger", "no-endpoint");
    let mut shown = Shown::of(&graph).await;
    shows_health(&mut shown, "Service ledger", "bad").await;
    shows_health(&mut shown, "Deployment payments", "ok").await;
    assert_eq!(shown.browser.count(".way.bad").await, 1);
    assert_eq!(shown.browser.count(".way.refused").await, 1);
    shown.page("Health").await;
    shows_result(&mut shown, "Calls succeed", "✗ problem").await;
    shown
        .browser
        .see("shop/ledger: 100 % of 37 calls fail")
        .await;
    graph["edges"][7]["refused"] = json!({"not-allowed": 37});
    shown.mesh.graph(&graph);
    shows_result(&mut shown, "Calls succeed", "✓ well").await;
}

#[tokio::test]
async fn unacknowledged_version_is_fault_only_after_one_minute() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.page("Health").await;
    let name = "Proxies have acknowledged what concerns them";
    let mut proxy = shop::proxy("web-5d8", true);
    proxy["status"]["acknowledged"] = json!(3);
    proxy["status"]["behindSeconds"] = json!(5);
    shown.mesh.proxy(&proxy);
    shown
        .browser
        .see("something is on its way to shop/web-5d8")
        .await;
    shows_result(&mut shown, name, "✓ well").await;
    proxy["status"]["behindSeconds"] = json!(61);
    shown.mesh.proxy(&proxy);
    shows_result(&mut shown, name, "✗ problem").await;
    // An older controller does not report for how long.
    proxy["status"]["acknowledged"] = json!(4);
    shown.mesh.proxy(&proxy);
    shows_result(&mut shown, name, "✓ well").await;
    proxy["status"]["acknowledged"] = json!(3);
    proxy["status"]["behindSeconds"] = json!(null);
    shown.mesh.proxy(&proxy);
    shows_result(&mut shown, name, "✗ problem").await;
}

#[tokio::test]
async fn revoked_proxy_is_named_and_no_fault() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    let mut proxy = shop::proxy("gone-1", false);
    shown.mesh.proxy(&proxy);
    shown.page("Health").await;
    let name = "Proxies are connected";
    shows_result(&mut shown, name, "✗ problem").await;
    proxy["status"]["revokedBy"] = json!("leak");
    shown.mesh.proxy(&proxy);
    shows_result(&mut shown, name, "✓ well").await;
    shown.browser.see(", and 1 revoked").await;
    shown.page("Proxies").await;
    let row = "[...document.querySelectorAll('tbody tr')].find((row) => row.cells[0].textContent === 'shop/gone-1')";
    let wanted = format!("{row}?.cells[3].textContent.trim() === 'revoked'");
    shown.browser.wait(&wanted).await;
}

#[tokio::test]
async fn certificates_are_late_by_the_life_that_they_have() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    shown.page("Health").await;
    let mut proxy = shop::proxy("web-5d8", true);
    // The graph's window ends at 09:00.
    for (issued, ends, result) in [
        ("08:47", "09:02", "✗ problem"),
        ("08:53", "09:08", "✓ well"),
        ("01:00", "10:00", "✗ problem"),
        ("08:59", "10:00", "✓ well"),
    ] {
        let at = |time: &str| json!(format!("2026-11-02T{time}:00Z"));
        proxy["status"]["certificate"]["issued"] = at(issued);
        proxy["status"]["certificate"]["notAfter"] = at(ends);
        shown.mesh.proxy(&proxy);
        shows_result(&mut shown, "Certificates last", result).await;
    }
    // An older proxy does not report when its own began: with leafTtl 15m it has less than ten
    // minutes left for most of its life, and renews when six are.
    proxy["status"]["certificate"]["issued"] = json!(null);
    for (ttl, ends, result) in [
        (json!(900), "09:02", "✗ problem"),
        (json!(900), "09:05", "✓ well"),
        (json!(86_400), "09:08", "✗ problem"),
        (json!(86_400), "09:12", "✓ well"),
        // An older controller reports neither.
        (json!(null), "09:05", "✗ problem"),
        (json!(null), "09:12", "✓ well"),
    ] {
        proxy["status"]["certificate"]["ttlSeconds"] = ttl;
        proxy["status"]["certificate"]["notAfter"] = json!(format!("2026-11-02T{ends}:00Z"));
        shown.mesh.proxy(&proxy);
        shows_result(&mut shown, "Certificates last", result).await;
    }
}
