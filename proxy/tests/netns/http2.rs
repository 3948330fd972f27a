//! HTTP/2 for stalled streams and for requests beside them: an application, and callers with one
//! connection each.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use h2::server::SendResponse;
use http::{Method, Request, Response};
use tokio::net::TcpStream;

use crate::support::vip;

/// More than all streams of a connection may bring without being read, so that no stream waits for
/// another one at its own client.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// Content of a response that never ends.
static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// Whether that is what a connection begins with. Nothing is taken of it.
pub(super) async fn is_spoken_on(stream: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0; 3];
    loop {
        match stream.peek(&mut first).await? {
            0 => return Ok(false),
            1..=2 => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => return Ok(&first == b"PRI"),
        }
    }
}

/// Gives back what `/echo` brings, and pours into all others, which it counts in `stalled`.
pub(super) async fn answer(stream: TcpStream, stalled: Arc<AtomicUsize>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let stalled = Arc::clone(&stalled);
        tokio::spawn(async move {
            // The caller may have left.
            let _ = if request.uri().path() == "/echo" {
                echo(request.into_body(), respond).await
            } else {
                stalled.fetch_add(1, Relaxed);
                pour(respond).await
            };
        });
    }
}

async fn echo(mut body: RecvStream, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let content = whole(&mut body).await?;
    let mut stream = respond.send_response(Response::new(()), false)?;
    stream.send_data(content.into(), true)
}

async fn pour(mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(Response::new(()), false)?;
    loop {
        stream.reserve_capacity(ZEROS.len());
        let Some(room) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return Ok(());
        };
        let part = ZEROS.len().min(room?);
        stream.send_data(Bytes::from_static(&ZEROS[..part]), false)?;
    }
}

async fn whole(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all)
}

/// One connection to the Service.
#[derive(Clone)]
pub(super) struct Caller(SendRequest<Bytes>);

impl Caller {
    pub(super) async fn new() -> Self {
        let stream = TcpStream::connect(vip()).await.unwrap();
        let (sender, connection) = h2::client::Builder::new()
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends this content, if there is any; gives what an answer with 200 brings.
    pub(super) async fn ask(&self, content: &str) -> Result<Vec<u8>, String> {
        let method = if content.is_empty() {
            Method::GET
        } else {
            Method::POST
        };
        let answer = self.begin(method, "/echo", content).await;
        let (head, mut body) = answer.map_err(|error| error.to_string())?.into_parts();
        if head.status != 200 {
            return Err(format!("{head:?}"));
        }
        whole(&mut body).await.map_err(|error| error.to_string())
    }

    /// An endless download that is not read while the value is held.
    pub(super) async fn unread(&self) -> RecvStream {
        let answer = self.begin(Method::GET, "/endless", "").await;
        answer.unwrap().into_body()
    }

    async fn begin(
        &self,
        method: Method,
        path: &str,
        content: &str,
    ) -> Result<Response<RecvStream>, h2::Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://web.shop{path}"))
            .body(())
            .unwrap();
        let mut sender = self.0.clone().ready().await?;
        let (response, mut stream) = sender.send_request(request, content.is_empty())?;
        if !content.is_empty() {
            stream.send_data(Bytes::copy_from_slice(content.as_bytes()), true)?;
        }
        response.await
    }
}
