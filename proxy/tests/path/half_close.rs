//! Callers over HTTP/1 that send no more and wait for their answer.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use wire::v1::Protocol;

use super::answers::{App, LATE, sum};
use super::counts::CANCELLED;
use crate::support::{pair, raw, vip};

/// Whatever it says of its connection, and with what version.
#[tokio::test]
async fn a_caller_over_http1_that_closed_its_direction_gets_the_whole_answer() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let app = App::new(server.ip, LATE).await;
    client.reaches(&server, app.port);
    for request in [
        "GET / HTTP/1.1\r\nHost: web.shop\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: web.shop\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let mut stream = client.call(vip()).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = raw(&mut stream, b"", Duration::from_secs(5)).await;
        let whole = answer.contains(" 200 OK\r\n") && answer.ends_with("\r\n\r\nok");
        assert!(whole, "{request}: {answer}");
    }
    assert_eq!(app.request_count(), 4, "none was asked twice");
    assert_eq!(sum(&client, CANCELLED, &["outbound"]), 0.0);
}
