//! Calls that are no calls: garbage, endless bodies, idle connections.

use super::*;

#[tokio::test]
async fn garbage_is_refused_and_the_next_call_is_answered() {
    let harness = Harness::start().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_pod = format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","request":{{"uid":"u","kind":{{}},"object":{deep}}}}}"#
    );
    let garbage: [Vec<u8>; 9] = [
        b"".to_vec(),
        b"null".to_vec(),
        b"{".to_vec(),
        b"[1,2,3]".to_vec(),
        vec![0xff; 1000],
        b"{\"apiVersion\":3}".to_vec(),
        b"{\"apiVersion\":\"admission.k8s.io/v1\",\"request\":null}".to_vec(),
        deep.into_bytes(),
        deep_pod.into_bytes(),
    ];
    for path in ["/mutate", "/validate", "/account", "/convert"] {
        // Answered as soon as it names the request to answer; the last does.
        let unanswerable = garbage.len() - 1;
        for (i, body) in garbage.iter().enumerate() {
            let (status, _) = harness.call(path, body.clone()).await;
            assert_eq!(
                status == StatusCode::BAD_REQUEST,
                i < unanswerable,
                "{path} {i}"
            );
        }
    }
    let (status, _) = harness.call("/other", "{}").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let review = harness
        .review("/mutate", pod(json!({ "containers": [] })))
        .await;
    assert_eq!(review["response"]["allowed"], true);
}

#[tokio::test]
async fn odd_pods_and_objects_are_answered() {
    let harness = Harness::start().await;
    for spec in [
        json!(null),
        json!([]),
        json!(7),
        json!({ "containers": { "a": 1 } }),
    ] {
        for path in ["/mutate", "/validate", "/account"] {
            let review = harness.review(path, pod(spec.clone())).await;
            assert_eq!(review["response"]["uid"], "u1");
        }
    }
}

#[tokio::test]
async fn body_above_the_limit_is_refused() {
    let harness = Harness::start().await;
    let (status, _) = harness.call("/mutate", vec![b' '; MAX_BODY + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn bytes_without_tls_or_http_leave_webhook_working() {
    let harness = Harness::start().await;
    let mut plain = TcpStream::connect(harness.address).await.unwrap();
    plain
        .write_all(b"GET /mutate HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest).await;
    let mut tls = harness.connect(b"http/1.1").await;
    tls.write_all(&[0xff; 64 * 1024]).await.unwrap();
    let _ = tls.read_to_end(&mut rest).await;
    let review = harness
        .review("/mutate", pod(json!({ "containers": [] })))
        .await;
    assert_eq!(review["response"]["allowed"], true);
}

#[tokio::test]
async fn idle_connections_of_a_hoarder_make_room() {
    let harness = Harness::start().await;
    let mut hoard = Vec::new();
    for _ in 0..CONNECTIONS.total + 10 {
        hoard.push(TcpStream::connect(harness.address).await.unwrap());
    }
    let review = harness
        .review("/mutate", pod(json!({ "containers": [] })))
        .await;
    assert_eq!(review["response"]["allowed"], true);
}

#[tokio::test]
async fn call_with_endless_body_is_abandoned() {
    let harness = Harness::start().await;
    let stream = TokioIo::new(harness.connect(b"http/1.1").await);
    let (mut sender, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let never = http_body_util::StreamBody::new(futures::stream::pending::<
        Result<hyper::body::Frame<Bytes>, Infallible>,
    >());
    let request = Request::post("/mutate")
        .header("host", NAME)
        .body(never)
        .unwrap();
    let began = tokio::time::Instant::now();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(began.elapsed() >= CALL_TIMEOUT);
}
