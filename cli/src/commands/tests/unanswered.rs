//! An API server that takes requests and never responds, or without end.
//!
//! Claims: observe-29, observe-44

use tokio::time::Instant;

use super::*;

/// By a clock that nothing else on this machine holds up.
const WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn unanswered_command_fails_after_ten_seconds() {
    for line in [
        "stat deploy",
        "edges",
        "routes deploy/cart",
        "proxies",
        "explain deploy/web svc/cart:80 GET /",
    ] {
        let api = FakeApi::default();
        api.vanish(true);
        let started = Instant::now();
        let (code, out, err) = run(api.client(), &format!("weft {line} -n shop")).await;
        let took = started.elapsed();
        assert_eq!((code, out.as_str()), (3, ""), "{line}: {err}");
        assert!(err.contains("did not answer"), "{line}: {err}");
        assert!(took <= WITHIN, "{line}: {took:?}");
    }
}

#[tokio::test]
async fn endless_response_is_truncated_and_reported() {
    // The bytes are never touched, so they take no memory.
    let client = |bytes: usize| {
        Client::new(
            tower::service_fn(move |_: Request<Body>| async move {
                Ok::<_, Infallible>(Response::new(Body::from(vec![0; bytes])))
            }),
            "shop",
        )
    };
    for line in ["stat deploy", "edges"] {
        let line = format!("weft {line} -n shop");
        let (code, out, err) = run(client((256 << 20) + 1), &line).await;
        assert_eq!((code, out.as_str()), (3, ""), "{line}: {err}");
        let words = "too long to be read, longer than 256 MiB";
        assert!(err.contains(words), "{line}: {err}");
        let (code, _, err) = run(client(1), &line).await;
        assert_eq!((code, err.contains(words)), (3, false), "control: {err}");
    }
}
