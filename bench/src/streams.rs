//! gRPC streams that go both ways: each sends a message, waits until it is back,
//! and sends the next, until the time is up. Then it ends its half and waits for
//! the server's end and status.
//!
//! `h2load` sends a body without waiting for anything, and reads no trailers. This
//! client knows gRPC: a message that comes back changed, a stream that ends early
//! and a status that is not 0 are errors, and one of them ends the run.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

use crate::grpc;
use crate::load_result::LoadResult;

/// Beyond its time, a stream gets this long for its last message and its end.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) target: SocketAddr,
    pub(crate) host: &'static str,
    pub(crate) path: &'static str,
    /// At a time, on one connection.
    pub(crate) streams: u32,
    /// Length of each message.
    pub(crate) length: u32,
    pub(crate) time: Duration,
}

/// Runs the load on the calling thread. What is counted are messages that came
/// back.
///
/// # Errors
/// When one stream fails.
pub(crate) fn run(load: Load) -> Result<LoadResult> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::time::timeout(load.time + PATIENCE, all(load))
            .await
            .context("a stream waits for a message or for its end")?
    })
}

async fn all(load: Load) -> Result<LoadResult> {
    let socket = TcpStream::connect(load.target).await?;
    socket.set_nodelay(true)?;
    let (sender, connection) = h2::client::handshake(socket).await?;
    // Its end is an error of every stream.
    tokio::spawn(connection);
    let message = Bytes::from(grpc::message(load.length));
    let begin = Instant::now();
    let tasks: Vec<_> = (0..load.streams)
        .map(|_| {
            let (sender, message) = (sender.clone(), message.clone());
            tokio::spawn(one_stream(load, sender, message, begin + load.time))
        })
        .collect();
    let mut messages = 0;
    for task in tasks {
        messages += task.await??;
    }
    Ok(LoadResult {
        requests: messages as f64,
        rate: messages as f64 / begin.elapsed().as_secs_f64(),
    })
}

async fn one_stream(
    load: Load,
    sender: SendRequest<Bytes>,
    message: Bytes,
    end: Instant,
) -> Result<u64> {
    let request = Request::post(format!("http://{}{}", load.host, load.path))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (answer, sending) = sender.ready().await?.send_request(request, false)?;
    let mut sending: SendStream<Bytes> = sending;
    sending.send_data(message.clone(), false)?;
    let answer = answer.await.context("no head of an answer")?;
    ensure!(answer.status() == 200, "answered {}", answer.status());
    let early = status(answer.headers());
    let mut receiving = answer.into_body();
    let (mut received, mut count) = (BytesMut::new(), 0);
    loop {
        while received.len() < message.len() {
            let Some(data) = receiving.data().await else {
                let status = early.or(last_status(&mut receiving).await?);
                bail!(
                    "a stream ended after {count} messages, {}",
                    shown(status.as_deref())
                );
            };
            let data = data.with_context(|| format!("a stream broke after {count} messages"))?;
            receiving.flow_control().release_capacity(data.len())?;
            received.extend_from_slice(&data);
        }
        ensure!(received == message, "a message came back changed");
        received.clear();
        count += 1;
        if Instant::now() >= end {
            break;
        }
        sending.send_data(message.clone(), false)?;
    }
    // As clients of gRPC do, which do not know beforehand which message is the last.
    sending.send_data(Bytes::new(), true)?;
    while let Some(data) = receiving.data().await {
        let data =
            data.with_context(|| format!("a stream broke at its end, after {count} messages"))?;
        ensure!(data.is_empty(), "more came back than was sent");
    }
    let status = early.or(last_status(&mut receiving).await?);
    ensure!(
        status.as_deref() == Some("0"),
        "a stream ended with {}",
        shown(status.as_deref())
    );
    Ok(count)
}

async fn last_status(receiving: &mut RecvStream) -> Result<Option<String>> {
    Ok(receiving.trailers().await?.as_ref().and_then(status))
}

/// The status that a server of gRPC gives a call.
pub(crate) fn status(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("grpc-status")?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn shown(status: Option<&str>) -> String {
    status.map_or_else(
        || "no grpc-status".to_owned(),
        |status| format!("grpc-status {status}"),
    )
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, Response};

    use super::{Load, run};
    use crate::grpc;

    fn load(target: SocketAddr, path: &'static str) -> Load {
        Load {
            target,
            host: "web-grpc",
            path,
            streams: 4,
            length: 100,
            time: Duration::from_millis(200),
        }
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = listener.local_addr().unwrap();
        (listener, target)
    }

    #[test]
    fn streams_run_both_ways_to_bench_server() {
        let (listener, target) = listener();
        grpc::serve(listener).unwrap();
        let done = run(load(target, "/bench.Echo/Both")).unwrap();
        assert!(done.requests >= 4.0 && done.rate > 0.0, "{done:?}");
    }

    /// What a server does with each stream.
    #[derive(Clone, Copy)]
    enum Fault {
        Status,
        NoStatus,
        Changed,
        Reset,
    }

    /// One connection; only its third stream is treated badly, by `fault`.
    fn faulty(listener: TcpListener, fault: Fault) {
        listener.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let (socket, _) = listener.accept().await.unwrap();
                let mut connection = h2::server::handshake(socket).await.unwrap();
                let mut seen = 0;
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    seen += 1;
                    let fault = (seen == 3).then_some(fault);
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        let mut sending = respond.send_response(Response::new(()), false).unwrap();
                        let mut echoed = 0;
                        while let Some(Ok(data)) = body.data().await {
                            body.flow_control().release_capacity(data.len()).unwrap();
                            match fault {
                                Some(Fault::Changed) if !data.is_empty() => {
                                    let other = Bytes::from(vec![b'y'; data.len()]);
                                    sending.send_data(other, false).unwrap();
                                }
                                Some(Fault::Reset) if echoed == 1 => {
                                    return sending.send_reset(h2::Reason::INTERNAL_ERROR);
                                }
                                _ => sending.send_data(data, false).unwrap(),
                            }
                            echoed += 1;
                        }
                        let mut trailers = HeaderMap::new();
                        let status = if matches!(fault, Some(Fault::Status)) {
                            "14"
                        } else {
                            "0"
                        };
                        if !matches!(fault, Some(Fault::NoStatus)) {
                            trailers.insert("grpc-status", status.parse().unwrap());
                        }
                        let _ = sending.send_trailers(trailers);
                    });
                }
            });
        });
    }

    #[test]
    fn one_stream_that_fails_fails_the_load() {
        for (fault, reason) in [
            (Fault::Status, "a stream ended with grpc-status 14"),
            (Fault::NoStatus, "a stream ended with no grpc-status"),
            (Fault::Changed, "a message came back changed"),
            (Fault::Reset, "a stream broke after 1 messages"),
        ] {
            let (listener, target) = listener();
            faulty(listener, fault);
            let error = run(load(target, "/bench.Echo/Both")).expect_err(reason);
            assert!(format!("{error:#}").contains(reason), "{error:#}");
        }
    }
}
