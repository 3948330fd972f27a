//! One call after the other, or many at once, over HTTP/1.1 or gRPC, as an application's
//! client library makes them: connections are kept, and one that the other side has closed
//! meanwhile is not used again.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::exchange::{LONGEST_ANSWER, read_answer};
use crate::grpc::EMPTY_MESSAGE;
use crate::streams;

/// Where calls go, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) addr: SocketAddr,
    /// The Service, by which Envoy routes.
    pub(super) host: &'static str,
    pub(super) grpc: bool,
}

/// The host of a Service's gRPC, of which Envoy's inbound side must know it apart.
pub(super) fn grpc_host(service: &str) -> String {
    format!("{service}-grpc")
}

#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
}

#[derive(Debug)]
pub(super) struct Client {
    target: Target,
    /// Connections of HTTP/1.1 without a request.
    idle: Mutex<Vec<TcpStream>>,
    /// The one connection of gRPC.
    shared: tokio::sync::Mutex<Option<SendRequest<Bytes>>>,
}

impl Client {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            idle: Mutex::default(),
            shared: tokio::sync::Mutex::default(),
        }
    }

    /// Whether the answer was 200, or grpc-status 0.
    ///
    /// # Errors
    /// When no answer came.
    pub(super) async fn call(&self, call: &Call) -> Result<bool> {
        if self.target.grpc {
            self.unary(call).await
        } else {
            self.exchange(call).await
        }
    }

    async fn exchange(&self, call: &Call) -> Result<bool> {
        let request = self.request(call);
        let stream = match self.kept() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.target.addr).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        self.on(stream, &request).await
    }

    /// A connection that the other side has not closed. Nothing is ever sent twice from
    /// here: that would be no merit of the mesh, or its fault.
    fn kept(&self) -> Option<TcpStream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(stream) = idle.pop() {
            let waits = stream.try_read(&mut [0]);
            if waits.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                return Some(stream);
            }
        }
        None
    }

    async fn on(&self, mut stream: TcpStream, request: &str) -> Result<bool> {
        let mut buffer = [0; LONGEST_ANSWER];
        stream.write_all(request.as_bytes()).await?;
        let head = read_answer(&mut stream, &mut buffer).await?;
        if head.keeps {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(stream);
        }
        Ok(head.status == 200)
    }

    fn request(&self, call: &Call) -> String {
        let Call { method, path, .. } = call;
        let headers: String = call
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let (length, body) = match *method {
            "POST" => ("content-length: 4\r\n", "once"),
            _ => ("", ""),
        };
        let host = self.target.host;
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}{length}\r\n{body}")
    }

    async fn unary(&self, call: &Call) -> Result<bool> {
        let uri = format!("http://{}{}", grpc_host(self.target.host), call.path);
        let mut request = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let mut sender = self.sender().await?;
        let (answer, mut sending) = sender.send_request(request.body(())?, false)?;
        sending.send_data(Bytes::from_static(&EMPTY_MESSAGE), true)?;
        let answer = answer.await?;
        let mut status = streams::status(answer.headers());
        let mut body = answer.into_body();
        while let Some(data) = body.data().await {
            body.flow_control().release_capacity(data?.len())?;
        }
        if status.is_none() {
            status = body.trailers().await?.as_ref().and_then(streams::status);
        }
        Ok(status.context("no grpc-status")? == "0")
    }

    /// A place for one more stream.
    async fn sender(&self) -> Result<SendRequest<Bytes>> {
        let mut shared = self.shared.lock().await;
        if let Some(kept) = shared.clone()
            && let Ok(ready) = kept.ready().await
        {
            return Ok(ready);
        }
        let socket = TcpStream::connect(self.target.addr).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = h2::client::handshake(socket).await?;
        // Its end is an error of every stream.
        tokio::spawn(connection);
        *shared = Some(sender.clone());
        Ok(sender.ready().await?)
    }
}
