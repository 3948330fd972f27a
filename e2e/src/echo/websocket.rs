//! A websocket echo (RFC 6455), server and client.
//!
//! It proves that an upgrade survives the mesh: after the upgrade the frames are
//! tungstenite's.

use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, StatusCode, header};
use hyper::{Request, Response, body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error, Message,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::response::{self, Body};

/// Longest message that either end takes.
const LONGEST: usize = 64 * 1024;

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(LONGEST))
        .max_frame_size(Some(LONGEST))
}

/// True when the request asks for a websocket over HTTP/1.1.
pub fn is_handshake<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && request.headers().contains_key(header::SEC_WEBSOCKET_KEY)
}

/// Answers 101 and echoes in the background until the peer closes.
pub fn answer(mut request: Request<Incoming>) -> Response<Body> {
    let Some(Ok(accept)) = request
        .headers()
        .get(header::SEC_WEBSOCKET_KEY)
        .map(|key| derive_accept_key(key.as_bytes()).parse::<HeaderValue>())
    else {
        return response::text(StatusCode::BAD_REQUEST, "no usable sec-websocket-key\n");
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let _ = echo(upgraded).await;
        }
    });
    let mut response = response::text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

async fn echo(upgraded: Upgraded) -> Result<(), Error> {
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config())).await;
    // Pings and the close are answered while reading.
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

/// Shakes hands over `stream`, sends `count` texts one after another, each of which must
/// come back within `step`, then closes.
pub async fn talk(
    stream: TcpStream,
    url: &str,
    count: u64,
    pause: Duration,
    step: Duration,
) -> anyhow::Result<()> {
    let handshake = client_async_with_config(url, stream, Some(config()));
    let shaken = timeout(step, handshake).await.context("wait for 101")?;
    let (mut socket, _) = shaken.map_err(refusal)?;
    for index in 0..count {
        let text = Message::text(format!("message {index}"));
        socket.send(text.clone()).await?;
        let back = timeout(step, socket.next())
            .await
            .with_context(|| format!("wait for message {index}"))?
            .context("it ended without a close")??;
        ensure!(back == text, "message {index} came back changed");
        tokio::time::sleep(pause).await;
    }
    socket.close(None).await?;
    let last = timeout(step, socket.next())
        .await
        .context("wait for the close")?;
    ensure!(
        matches!(last, Some(Ok(Message::Close(_)))),
        "the close was answered with {last:?}"
    );
    Ok(())
}

/// What a caller learns who gets another answer than 101.
fn refusal(error: Error) -> anyhow::Error {
    match error {
        Error::Http(response) => anyhow!(
            "answered {} {:?} instead of 101",
            response.status(),
            response.headers().get("weft-reason")
        ),
        error => error.into(),
    }
}
