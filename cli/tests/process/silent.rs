//! An API server that takes connections and never responds.
//!
//! Claims: observe-29

use std::cell::Cell;
use std::convert::Infallible;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::{WEFT, run};

/// The promise, from the start of the process to its end.
const WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at whether this machine stands still.
const LOOK: Duration = Duration::from_millis(50);

/// Adds up by how much its own pauses last too long: for so long no process of this machine ran,
/// which is no time of a command's.
async fn watch_machine(stood_still: &Cell<Duration>) -> Infallible {
    loop {
        let started = Instant::now();
        tokio::time::sleep(LOOK).await;
        stood_still.set(stood_still.get() + started.elapsed().saturating_sub(LOOK));
    }
}

#[tokio::test]
async fn silent_server_makes_commands_exit_three_within_ten_seconds() {
    // The kernel completes connections that no program accepts.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut silent = Server::start().await;
    silent.port = listener.local_addr().unwrap().port();
    let kubeconfig = silent.well();
    let ended = async |line: &'static str| {
        let words: Vec<&str> = line.split(' ').collect();
        let started = Instant::now();
        let (code, out, err) = run(WEFT, &words, &kubeconfig).await;
        let took = started.elapsed();
        assert_eq!((code, out.as_str()), (3, ""), "{line}: {err}");
        assert!(err.starts_with("weft: "), "{line}: {err}");
        (line, took)
    };
    let commands = async {
        let (stat, edges, explain, check) = tokio::join!(
            ended("stat deploy"),
            ended("edges"),
            ended("explain deploy/web svc/cart GET /"),
            ended("check"),
        );
        [stat, edges, explain, check]
    };
    let stood_still = Cell::new(Duration::ZERO);
    let all = tokio::select! {
        biased;
        never = watch_machine(&stood_still) => match never {},
        all = commands => all,
    };
    drop(listener);
    let still = stood_still.get();
    for (line, took) in all {
        assert!(
            took < WITHIN + still,
            "{line}: {took:?}, {still:?} of it stood still"
        );
    }
}
