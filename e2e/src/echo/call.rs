//! The interface of the SMI conformance application: a caller that reports the
//! results of its calls, so that a harness outside the mesh can evaluate them.
//!
//! `POST /call` makes a request, `/echo` returns the raw request, `/metrics`
//! lists the callers and the results of own calls. Beyond the original, `POST
//! /proxy` makes the same call and returns status, headers and body as JSON,
//! calls without a response are listed too, and `/requests` lists what reached
//! the HTTP port, see [`request_log`].

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::Context as _;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::{Request, Response, body::Incoming};
use serde::{Deserialize, Serialize};

use super::{
    app::App,
    client::{Ask, Client, NoAnswer, WholeResponse},
    request_log,
    response::{self, Body},
    seen::Call,
};

const BODY_LIMIT: usize = 1 << 20;
/// What an application passes on that takes part in traces.
const OF_TRACES: [&str; 9] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
];

/// The JSON body of `POST /call` and `POST /proxy`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub url: String,
    pub method: String,
    #[serde(default)]
    pub body: String,
    #[serde(default)]
    pub headers: Option<BTreeMap<String, String>>,
}

impl Order {
    /// The JSON body that orders this, with the headers of the one that gets it.
    pub fn written(url: String, method: &str, body: String) -> anyhow::Result<String> {
        Ok(serde_json::to_string(&Self {
            url,
            method: method.to_owned(),
            body,
            headers: None,
        })?)
    }
}

/// The JSON answer of `POST /proxy`. `status` 0 means that there was no answer
/// and `error` says why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyResponse {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// Answers one request of the conformance ports.
pub async fn answer(app: &App, request: Request<Incoming>) -> Response<Body> {
    match (request.method().clone(), request.uri().path()) {
        (Method::POST, "/call") => {
            app.calls.received(&request);
            match perform(app, request).await {
                Ok(Ok(answer)) => response::text(StatusCode::OK, answer.body),
                Ok(Err(none)) => response::text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("{:#}\n", none.detail),
                ),
                Err(error) => response::text(StatusCode::BAD_REQUEST, format!("{error:#}\n")),
            }
        }
        (Method::POST, "/proxy") => match perform(app, request).await {
            Ok(Ok(answer)) => response::json(StatusCode::OK, &ProxyResponse::from(answer)),
            Ok(Err(none)) => response::json(
                StatusCode::OK,
                &ProxyResponse {
                    error: format!("{:#}", none.detail),
                    ..ProxyResponse::default()
                },
            ),
            Err(error) => response::text(StatusCode::BAD_REQUEST, format!("{error:#}\n")),
        },
        (_, "/echo") => {
            app.calls.received(&request);
            raw(request).await
        }
        (Method::GET, "/metrics") => response::json(StatusCode::OK, &app.calls.seen()),
        (Method::DELETE, "/metrics") => {
            app.calls.clear();
            response::text(StatusCode::OK, "")
        }
        (Method::GET, request_log::PATH) => {
            let query = request.uri().query();
            let only = query.and_then(|query| query.strip_prefix("only="));
            let records = app.requests.snapshot(only.unwrap_or_default());
            response::json(StatusCode::OK, &records)
        }
        (Method::DELETE, request_log::PATH) => {
            app.requests.clear();
            response::text(StatusCode::OK, "")
        }
        (_, "/metrics" | request_log::PATH) => response::text(StatusCode::BAD_REQUEST, ""),
        _ => response::text(StatusCode::NOT_FOUND, ""),
    }
}

async fn perform(
    app: &App,
    request: Request<Incoming>,
) -> anyhow::Result<Result<WholeResponse, NoAnswer>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_LIMIT)
        .collect()
        .await
        .map_err(anyhow::Error::from_boxed)?;
    let order: Order = serde_json::from_slice(&body.to_bytes())
        .context("the body must be {url, method, body, headers}")?;
    let mut ask = Ask::get(&order.url)?;
    ask.method = order
        .method
        .parse()
        .with_context(|| format!("method {}", order.method))?;
    ask.body = order.body.clone().into();
    let wanted = order.headers.unwrap_or_default();
    for (name, value) in &wanted {
        ask.headers
            .append(http::HeaderName::try_from(name)?, value.parse()?);
    }
    for name in OF_TRACES {
        if !ask.headers.contains_key(name) {
            for value in head.headers.get_all(name) {
                ask.headers.append(name, value.clone());
            }
        }
    }
    ask.headers
        .insert("servicename", app.settings.service.parse()?);
    let outcome = Client::new(ask).send().await;
    app.calls.made(
        Call {
            url: order.url,
            method: order.method,
            headers: wanted,
        },
        outcome.as_ref().ok(),
    );
    Ok(outcome)
}

/// The request as text, as the original's `httputil.DumpRequest` gives it.
async fn raw(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut dump = format!("{} {} {:?}\r\n", head.method, head.uri, head.version);
    for (name, value) in response::headers(&head.headers) {
        // Writing to a String cannot fail.
        let _ = write!(dump, "{name}: {value}\r\n");
    }
    dump.push_str("\r\n");
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => {
            dump.push_str(&String::from_utf8_lossy(&body.to_bytes()));
            response::text(StatusCode::OK, dump)
        }
        Err(error) => response::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

impl From<WholeResponse> for ProxyResponse {
    fn from(answer: WholeResponse) -> Self {
        Self {
            status: answer.status.as_u16(),
            headers: response::headers(&answer.headers),
            body: String::from_utf8_lossy(&answer.body).into_owned(),
            error: String::new(),
        }
    }
}
