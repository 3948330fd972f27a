//! A port of a pod, as the API server leads to it: what Kubernetes speaks for port-forward
//! over a WebSocket.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use policy::well_known::ADMIN_PORT;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The responses of the port, by path.
pub(super) type Pages = Arc<BTreeMap<&'static str, String>>;

/// Channels of the one port: its bytes, and what went wrong.
const DATA: u8 = 0;
const ERROR: u8 = 1;

/// The response that begins it.
pub(super) fn switched(mut request: Request<Incoming>, pages: Pages) -> Response<Full<Bytes>> {
    let key = &request.headers()[header::SEC_WEBSOCKET_KEY];
    let accept = derive_accept_key(key.as_bytes());
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
        let stream = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        serve(socket, &pages).await;
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .header(header::SEC_WEBSOCKET_PROTOCOL, "v4.channel.k8s.io")
        .body(Full::default())
        .unwrap()
}

/// One request to the port.
async fn serve(
    mut socket: WebSocketStream<TokioIo<Upgraded>>,
    pages: &BTreeMap<&'static str, String>,
) {
    let [low, high] = ADMIN_PORT.to_le_bytes();
    for channel in [DATA, ERROR] {
        let begin = Message::binary(vec![channel, low, high]);
        socket.send(begin).await.unwrap();
    }
    let mut request: Vec<u8> = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let Some(Ok(message)) = socket.next().await else {
            return;
        };
        if let Message::Binary(bytes) = message
            && bytes.first() == Some(&DATA)
        {
            request.extend_from_slice(&bytes[1..]);
        }
    }
    let request = String::from_utf8(request).unwrap();
    let page = request.split(' ').nth(1).and_then(|path| pages.get(path));
    let answer = match page {
        Some(page) => format!("HTTP/1.0 200 OK\r\n\r\n{page}"),
        None => "HTTP/1.0 404 Not Found\r\n\r\n".to_owned(),
    };
    let mut data = vec![DATA];
    data.extend_from_slice(answer.as_bytes());
    socket.send(Message::binary(data)).await.unwrap();
    socket.close(None).await.unwrap();
    // Until the other side has closed it too.
    while let Some(Ok(_)) = socket.next().await {}
}
