//! Clients for what is not plain HTTP: bytes, banners, websockets, gRPC.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::stream;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{
    body::{Bytes, Frame},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use super::{grpc, tls, websocket};

/// Each step of an exchange: connect, one answer.
const STEP: Duration = Duration::from_secs(10);
/// A line that is always answered.
pub const WHO: &str = "who";

/// Sends one line and returns the line that comes back.
pub async fn tcp(address: &str, line: &str) -> anyhow::Result<String> {
    exchange(&mut connect(address).await?, line).await
}

/// Opens `count` connections of bytes, keeps them for `duration` with an answer at its begin
/// and its end, then closes them. Returns how many answered at the end.
pub async fn hold_tcp(address: &str, count: u64, duration: Duration) -> anyhow::Result<u64> {
    let mut connections = Vec::new();
    for index in 0..count {
        let mut stream = connect(address).await?;
        exchange(&mut stream, WHO)
            .await
            .with_context(|| format!("connection {index}"))?;
        connections.push(stream);
    }
    tokio::time::sleep(duration).await;
    let mut alive = 0;
    for stream in &mut connections {
        alive += u64::from(exchange(stream, WHO).await.is_ok());
    }
    Ok(alive)
}

/// Sends a ClientHello with the SNI `name`, and keeps the connection for `duration`. The
/// response is not read: no server needs to have that name.
pub async fn begin_tls(address: &str, name: &str, duration: Duration) -> anyhow::Result<()> {
    // Made before: a proxy waits a second for who has connected to say something.
    let hello = tls::hello(name)?;
    let mut stream = connect(address).await?;
    stream.write_all(&hello).await.context("send")?;
    tokio::time::sleep(duration).await;
    Ok(())
}

/// Makes a TLS handshake with any server. Returns the printable text of its certificate, in
/// which names stand as they are.
pub async fn certificate(address: &str, name: &str) -> anyhow::Result<String> {
    let stream = connect(address).await?;
    let secured = timeout(STEP, tls::shake_hands(stream, name, &[])).await??;
    let (_, session) = secured.get_ref();
    let shown = session.peer_certificates().unwrap_or_default();
    let first = shown.first().context("no certificate was shown")?;
    let readable = |byte: &u8| match byte {
        b'!'..=b'~' => char::from(*byte),
        _ => ' ',
    };
    Ok(first.iter().map(readable).collect())
}

/// Waits for the server's first line without sending a byte.
pub async fn banner(address: &str) -> anyhow::Result<(String, Duration)> {
    let start = Instant::now();
    let mut stream = connect(address).await?;
    let line = first_line(&mut stream).await?;
    Ok((line, start.elapsed()))
}

/// What a gRPC call came to; also the JSON that is printed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GrpcSummary {
    /// HTTP status.
    pub status: u16,
    /// From the trailers, or from the headers when the call was refused.
    pub grpc_status: Option<String>,
    pub reason: Option<String>,
    pub pod: Option<String>,
    pub sent: u64,
    /// Messages that came back whole and in order.
    pub received: u64,
    pub trailers: bool,
    pub seconds: f64,
}

/// Streams numbered messages both ways for `duration`, `rate` per second, then
/// half-closes and reads what is left. A zero duration is one unary call.
pub async fn grpc(address: &str, duration: Duration, rate: f64) -> anyhow::Result<GrpcSummary> {
    const PAYLOAD: usize = 8;
    let io = TokioIo::new(connect(address).await?);
    let (mut sender, driver) = timeout(STEP, http2::handshake(TokioExecutor::new(), io))
        .await?
        .context("HTTP/2 handshake")?;
    tokio::spawn(driver);

    let unary = duration.is_zero();
    let planned = if unary {
        1
    } else {
        (duration.as_secs_f64() * rate).round() as u64
    };
    let start = Instant::now();
    let messages = stream::unfold(0_u64, move |index| async move {
        if index >= planned {
            return None;
        }
        tokio::time::sleep_until((start + Duration::from_secs_f64(index as f64 / rate)).into())
            .await;
        Some((
            Ok::<_, std::convert::Infallible>(Frame::data(grpc::message(&index.to_be_bytes()))),
            index + 1,
        ))
    });
    let method = if unary { "Unary" } else { "Stream" };
    let uri: Uri = format!("http://{address}/weft.echo.Echo/{method}").parse()?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(StreamBody::new(messages).boxed_unsync())?;
    let response = timeout(STEP, sender.send_request(request))
        .await
        .context("wait for headers")?
        .context("call")?;

    let text = |headers: &http::HeaderMap, name| {
        headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let mut seen = GrpcSummary {
        status: response.status().as_u16(),
        grpc_status: text(response.headers(), "grpc-status"),
        reason: text(response.headers(), "weft-reason"),
        pod: text(response.headers(), "echo-pod"),
        sent: planned,
        ..GrpcSummary::default()
    };
    let (mut body, mut pending) = (response.into_body(), Vec::new());
    while let Some(frame) = timeout(duration + STEP, body.frame())
        .await
        .context("wait for a message")?
    {
        match frame.context("the stream broke off")?.into_data() {
            Ok(data) => pending.extend_from_slice(&data),
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    seen.trailers = true;
                    seen.grpc_status = text(&trailers, "grpc-status").or(seen.grpc_status);
                }
            }
        }
        while let Some((message, _)) = pending.split_first_chunk::<{ PAYLOAD + 5 }>() {
            ensure!(
                message[..] == grpc::message(&seen.received.to_be_bytes())[..],
                "message {} came back changed",
                seen.received
            );
            seen.received += 1;
            pending.drain(..PAYLOAD + 5);
        }
    }
    seen.seconds = start.elapsed().as_secs_f64();
    Ok(seen)
}

/// Shakes hands, sends `count` texts one after another, each of which must come
/// back, then closes. Returns how many came back.
pub async fn websocket(url: &str, count: u64, pause: Duration) -> anyhow::Result<u64> {
    let uri: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
    let authority = uri.authority().context("the URL names no host")?.as_str();
    let address = if uri.port().is_some() {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    websocket::talk(connect(&address).await?, url, count, pause, STEP).await?;
    Ok(count)
}

/// Opens `count` connections, one `GET /` on each, keeps them idle for
/// `duration`, then uses each again. Returns how many still served.
pub async fn hold(url: &str, count: u64, duration: Duration) -> anyhow::Result<u64> {
    let uri: Uri = url.parse()?;
    let address = format!(
        "{}:{}",
        uri.host().context("the URL names no host")?,
        uri.port_u16().unwrap_or(80)
    );
    let mut connections = Vec::new();
    let ask = || {
        Request::builder()
            .uri(uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(header::HOST, &address)
            .body(Full::<Bytes>::default())
    };
    for index in 0..count {
        let (mut sender, driver) = http1::handshake(TokioIo::new(connect(&address).await?)).await?;
        tokio::spawn(driver);
        let answer = timeout(STEP, sender.send_request(ask()?))
            .await?
            .with_context(|| format!("connection {index}"))?;
        answer.into_body().collect().await?;
        connections.push(sender);
    }
    tokio::time::sleep(duration).await;
    let mut alive = 0;
    for sender in &mut connections {
        if let Ok(Ok(answer)) = timeout(STEP, sender.send_request(ask()?)).await {
            alive += u64::from(answer.into_body().collect().await.is_ok());
        }
    }
    Ok(alive)
}

async fn connect(address: &str) -> anyhow::Result<TcpStream> {
    timeout(STEP, TcpStream::connect(address))
        .await?
        .with_context(|| format!("connect to {address}"))
}

async fn exchange(stream: &mut TcpStream, line: &str) -> anyhow::Result<String> {
    stream
        .write_all(format!("{line}\n").as_bytes())
        .await
        .context("send")?;
    first_line(stream).await
}

async fn first_line(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut line = String::new();
    timeout(STEP, BufReader::new(stream).read_line(&mut line))
        .await
        .context("wait for a line")?
        .context("read a line")?;
    ensure!(!line.is_empty(), "closed without a byte");
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::echo::{serve::Bound, settings::Settings};

    #[tokio::test]
    async fn held_byte_connections_answer_at_end() {
        let bound = Bound::bind(Settings::on_free_ports()).await.unwrap();
        let bytes = bound.addresses().unwrap()[1].to_string();
        tokio::spawn(bound.serve(pending()));
        let pause = Duration::from_millis(10);
        assert_eq!(hold_tcp(&bytes, 3, pause).await.unwrap(), 3);
    }
}
