//! What is spoken over TLS, and why TLS does not come about.

use super::*;

/// What an application needs to serve TLS that names these protocols.
fn acceptor(alpn: &[&str]) -> tokio_rustls::TlsAcceptor {
    let certified = rcgen::generate_simple_self_signed(["other.example".to_owned()]).unwrap();
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

/// An application that speaks HTTP/2 over TLS and nothing else, answers 204 and returns the heads
/// of the requests.
async fn http2_application() -> (u16, mpsc::UnboundedReceiver<http::request::Parts>) {
    let (listener, port) = listen().await;
    let (tx, rx) = mpsc::unbounded_channel();
    let acceptor = acceptor(&["h2"]);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let tx = tx.clone();
            let service =
                hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let _ = tx.send(request.into_parts().0);
                    async {
                        let mut answer = http::Response::new(Full::new(Bytes::new()));
                        *answer.status_mut() = StatusCode::NO_CONTENT;
                        Ok::<_, std::convert::Infallible>(answer)
                    }
                });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        }
    });
    (port, rx)
}

#[tokio::test]
async fn https_probe_and_hook_of_an_http2_server_succeed() {
    let (port, mut rx) = http2_application().await;
    let written = json!({ "httpGet": {
        "port": port, "path": "/health?deep=1", "scheme": "HTTPS",
        "httpHeaders": [{ "name": "X-Probe", "value": "a" }],
    } });
    assert_eq!(probe(written).await, (200, "status 204\n".into()));
    let head = rx.recv().await.unwrap();
    let target = format!("https://127.0.0.1:{port}/health?deep=1");
    assert_eq!(head.uri.to_string(), target);
    assert_eq!(head.headers["x-probe"], "a");
    assert!(!head.headers.contains_key("connection"), "{head:?}");

    // A host that was written takes the place of the address.
    let headers = json!([{ "name": "Host", "value": "shop.example" }]);
    let get = json!({ "port": port, "path": "/bye", "scheme": "HTTPS", "httpHeaders": headers });
    let key = format!("{TOKEN}/app/preStop");
    let hooks = json!({ key: { "httpGet": get } }).to_string();
    let hook = Probes::parse("", &hooks, POD).unwrap();
    let (status, text) = ask(&hook, &format!("/hook/{TOKEN}/app/preStop")).await;
    assert_eq!((status, text.as_str()), (200, "status 204\n"));
    let head = rx.recv().await.unwrap();
    assert_eq!(head.uri.to_string(), "https://shop.example/bye");
    assert!(!head.headers.contains_key("host"), "{head:?}");
}

/// Go's client, and so the kubelet's, takes the end of the connection for that of TLS.
#[tokio::test]
async fn https_answer_ends_with_its_connection() {
    let (listener, port) = listen().await;
    let acceptor = acceptor(&["http/1.1"]);
    tokio::spawn(async move {
        for answer in ["", "content-length: 9\r\n"] {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let answer = format!("HTTP/1.1 200 OK\r\n{answer}\r\nfine");
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    let written = json!({ "httpGet": { "port": port, "path": "/", "scheme": "HTTPS" } });
    let whole = probe(written.clone()).await;
    assert_eq!(whole, (200, "status 200\n".into()));
    let (status, reason) = probe(written).await;
    assert_eq!(status, 503, "cut off before its length");
    assert!(reason.starts_with("the answer broke off: "), "{reason}");
}

#[tokio::test]
async fn https_probe_without_tls_says_why_in_words() {
    // Fatal alerts, as records of TLS: handshake failure, no application protocol.
    let alert = |number: u8| vec![21, 3, 3, 0, 2, 2, number];
    let plaintext = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    for (answer, words) in [
        (plaintext, "does not speak TLS on this port"),
        (alert(40), "refuses the versions and cipher suites"),
        (alert(120), "neither HTTP/2 nor HTTP/1.1"),
    ] {
        let (listener, port) = listen().await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // All that the probe sends is read, so that nothing is reset.
            let mut record = [0; 5];
            stream.read_exact(&mut record).await.unwrap();
            let length = u16::from_be_bytes([record[3], record[4]]);
            let mut hello = vec![0; usize::from(length)];
            stream.read_exact(&mut hello).await.unwrap();
            stream.write_all(&answer).await.unwrap();
            let _ = stream.read(&mut record).await;
        });
        let written = json!({ "httpGet": { "port": port, "path": "/", "scheme": "HTTPS" } });
        let (status, reason) = probe(written).await;
        assert_eq!(status, 503);
        assert!(reason.contains(words), "{reason}");
    }
}
