//! HTTP/2 responses that are reset before their clients have read what arrived of them.
//!
//! Claims: attack-27

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::v1::Protocol;

use super::two_pods::{ENTRY_POINTS, TwoPods, serving};

const SOON: Duration = Duration::from_secs(5);
/// What the application sends: as much as a proxy lets come at once,
const UNREAD: usize = 20_000;
/// and far more than the client does.
const SMALL_WINDOW: u32 = 1000;

/// As Node resets streams that it pipes, without an announced length.
#[tokio::test]
async fn data_before_stream_reset_arrives_however_late_read() {
    let mut pods = TwoPods::new(Protocol::Http2).await;
    pods.port = serving(&pods.server, |stream: TcpStream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                let unread = Bytes::from(vec![7; UNREAD]);
                send.send_data(unread, false).unwrap();
                // All of it has left by then.
                tokio::time::sleep(Duration::from_millis(200)).await;
                send.send_reset(h2::Reason::NO_ERROR);
            });
        }
    })
    .await;
    pods.deliver_to(pods.port);
    for entry in ENTRY_POINTS {
        let (mut sender, connection) = h2::client::Builder::new()
            .initial_window_size(SMALL_WINDOW)
            .handshake::<_, Bytes>(pods.open(entry).await)
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::get("http://s/").body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        let answer = timeout(SOON, response).await.unwrap().unwrap();
        let mut body = answer.into_body();
        // The reset has come as far as it can.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut size = 0;
        let end = loop {
            match timeout(SOON, body.data()).await.unwrap() {
                Some(Ok(data)) => {
                    size += data.len();
                    body.flow_control().release_capacity(data.len()).unwrap();
                }
                Some(Err(error)) => break error.reason(),
                None => panic!("{entry:?}: it looks whole behind {size} bytes"),
            }
        };
        let reset = Some(h2::Reason::NO_ERROR);
        assert_eq!((size, end), (UNREAD, reset), "{entry:?}");
    }
}
