//! Values that no proxy reports, and parts of the mesh that do not respond.
//!
//! Claims: observe-15, observe-30

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{WELL, Webhooks, checked, checked_by, client, healthy, plant_proxy, with};
use crate::failure::{Conclusion, Failure};

#[tokio::test]
async fn field_missing_from_all_proxies_skips_its_check() {
    for (field, id) in [
        ("certificate", "certificates"),
        ("clockAheadMs", "proxy-clocks"),
    ] {
        let api = healthy();
        plant_proxy(&api, field, Value::Null);
        let (ended, report, _) = checked(&api, WELL, &[]).await;
        assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
        assert_eq!(with(&report, &["skipped"]), [id], "{report:#}");
    }
}

#[tokio::test]
async fn available_but_unresponsive_api_service_is_error() {
    let webhooks = Webhooks {
        observes: false,
        ..WELL
    };
    let (ended, report, _) = checked(&healthy(), webhooks, &[]).await;
    assert_eq!(ended.unwrap(), Conclusion::No, "{report:#}");
    assert_eq!(with(&report, &["error"]), ["api-services"], "{report:#}");
}

#[tokio::test(start_paused = true)]
async fn check_without_any_permission_is_unknown_not_success() {
    let webhooks = Webhooks {
        sees: false,
        ..WELL
    };
    let lines: [&[&str]; 3] = [&[], &["--wait", "2m"], &["--fail-on", "warning"]];
    for more in lines {
        let started = Instant::now();
        let (ended, report, _) = checked(&healthy(), webhooks, more).await;
        let Err(Failure::Unknown(words)) = ended else {
            panic!("{ended:?}: {report:#}");
        };
        assert!(words.contains("every check of it was skipped"), "{words}");
        assert_eq!(report["success"], false, "{report:#}");
        let results = with(&report, &["ok", "warning", "error"]);
        assert_eq!(results, ["kubernetes-version", "clocks"], "{report:#}");
        assert_eq!(started.elapsed().as_secs(), 0);
    }
}

#[tokio::test]
async fn what_was_not_read_is_not_called_well() {
    let page = json!({"items": vec![super::pod(); 500], "metadata": {"continue": "x"}});
    let page = page.to_string();
    let well = client(&healthy(), WELL);
    let endless = Client::new(
        tower::service_fn(move |request: Request<Body>| {
            let (well, page) = (well.clone(), page.clone());
            async move {
                let is_of_pods = request.uri().path() == "/api/v1/pods";
                Ok::<_, Infallible>(match is_of_pods {
                    true => Response::new(Body::from(page.into_bytes())),
                    false => well.send(request).await.unwrap(),
                })
            }
        }),
        "default",
    );
    let (ended, report, table) = checked_by(endless, &[]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    let skipped = with(&report, &["skipped"]);
    assert!(
        skipped.contains(&"pods-without-proxy".to_owned()),
        "{report:#}"
    );
    assert!(!skipped.contains(&"connected".to_owned()), "{report:#}");
    let words = "all pods that requested one have one, of the first 20000 pods; more were not read";
    assert!(table.contains(words), "{table}");
}

/// A healthy mesh whose proxies are not listed before so long is over: there is no room for it.
fn throttled(seconds: u64) -> Client {
    let well = client(&healthy(), WELL);
    let until = Instant::now() + Duration::from_secs(seconds);
    Client::new(
        tower::service_fn(move |request: Request<Body>| {
            let well = well.clone();
            async move {
                let of_proxies = request.uri().path() == "/apis/observe.weft.dev/v1alpha1/proxies";
                if !of_proxies || Instant::now() >= until {
                    return Ok::<_, Infallible>(well.send(request).await.unwrap());
                }
                let status = json!({"kind": "Status", "status": "Failure", "code": 429,
                    "message": "no room for the answer", "details": {"retryAfterSeconds": 1}});
                let mut refused = Response::new(Body::from(status.to_string().into_bytes()));
                *refused.status_mut() = StatusCode::TOO_MANY_REQUESTS;
                Ok(refused)
            }
        }),
        "default",
    )
}

#[tokio::test(start_paused = true)]
async fn throttled_list_is_retried_and_never_ignored() {
    let (at_once, soon, later): (&[&str], &[&str], &[&str]) =
        (&[], &["--wait", "20s"], &["--wait", "2m"]);
    for (seconds, more) in [(3_600, at_once), (3_600, soon)] {
        let (ended, report, _) = checked_by(throttled(seconds), more).await;
        let Err(Failure::Unknown(words)) = ended else {
            panic!("{ended:?}: {report:#}");
        };
        assert!(words.contains("no room for the answer"), "{words}");
        assert_eq!(report["success"], false, "{report:#}");
        let skipped = with(&report, &["skipped"]);
        assert!(skipped.contains(&"connected".to_owned()), "{report:#}");
        assert_eq!(with(&report, &["error"]), [""; 0], "{report:#}");
    }
    // Control: what passes in a moment, and within the time that is waited, is well.
    for (seconds, more) in [(2, at_once), (20, later)] {
        let (ended, report, _) = checked_by(throttled(seconds), more).await;
        assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
        assert_eq!(with(&report, &["skipped"]), [""; 0], "{report:#}");
    }
}
