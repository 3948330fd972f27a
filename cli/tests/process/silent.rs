//! An API server that takes connections and never answers.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::{WEFT, run};

/// Ten seconds, and what a process takes on a machine that does much else.
const WITHIN: Duration = Duration::from_secs(15);

#[tokio::test]
async fn who_is_not_answered_hears_so_within_ten_seconds_with_status_three() {
    // The kernel takes the connections that nobody asks it for.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut silent = Server::start().await;
    silent.port = listener.local_addr().unwrap().port();
    let kubeconfig = silent.well();
    let ended = async |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let begun = Instant::now();
        let (code, out, err) = run(WEFT, &words, &kubeconfig).await;
        let took = begun.elapsed();
        assert_eq!((code, out.as_str()), (3, ""), "{line}: {err}");
        assert!(err.starts_with("weft: "), "{line}: {err}");
        assert!(took < WITHIN, "{line}: {took:?}");
    };
    tokio::join!(
        ended("stat deploy"),
        ended("edges"),
        ended("explain deploy/web svc/cart GET /"),
        ended("check"),
    );
    drop(listener);
}
