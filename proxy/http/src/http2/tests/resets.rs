//! Servers that reset a stream instead of ending it.
//!
//! Claims: attack-26

use super::*;

/// What is read of an answer of five bytes that was announced with this length and such a field,
/// and then reset.
async fn read(length: &str, field: [&str; 2], code: h2::Reason) -> (Vec<u8>, bool) {
    let (mut sender, far) = client().await;
    let length = length.to_owned();
    let [name, value] = field.map(str::to_owned);
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
        let head = Response::builder()
            .header("content-length", length)
            .header(name, value);
        let mut stream = respond
            .send_response(head.body(()).unwrap(), false)
            .unwrap();
        stream
            .send_data(Bytes::from_static(b"hello"), false)
            .unwrap();
        let reset = async {
            // Behind what was sent.
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.send_reset(code);
            std::future::pending::<()>().await;
        };
        tokio::join!(reset, async { connection.accept().await.is_none() });
    });
    let mut answer = sender.send(post(body::empty())).await.unwrap().into_body();
    let mut came = Vec::new();
    while let Some(frame) = answer.frame().await {
        match frame {
            Ok(frame) => came.extend(frame.into_data().unwrap()),
            Err(_) => return (came, false),
        }
    }
    (came, true)
}

const HTML: [&str; 2] = ["content-type", "text/html"];

/// As Node's streams do: all bytes of its length, no end, and a reset without a reason.
#[tokio::test(start_paused = true)]
async fn fully_received_response_is_complete_despite_errorless_reset() {
    let (no_error, cancel) = (h2::Reason::NO_ERROR, h2::Reason::CANCEL);
    for (length, code, is_whole) in [
        ("5", no_error, true),
        ("5", cancel, false),
        ("6", no_error, false),
    ] {
        let (came, ended) = read(length, HTML, code).await;
        assert_eq!(came, b"hello", "{length}, {code:?}");
        assert_eq!(ended, is_whole, "{length}, {code:?}");
    }
}

/// A caller that checks a digest or a status in them would take the truncated body for complete.
#[tokio::test(start_paused = true)]
async fn response_without_announced_trailers_is_incomplete() {
    for (field, is_whole) in [
        (["trailer", "digest"], false),
        (["content-type", "application/grpc+proto"], false),
        // Which has its status among its bytes.
        (["content-type", "application/grpc-web"], true),
        (HTML, true),
    ] {
        let (came, ended) = read("5", field, h2::Reason::NO_ERROR).await;
        assert_eq!(came, b"hello", "{field:?}");
        assert_eq!(ended, is_whole, "{field:?}");
    }
}
