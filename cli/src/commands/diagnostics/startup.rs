//! Detects a controller that is starting up, unreachable or missing, and words the bundle's
//! message about it.

use std::convert::Infallible;
use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser as _;
use fake_api::FakeApi;
use flate2::read::GzDecoder;
use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::json;

use super::*;
use crate::args::Cli;

/// A cluster whose read API refuses each of its resources so often before it responds. `soon`: the
/// refusal has the seconds after which to retry.
fn refusing(code: u16, refusals: usize, soon: bool) -> Client {
    let api = FakeApi::default();
    api.put("/version", json!({"major": "1", "minor": "33"}));
    let api = api.client();
    let asked = [AtomicUsize::new(0), AtomicUsize::new(0)];
    Client::new(
        tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path();
            let observed = path.starts_with("/apis/observe.weft.dev/");
            let asked = &asked[usize::from(path.contains("/graphs/"))];
            let refused = observed && asked.fetch_add(1, Ordering::Relaxed) < refusals;
            let api = api.clone();
            async move {
                if !observed {
                    return Ok::<_, Infallible>(api.send(request).await.unwrap());
                }
                let details = json!({"retryAfterSeconds": usize::from(soon)});
                let (code, body) = match refused {
                    true => (
                        code,
                        json!({"kind": "Status", "status": "Failure", "code": code,
                        "message": "as it says itself", "details": details}),
                    ),
                    false => (200, json!({"items": []})),
                };
                let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
                *answer.status_mut() = StatusCode::from_u16(code).unwrap();
                Ok(answer)
            }
        }),
        "default",
    )
}

#[tokio::test(start_paused = true)]
async fn bundle_retries_starting_controllers_and_reports_absent_ones() {
    const EVER: usize = usize::MAX;
    for (code, refusals, soon, words) in [
        (503, 0, true, ""),
        (503, 2, true, ""),
        (429, 2, true, ""),
        (503, EVER, true, "as it says itself"),
        // A refusal without a time is not retried.
        (503, 1, false, "no controller of Weft answers"),
        (404, EVER, false, "observe.enabled is false"),
    ] {
        let global = Cli::try_parse_from(["weft", "version"]).unwrap().global;
        let cluster = Cluster::of(refusing(code, refusals, soon), &global);
        let (packed, _) = bundle(&cluster).await.unwrap();
        let mut text = Vec::new();
        GzDecoder::new(&*packed).read_to_end(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text);
        for (part, resource) in [("graph", "graphs"), ("proxies", "proxies")] {
            let is_in = text.contains(&format!("weft-diagnostics/mesh/{part}.json"));
            assert_eq!(is_in, words.is_empty(), "{code}, {refusals}: {part}");
            let why = format!("{resource} for mesh/{part}.json: ");
            let line = text.lines().find(|line| line.contains(&why));
            let names_reason = line.map(|line| line.contains(words));
            assert_eq!(
                names_reason,
                (!is_in).then_some(true),
                "{code}, {refusals}: {line:?}"
            );
        }
    }
}
