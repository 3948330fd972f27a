//! An API server that takes requests and never answers.

use tokio::time::Instant;

use super::*;

/// By a clock that nothing else on this machine holds up.
const WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn who_is_not_answered_waits_for_ten_seconds_and_no_longer() {
    for line in [
        "stat deploy",
        "edges",
        "routes deploy/cart",
        "proxies",
        "explain deploy/web svc/cart:80 GET /",
    ] {
        let api = FakeApi::default();
        api.vanish(true);
        let begun = Instant::now();
        let (code, out, err) = run(api.client(), &format!("weft {line} -n shop")).await;
        let took = begun.elapsed();
        assert_eq!((code, out.as_str()), (3, ""), "{line}: {err}");
        assert!(err.contains("did not answer"), "{line}: {err}");
        assert!(took <= WITHIN, "{line}: {took:?}");
    }
}
