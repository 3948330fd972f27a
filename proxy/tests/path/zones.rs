//! A zone that gets twice the load that it can serve, with real proxies and applications with
//! workers. `policy/tests/simulate/zones.rs` tests the algorithm alone.
//!
//! Claims: calls-64

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use wire::v1::Protocol;

use super::answers::ask;
use super::balance::{near_by, runs_in};
use crate::support::{Pod, pair};

/// Of each application, and what each of them needs for a request: 100 a second together.
const WORKERS: usize = 2;
const WORK: Duration = Duration::from_millis(20);
/// Applications in the own zone, which do 200 a second, and in all.
const NEAR: usize = 2;
const ALL: usize = 6;
/// Less than half of what the own zone can do, and twice that.
const CALM: u32 = 90;
const TWICE: u32 = 400;
/// One of so many rounds must hold.
const ROUNDS: usize = 3;
/// A user leaves after a longer wait.
const GOOD_WITHIN: Duration = Duration::from_secs(1);

/// An application that answers as fast as its workers. Others wait.
struct Workers {
    port: u16,
    request_count: Arc<AtomicUsize>,
}

impl Workers {
    async fn new(ip: IpAddr) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let request_count = Arc::<AtomicUsize>::default();
        let (log, workers) = (
            Arc::clone(&request_count),
            Arc::new(Semaphore::new(WORKERS)),
        );
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (log, workers) = (Arc::clone(&log), Arc::clone(&workers));
                let service = service_fn(move |_: Request<Incoming>| {
                    log.fetch_add(1, Relaxed);
                    let workers = Arc::clone(&workers);
                    async move {
                        let _one = workers.acquire_owned().await.unwrap();
                        tokio::time::sleep(WORK).await;
                        let body = Full::new(Bytes::from_static(b"ok"));
                        Ok::<_, Infallible>(Response::new(body))
                    }
                });
                tokio::spawn(async move {
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            port,
            request_count,
        }
    }
}

/// Calls that begin so often, whatever becomes of those before: how many were good.
async fn good(client: &Arc<Pod>, per_second: u32, seconds: u32) -> u32 {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    let mut calls = JoinSet::new();
    for _ in 0..per_second * seconds {
        ticks.tick().await;
        let client = Arc::clone(client);
        calls.spawn(async move {
            let started = Instant::now();
            let (status, _) = ask(&client, "GET", "", "").await;
            status == 200 && started.elapsed() <= GOOD_WITHIN
        });
    }
    calls.join_all().await.into_iter().map(u32::from).sum()
}

/// Other load of the machine delays calls, and makes an endpoint look busy that is not, so a failed
/// round shows less than a good one.
#[tokio::test]
async fn calm_calls_stay_in_zone_and_double_load_succeeds() {
    let mut failed = Vec::new();
    for _ in 0..ROUNDS {
        match round().await {
            Ok(()) => return,
            Err(why) => failed.push(why),
        }
    }
    panic!("in none of {ROUNDS} rounds: {failed:?}");
}

async fn round() -> Result<(), String> {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let client = Arc::new(client);
    let mut apps = Vec::new();
    for _ in 0..ALL {
        apps.push(Workers::new(server.ip).await);
    }
    let zone = |at: usize| if at < NEAR { "a" } else { "b" };
    let ports = apps
        .iter()
        .enumerate()
        .map(|(at, app)| (app.port, zone(at)));
    let ports: Vec<(u16, &str)> = ports.collect();
    client.set(vec![
        runs_in("a", "node-0"),
        near_by(&server, Some("api"), &ports),
    ]);
    let request_count = |some: &[Workers]| -> usize {
        let request_count = some.iter().map(|one| one.request_count.load(Relaxed));
        request_count.sum()
    };

    let calls = CALM * 5;
    let calm = good(&client, CALM, 5).await;
    let (near, all) = (request_count(&apps[..NEAR]), request_count(&apps[..]));
    println!("calm: {calm} of {calls} good, {near} of {all} near");
    holds(100 * calm >= 95 * calls, || {
        format!("{calm} of {calls} good when calm")
    })?;
    holds(100 * near >= 95 * all, || {
        format!("{near} of {all} near when calm")
    })?;

    let (calls, started) = (TWICE * 8, Instant::now());
    let busy = good(&client, TWICE, 8).await;
    let far = request_count(&apps[NEAR..]);
    println!("busy: {busy} of {calls} good, {far} elsewhere");
    holds(100 * busy >= 95 * calls, || {
        format!("{busy} of {calls} good when busy")
    })?;
    // What the own zone could not do in that time, or half of it.
    let own = (NEAR * WORKERS) as f64 * started.elapsed().as_secs_f64() / WORK.as_secs_f64();
    let rest = (f64::from(calls) - own) / 2.0;
    let control = || format!("control: {far} went elsewhere of {rest}");
    holds(far as f64 >= rest, control)
}

fn holds(what: bool, else_why: impl FnOnce() -> String) -> Result<(), String> {
    if what { Ok(()) } else { Err(else_why()) }
}
