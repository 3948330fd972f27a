//! Fields that HTTP/2 forbids. If one was forwarded, an application that ends its connection for
//! it would end the calls of every caller on that connection, and a caller's connection would end
//! because of a response.
//!
//! Claims: attack-16

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use wire::v1::Protocol;

use super::two_pods::{ENTRY_POINTS, EntryPoint, TwoPods, serving};

const PATIENCE: Duration = Duration::from_secs(5);
/// The victim's call lasts longer than any other here.
const SLOW: Duration = Duration::from_secs(1);

/// Values as they came, of `x` in heads and in trailers, and of cookies.
type Values = Arc<Mutex<Vec<String>>>;

fn is_malformed(map: &HeaderMap) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    map.values()
        .map(HeaderValue::as_bytes)
        .any(|value| blank(value.first()) || blank(value.last()))
}

fn note(values: &Values, map: &HeaderMap) {
    for name in ["x", "cookie"] {
        let all = map.get_all(name).iter();
        let all = all.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        values.lock().extend(all);
    }
}

/// A server that ends the connection for a malformed field, as Python's h2 does. What it
/// answers is malformed itself.
async fn strict(stream: TcpStream, values: Values) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    let (ends, mut ended) = mpsc::channel(1);
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            _ = ended.recv() => return,
        };
        let Some(Ok((request, respond))) = accepted else {
            return;
        };
        if is_malformed(request.headers()) {
            return connection.abrupt_shutdown(Reason::PROTOCOL_ERROR);
        }
        tokio::spawn(serve(request, respond, Arc::clone(&values), ends.clone()));
    }
}

async fn serve(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    values: Values,
    ends: mpsc::Sender<()>,
) {
    let (head, mut body) = request.into_parts();
    note(&values, &head.headers);
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
    }
    if let Ok(Some(trailers)) = body.trailers().await {
        if is_malformed(&trailers) {
            let _ = ends.send(()).await;
        }
        note(&values, &trailers);
    }
    if head.uri.path() == "/slow" {
        tokio::time::sleep(SLOW).await;
    }
    let blanks = HeaderValue::from_static("\ta ");
    let answer = Response::builder().header("x", &blanks).body(()).unwrap();
    let Ok(mut stream) = respond.send_response(answer, false) else {
        return;
    };
    let trailers = HeaderMap::from_iter([("x".parse().unwrap(), blanks)]);
    let _ = stream.send_data(Bytes::from_static(b"ok"), false);
    let _ = stream.send_trailers(trailers);
}

async fn caller(pods: &TwoPods, entry: EntryPoint) -> SendRequest<Bytes> {
    let (sender, connection) = h2::client::handshake(pods.open(entry).await).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// The answer's status, and what its head and its trailers say.
async fn ask(
    sender: SendRequest<Bytes>,
    path: &str,
    fields: &[(&'static str, &'static str)],
    trailer: Option<&'static str>,
) -> Result<(StatusCode, HeaderMap, HeaderMap), h2::Error> {
    let mut request = Request::post(format!("http://s{path}"));
    for (name, value) in fields {
        request = request.header(*name, HeaderValue::from_static(value));
    }
    let (answer, mut stream) = sender
        .ready()
        .await?
        .send_request(request.body(()).unwrap(), trailer.is_none())?;
    if let Some(value) = trailer {
        let value = HeaderValue::from_static(value);
        let trailers = HeaderMap::from_iter([("x".parse().unwrap(), value)]);
        stream.send_data(Bytes::from_static(b"hello"), false)?;
        stream.send_trailers(trailers)?;
    }
    let (head, mut body) = answer.await?.into_parts();
    while let Some(data) = body.data().await {
        let _ = body.flow_control().release_capacity(data?.len());
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok((head.status, head.headers, trailers))
}

/// Two pods whose application is strict, and what that got.
async fn strict_pods() -> (TwoPods, Values) {
    let mut pods = TwoPods::new(Protocol::Http2).await;
    let values = Values::default();
    let kept = Arc::clone(&values);
    let port = serving(&pods.server, move |stream| {
        strict(stream, Arc::clone(&kept))
    })
    .await;
    pods.deliver_to(port);
    pods.port = port;
    (pods, values)
}

/// It is below 64 KiB when it comes, and may be above with what the proxies add. The control
/// is as large as a head may be.
#[tokio::test]
async fn head_too_large_for_http2_server_stays_unsent() {
    // By the count of HTTP/2: four pseudo-header fields, and `x`.
    let others = ":methodPOST:schemehttp:authoritys:path/okx".len() + 5 * 32;
    let (pods, values) = strict_pods().await;
    for (size, passes) in [(64_000, true), (65_500, false)] {
        let value: &'static str = String::leak("a".repeat(size - others));
        let fields = [("x", value)];
        for entry in ENTRY_POINTS {
            let sender = caller(&pods, entry).await;
            values.lock().clear();
            let asked = ask(sender, "/ok", &fields, None);
            let asked = timeout(PATIENCE, asked).await.unwrap();
            let status = asked.map(|(status, _, _)| status.as_u16());
            let case = format!("{size}, {entry:?}: {status:?}");
            match (passes, entry) {
                (true, _) => assert_eq!(status.unwrap(), 200, "{case}"),
                (false, EntryPoint::Inbound) => assert_eq!(status.unwrap(), 400, "{case}"),
                // The second proxy reads no more than the first, which adds to it.
                (false, EntryPoint::Outbound) => assert!(!matches!(status, Ok(200)), "{case}"),
            }
            assert_eq!(values.lock().len(), usize::from(passes), "{case}");
        }
    }
}

#[tokio::test]
async fn value_with_outer_blanks_breaks_no_shared_connection() {
    let (pods, values) = strict_pods().await;
    for entry in ENTRY_POINTS {
        let victim = caller(&pods, entry).await;
        let slow = tokio::spawn(async move { ask(victim, "/slow", &[], None).await });
        let other = caller(&pods, entry).await;
        for bad in [" a", "a ", "\ta", "a\t", " ", "\t"] {
            for (fields, trailer) in [
                (vec![("x", bad)], None),
                (vec![("cookie", bad)], None),
                (vec![("cookie", bad), ("cookie", "")], None),
                (vec![], Some(bad)),
            ] {
                let case = format!("{entry:?}, {fields:?}, {trailer:?}");
                values.lock().clear();
                let asked = ask(other.clone(), "/ok", &fields, trailer);
                let (status, head, trailers) = timeout(PATIENCE, asked)
                    .await
                    .unwrap_or_else(|_| panic!("{case}: no answer"))
                    .unwrap_or_else(|error| panic!("{case}: {error}"));
                assert_eq!(status, 200, "{case}");
                assert_eq!(*values.lock(), [bad.trim()], "{case}");
                assert_eq!(head["x"], "a", "{case}");
                assert_eq!(trailers["x"], "a", "{case}");
            }
        }
        let slow = timeout(PATIENCE, slow).await.unwrap().unwrap();
        let (status, _, _) = slow.unwrap_or_else(|error| panic!("{entry:?}: {error}"));
        assert_eq!(
            status, 200,
            "{entry:?}: it shares the application's connection"
        );
    }
}
