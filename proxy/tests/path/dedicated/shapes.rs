//! Messages of every shape: the same over HTTP/2 and over a dedicated connection.
//!
//! Claims: mesh-15

use super::*;

/// Requests with a name, and how the answer ends.
fn shapes() -> Vec<(&'static str, String, &'static str)> {
    vec![
        (
            "a small body",
            format!("{}Content-Length: 5\r\n\r\nhello", with("POST /p HTTP/1.1")),
            "ok",
        ),
        (
            "no body by its length",
            format!("{}Content-Length: 0\r\n\r\n", with("POST /p HTTP/1.1")),
            "ok",
        ),
        (
            "the largest body",
            format!(
                "{}Content-Length: 16384\r\n\r\n{}",
                with("PUT /p HTTP/1.1"),
                "z".repeat(16384)
            ),
            "ok",
        ),
        (
            "a length only",
            format!("{}\r\n", with("HEAD /head HTTP/1.1")),
            "\r\n\r\n",
        ),
        (
            "not modified",
            format!("{}\r\n", with("GET /nothing-new HTTP/1.1")),
            "\r\n\r\n",
        ),
        (
            "nothing",
            format!("{}\r\n", with("DELETE /empty HTTP/1.1")),
            "\r\n\r\n",
        ),
        (
            "chunks",
            format!("{}\r\n", with("GET /chunked HTTP/1.1")),
            "0\r\n\r\n",
        ),
        (
            "an old server",
            format!("{}\r\n", with("GET /old HTTP/1.1")),
            "0\r\n\r\n",
        ),
        (
            "interim answers",
            format!("{}\r\n", with("GET /interim HTTP/1.1")),
            "ok",
        ),
        (
            "an own phrase",
            format!("{}\r\n", with("GET /teapot HTTP/1.1")),
            "\r\n\r\n",
        ),
        (
            "an absolute target",
            format!("{}\r\n", with("GET http://other.shop/t HTTP/1.1")),
            "ok",
        ),
        (
            "all resources",
            format!("{}\r\n", with("OPTIONS * HTTP/1.1")),
            "ok",
        ),
        (
            "an own method",
            format!("{}\r\n", with("PURGE /p HTTP/1.1")),
            "ok",
        ),
        (
            "hop by hop",
            format!(
                "{}Keep-Alive: 5\r\nProxy-Connection: x\r\n\r\n",
                with("GET /h HTTP/1.1")
            ),
            "ok",
        ),
        (
            "an early answer",
            format!(
                "{}Content-Length: 16384\r\n\r\n{}",
                with("POST /early HTTP/1.1"),
                "z".repeat(16384)
            ),
            "ok",
        ),
    ]
}

#[tokio::test]
async fn every_message_shape_matches_over_both_connection_kinds() {
    let testbed = Testbed::new().await;
    let answer = testbed
        .same(&format!("{}X-B: 1\r\n\r\n", with("GET /x?y=1 HTTP/1.1")))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"));
    let got = testbed.got.lock()[1].clone();
    for part in [
        "get /x?y=1 http/1.1|",
        "|host: web.shop:81|",
        "|weft-client-id: spiffe://cluster.local/ns/shop/sa/web|",
        "|x-b: 1|",
    ] {
        assert!(got.contains(part), "{got}");
    }
    assert!(
        !got.contains("weft-port") && !got.contains("weft-protocol"),
        "{got}"
    );
    for (case, request, end) in shapes() {
        let answer = testbed.same(&request).await;
        assert!(answer.ends_with(end), "{case}: {answer:.300}");
        assert_eq!(testbed.got.lock().len(), 2, "{case}");
    }
    let large = testbed
        .same(&format!("{}\r\n", with("GET /large HTTP/1.1")))
        .await;
    assert_eq!(large.matches('y').count(), 4_000_000);
    let many: String = (0..95).map(|at| format!("x-{at}: 1\r\n")).collect();
    let answer = testbed
        .same(&format!("{}{many}\r\n", with("GET /many HTTP/1.1")))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let long = "l".repeat(60_000);
    let answer = testbed
        .same(&format!(
            "{}x-long: {long}\r\n\r\n",
            with("GET /long HTTP/1.1")
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn truncated_response_looks_truncated_over_both_connection_kinds() {
    let testbed = Testbed::new().await;
    let [multiplexed, dedicated] = testbed
        .both(&format!("{}\r\n", with("GET /short HTTP/1.1")))
        .await;
    assert!(multiplexed.contains("Content-Length: 9") || multiplexed.contains("content-length: 9"));
    assert_eq!(multiplexed, dedicated);
    assert!(dedicated.ends_with("abc"), "{dedicated}");
    let [multiplexed, dedicated] = testbed
        .both(&format!("{}\r\n", with("GET /cut HTTP/1.1")))
        .await;
    assert!(!multiplexed.ends_with("0\r\n\r\n"), "{multiplexed}");
    assert_eq!(multiplexed, dedicated);
    let answer = testbed
        .same(&format!("{}\r\n", with("POST /gone HTTP/1.1")))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("weft-reason: connection-lost"),
        "{answer}"
    );
    assert_eq!(
        testbed.got.lock().len(),
        2,
        "sent twice: {:?}",
        testbed.got.lock()
    );
}
