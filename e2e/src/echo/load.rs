//! A bounded load generator: so many requests, over so many connections, at such
//! a rate, and a JSON report of what came back.
//!
//! With a rate, request `i` is due at `start + i / rate` whatever happened to
//! the others, so a stall shows as latency and never as less load.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::{Future, pending},
    pin::pin,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::task::{JoinSet, LocalSet};

use super::{
    call::ProxyResponse,
    client::{Ask, Client, NoAnswer, WholeResponse},
};

/// Latencies are kept one by one, 4 bytes each.
pub const REQUESTS_LIMIT: u64 = 1_000_000;
/// Below the usual limit of 1024 open files.
pub const CONNECTIONS_LIMIT: u64 = 1000;
/// Longer than any test runs.
pub const DURATION_LIMIT: Duration = Duration::from_secs(600);

/// The load: which requests, how many, over how many connections, at which rate.
#[derive(Clone, Debug)]
pub struct Plan {
    pub ask: Ask,
    /// Ends after so many requests.
    pub requests: u64,
    /// Keep-alive connections; requests on one connection follow each other.
    pub connections: u64,
    /// Requests per second over all connections; none sends as fast as answered.
    pub rate: Option<f64>,
    /// Ends after this time.
    pub duration: Option<Duration>,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Requests that the plan held; with a rate and a duration their product. Where it was
    /// ended early, those that were due until then.
    pub planned: u64,
    pub sent: u64,
    /// Requests with a whole answer of any status.
    pub answered: u64,
    pub by_status: BTreeMap<String, u64>,
    /// By the answering pod's name; answers that name none are under `-`.
    pub by_pod: BTreeMap<String, u64>,
    pub by_version: BTreeMap<String, u64>,
    /// By gRPC's own status, where answers have one.
    pub by_grpc_status: BTreeMap<String, u64>,
    /// By header `weft-reason`, present on answers that the mesh made.
    pub by_reason: BTreeMap<String, u64>,
    /// Requests without an answer: `connect`, `broken`, `timeout`.
    pub errors: BTreeMap<String, u64>,
    /// The first failure's text.
    pub first_error: String,
    pub connects: u64,
    pub seconds: f64,
    /// Milliseconds from when a request was due to its answer's last byte.
    pub latency_ms: Latency,
    /// The answer or failure that came last.
    pub last: ProxyResponse,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

struct Run {
    summary: Summary,
    micros: Vec<u32>,
    next: u64,
    start: Instant,
}

impl Run {
    /// Nothing more is due from now on.
    fn end(&mut self, rate: Option<f64>) {
        let due = rate.map_or(0, |rate| {
            (rate * self.start.elapsed().as_secs_f64()).ceil() as u64
        });
        let planned = &mut self.summary.planned;
        *planned = due.max(self.next).min(*planned);
    }
}

impl Plan {
    /// Requests that will be sent if the time suffices.
    fn planned(&self) -> u64 {
        match (self.rate, self.duration) {
            (Some(rate), Some(duration)) => self
                .requests
                .min((rate * duration.as_secs_f64()).round() as u64),
            _ => self.requests,
        }
    }

    /// What there is time for at `now` of a load that ends at `ends`, a part of it if that is
    /// long; `None` where no request is due any more.
    pub fn until(&self, ends: SystemTime, now: SystemTime) -> Option<Self> {
        let left = ends.duration_since(now).ok()?;
        let part = Self {
            requests: REQUESTS_LIMIT,
            duration: Some(left.min(DURATION_LIMIT)),
            ..self.clone()
        };
        (part.planned() > 0).then_some(part)
    }

    /// Runs to its end. Must not be nested in another `LocalSet`.
    pub async fn run(self) -> Summary {
        self.run_until(pending()).await
    }

    /// The same, ended early by `over`: with a rate, all that was due by then is sent.
    pub async fn run_until(self, over: impl Future<Output = ()>) -> Summary {
        let run = Rc::new(RefCell::new(Run {
            summary: Summary {
                planned: self.planned(),
                ..Summary::default()
            },
            micros: Vec::new(),
            next: 0,
            start: Instant::now(),
        }));
        let local = LocalSet::new();
        let mut workers = JoinSet::new();
        for _ in 0..self.connections {
            workers.spawn_local_on(work(self.clone(), run.clone()), &local);
        }
        let mut all = pin!(async { while workers.join_next().await.is_some() {} });
        let to_its_end = async {
            tokio::select! {
                () = &mut all => return,
                () = over => run.borrow_mut().end(self.rate),
            }
            all.await;
        };
        local.run_until(to_its_end).await;
        let mut run = run.borrow_mut();
        run.summary.seconds = run.start.elapsed().as_secs_f64();
        run.summary.latency_ms = Latency::of(std::mem::take(&mut run.micros));
        run.summary.clone()
    }
}

async fn work(plan: Plan, run: Rc<RefCell<Run>>) {
    let mut client = Client::new(plan.ask);
    loop {
        let (index, start) = {
            let mut run = run.borrow_mut();
            // Without a rate the duration alone may end it; with one, all that
            // is due within the duration is sent, however late.
            let late = plan.rate.is_none()
                && plan
                    .duration
                    .is_some_and(|limit| run.start.elapsed() >= limit);
            if run.next >= run.summary.planned || late {
                run.summary.connects += client.connects;
                return;
            }
            run.next += 1;
            (run.next - 1, run.start)
        };
        let due = match plan.rate {
            Some(rate) => start + Duration::from_secs_f64(index as f64 / rate),
            None => Instant::now(),
        };
        tokio::time::sleep_until(due.into()).await;
        run.borrow_mut().summary.sent += 1;
        let outcome = client.send().await;
        let mut run = run.borrow_mut();
        run.summary.note(outcome);
        run.micros
            .push(u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
}

impl Summary {
    fn note(&mut self, outcome: Result<WholeResponse, NoAnswer>) {
        match outcome {
            Ok(answer) => {
                self.answered += 1;
                let header = |name| {
                    answer
                        .headers
                        .get(name)
                        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                };
                count(&mut self.by_status, answer.status.as_str().to_owned());
                count(&mut self.by_pod, header("echo-pod").unwrap_or("-".into()));
                count(
                    &mut self.by_version,
                    header("echo-version").unwrap_or("-".into()),
                );
                let in_head = answer.headers.get("grpc-status");
                if let Some(status) = answer.trailers.get("grpc-status").or(in_head) {
                    let status = String::from_utf8_lossy(status.as_bytes());
                    count(&mut self.by_grpc_status, status.into_owned());
                }
                if let Some(reason) = header("weft-reason") {
                    count(&mut self.by_reason, reason);
                }
                self.last = answer.into();
            }
            Err(none) => {
                count(&mut self.errors, none.failure.as_str().to_owned());
                let text = format!("{:#}", none.detail);
                if self.first_error.is_empty() {
                    self.first_error.clone_from(&text);
                }
                self.last = ProxyResponse {
                    error: text,
                    ..ProxyResponse::default()
                };
            }
        }
    }
}

fn count(counts: &mut BTreeMap<String, u64>, key: String) {
    *counts.entry(key).or_default() += 1;
}

impl Latency {
    fn of(mut micros: Vec<u32>) -> Self {
        micros.sort_unstable();
        let at = |share: f64| {
            let index = (micros.len() as f64 * share).ceil() as usize;
            micros
                .get(index.saturating_sub(1))
                .map_or(0.0, |micros| f64::from(*micros) / 1000.0)
        };
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}
