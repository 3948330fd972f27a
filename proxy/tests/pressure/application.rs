//! The application that the calls of these tests reach.

use bytes::Bytes;
use http::Response;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::downloads;

/// Serves both versions; the path selects the behaviour.
pub(super) async fn serve(stream: TcpStream) {
    let mut first = [0; 3];
    loop {
        match stream.peek(&mut first).await {
            // The caller has closed.
            Ok(0) => return,
            Ok(1..=2) => {}
            Ok(_) | Err(_) => break,
        }
    }
    if &first == b"PRI" {
        return serve2(stream).await;
    }
    // What it holds itself is not to be measured.
    let mut stream = BufReader::with_capacity(512, stream);
    let (mut line, mut path, mut length) = (String::new(), String::new(), 0);
    loop {
        line.clear();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        if path.is_empty() {
            path = line.split(' ').nth(1).unwrap().to_owned();
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    // Not for as long as it waits.
    drop(line);
    match path.as_str() {
        "/echo" => {
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
        }
        "/download" => {
            static ZEROS: [u8; downloads::LENGTH] = [0; downloads::LENGTH];
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", ZEROS.len());
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&ZEROS).await;
        }
        "/switch" => {
            let head =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            std::future::pending().await
        }
        _ => std::future::pending().await,
    }
}

async fn serve2(stream: TcpStream) {
    static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];
    // What it may hold itself is not to be measured.
    let builder = h2::server::Builder::new()
        .initial_window_size(16)
        .max_concurrent_streams(1000)
        .max_send_buffer_size(ZEROS.len())
        .clone();
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            match request.uri().path() {
                "/flood" => {
                    let Ok(mut stream) = respond.send_response(Response::new(()), false) else {
                        return;
                    };
                    loop {
                        stream.reserve_capacity(ZEROS.len());
                        match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                            Some(Ok(room)) => {
                                let part = Bytes::from_static(&ZEROS[..room.min(ZEROS.len())]);
                                if stream.send_data(part, false).is_err() {
                                    return;
                                }
                            }
                            _ => return,
                        }
                    }
                }
                "/head" => {
                    let mut answer = Response::builder();
                    for at in 0..50 {
                        answer = answer.header(format!("x-{at}"), "v".repeat(1000));
                    }
                    let _ = respond.send_response(answer.body(()).unwrap(), true);
                }
                // Neither read nor answered, until the caller has left.
                _ => {
                    let _request = request;
                    let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                }
            }
        });
    }
}
