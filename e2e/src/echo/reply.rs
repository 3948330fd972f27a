//! The response of the main HTTP port: a report of the request, changed by its query
//! (`?delay=200ms&status=503&size=10240&header=name:value`) and by the failure that is
//! set, see [`fault`].
//!
//! With `NEXT` the same request goes to the next service first, after the delay. Its status
//! becomes the response's, and the report names it and those behind it. With `WITNESS` each
//! request is reported to the witness before its body is read.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures::stream;
use http::{HeaderName, HeaderValue, Method, StatusCode, request::Parts};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    Request, Response,
    body::{Body as _, Bytes, Frame, Incoming},
};
use serde::{Deserialize, Serialize};

use super::{
    app::App,
    duration, fault, grpc, next, posted,
    response::{Body, headers, json, text},
    websocket,
};

/// Tests send 200 MB; a typing error must not ask for a terabyte.
const SIZE_LIMIT: u64 = 1 << 30;
/// Longer than any test waits.
const DELAY_LIMIT: Duration = Duration::from_secs(300);
/// One frame of a sized answer.
const CHUNK: usize = 16 * 1024;

/// The JSON answer of the main port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub pod: String,
    pub version: String,
    pub method: String,
    pub path: String,
    pub query: String,
    pub protocol: String,
    /// The identity that the mesh verified, from header `weft-client-id`.
    pub client_id: Option<String>,
    /// Address of the connection's other end.
    pub peer: String,
    /// All request headers; several values of one name are joined with `, `.
    pub headers: BTreeMap<String, String>,
    /// Length of the request's body in bytes.
    pub body_bytes: u64,
    /// Pods that were called for this one's response, the next one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<String>,
}

/// What the next one answered.
#[derive(Debug)]
struct Passed {
    status: StatusCode,
    hops: Vec<String>,
}

/// The changes of the response that the query requests.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wishes {
    delay: Duration,
    status: StatusCode,
    size: Option<u64>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Answers one request of the main port.
pub async fn answer(app: &App, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let arrived = app.requests.begins(&request);
    let (head, body) = request.into_parts();
    let notified = notify_witness(app, &head).await;
    let request = Request::from_parts(head, body);
    let mut response = if let Err(error) = notified {
        let why = format!("the WITNESS was not notified: {error:#}\n");
        text(StatusCode::BAD_GATEWAY, why)
    } else if grpc::is_grpc(&request) {
        let wrong = app.fault.of(request.uri().path(), Instant::now());
        grpc::answer(app.next.as_ref(), wrong, request).await
    } else if request.uri().path() == "/ws" && websocket::is_handshake(&request) {
        websocket::answer(request)
    } else if request.uri().path() == fault::PATH && request.method() == Method::POST {
        set_fault(app, request).await
    } else if request.uri().path() == posted::PATH {
        app.posted.answer(request).await
    } else {
        report(app, peer, request).await
    };
    let settings = &app.settings;
    for (name, value) in [
        ("echo-pod", &settings.pod),
        ("echo-version", &settings.version),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    arrived.answered(response.status());
    response
}

/// The witness is notified at the head, so also of a request whose body stays incomplete.
async fn notify_witness(app: &App, head: &Parts) -> anyhow::Result<()> {
    let Some(witness) = &app.witness else {
        return Ok(());
    };
    let answer = witness.ask(head, Bytes::new()).await?;
    ensure!(answer.status.is_success(), "it answered {}", answer.status);
    Ok(())
}

async fn set_fault(app: &App, request: Request<Incoming>) -> Response<Body> {
    let order = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return text(
                StatusCode::BAD_REQUEST,
                format!("the body broke off: {error}\n"),
            );
        }
    };
    match app.fault.set(&order, Instant::now()) {
        Ok(()) => text(StatusCode::OK, "fault set\n"),
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error:#}\n")),
    }
}

async fn report(app: &App, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let wishes = match Wishes::parse(&query) {
        Ok(wishes) => wishes,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error:#}\n")),
    };
    let (head, body) = request.into_parts();
    let keep = app.next.as_ref().map_or(0, |_| next::LONGEST);
    let (body, body_bytes) = match read(body, keep).await {
        Ok(read) => read,
        Err(error) => {
            return text(
                StatusCode::BAD_REQUEST,
                format!("the body broke off: {error}\n"),
            );
        }
    };
    let wrong = app.fault.of(head.uri.path(), Instant::now());
    let late = wrong.map_or(Duration::ZERO, |wrong| wrong.delay);
    tokio::time::sleep(app.settings.delay + wishes.delay + late).await;

    let (answered, hops) = match pass_on(app, &head, body, body_bytes).await {
        Ok(Some(passed)) => (passed.status, passed.hops),
        Ok(None) => (wishes.status, Vec::new()),
        Err((status, why)) => return text(status, why),
    };
    let mut response = match wishes.size {
        Some(size) if app.next.is_none() => sized(size),
        _ => json(
            StatusCode::OK,
            &Report {
                pod: app.settings.pod.clone(),
                version: app.settings.version.clone(),
                method: head.method.to_string(),
                path: head.uri.path().to_owned(),
                query,
                protocol: format!("{:?}", head.version),
                client_id: head
                    .headers
                    .get("weft-client-id")
                    .map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned()),
                peer: peer.to_string(),
                headers: headers(&head.headers),
                body_bytes,
                hops,
            },
        ),
    };
    let wrong = wrong.and_then(|wrong| wrong.status);
    *response.status_mut() = match wrong {
        Some(status) => status,
        None if app.fails() => app.settings.fail_status,
        None => answered,
    };
    for (name, value) in wishes.headers {
        response.headers_mut().append(name, value);
    }
    response
}

/// All of a body: so much of it as is to be kept, and how long it is.
async fn read(mut body: Incoming, keep: usize) -> Result<(Bytes, u64), hyper::Error> {
    let (mut kept, mut bytes) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes += data.len() as u64;
            let room = keep.saturating_sub(kept.len()).min(data.len());
            kept.extend_from_slice(data.get(..room).unwrap_or_default());
        }
    }
    debug_assert!(
        body.is_end_stream(),
        "the loop above must have read all of it"
    );
    Ok((kept.into(), bytes))
}

/// The response of the next service, where there is one; else why the call failed.
async fn pass_on(
    app: &App,
    head: &Parts,
    body: Bytes,
    body_bytes: u64,
) -> Result<Option<Passed>, (StatusCode, String)> {
    let Some(next) = &app.next else {
        return Ok(None);
    };
    if body_bytes > next::LONGEST as u64 {
        let why = format!("no body of {body_bytes} bytes is passed on\n");
        return Err((StatusCode::PAYLOAD_TOO_LARGE, why));
    }
    match next.ask(head, body).await {
        Ok(answer) => Ok(Some(Passed {
            status: answer.status,
            hops: hops(&answer.body),
        })),
        Err(error) => {
            let why = format!("NEXT did not answer: {error:#}\n");
            Err((StatusCode::BAD_GATEWAY, why))
        }
    }
}

/// The pod that answered, if it runs this program, and the pods that it called.
fn hops(answer: &[u8]) -> Vec<String> {
    let Ok(report) = serde_json::from_slice::<Report>(answer) else {
        return Vec::new();
    };
    let mut hops = vec![report.pod];
    hops.extend(report.hops);
    hops
}

/// `size` bytes of `x`, made while they are sent.
fn sized(size: u64) -> Response<Body> {
    static FILL: [u8; CHUNK] = [b'x'; CHUNK];
    let chunks = stream::unfold(size, |left| async move {
        let take = left.min(CHUNK as u64);
        let data = FILL.get(..take as usize).filter(|data| !data.is_empty())?;
        Some((Ok(Frame::data(Bytes::from_static(data))), left - take))
    });
    let mut response = Response::new(StreamBody::new(chunks).boxed_unsync());
    response
        .headers_mut()
        .insert(http::header::CONTENT_LENGTH, HeaderValue::from(size));
    response
}

impl Wishes {
    fn parse(query: &str) -> anyhow::Result<Self> {
        let mut wishes = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "delay" => wishes.delay = duration::parse(value)?.min(DELAY_LIMIT),
                "status" => {
                    wishes.status = value.parse().with_context(|| format!("status={value}"))?
                }
                "size" => {
                    let size: u64 = value.parse().with_context(|| format!("size={value}"))?;
                    ensure!(size <= SIZE_LIMIT, "size={size} is over {SIZE_LIMIT}");
                    wishes.size = Some(size);
                }
                "header" => {
                    let (name, value) = value.split_once(':').context("header needs name:value")?;
                    wishes.headers.push((name.parse()?, value.parse()?));
                }
                // Other parameters belong to tests of paths and queries.
                _ => {}
            }
        }
        Ok(wishes)
    }
}
