//! The load of `make eyes`: five minutes of calls of every kind, and their results as counted by
//! the generator and, where the mesh retries, by the applications.

use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context as _, ensure};
use e2e::{
    echo::{
        load::Summary,
        request_log::{self, LogSnapshot, Record},
    },
    harness::{Api, App, Load, Namespace, Pod, eventually},
};
use http::Method;
use serde_json::json;

use super::{SOON, url};

/// Requests begin for so long.
const LOAD: &str = "300s";
/// What stays open does so for so long, and is over before the last request.
const OPEN_FOR: &str = "285s";
const STREAMS: u64 = 4;
const CONNECTIONS: u64 = 20;
/// Connections of bytes that come and go: so many at once, for so long, so often. A little
/// less than the load lasts.
const SHORT: (&str, &str, usize) = ("20", "4s", 45);
/// The port of the application's log; pods skip it, so that no proxy counts the test's own
/// requests.
const BYPASS: u16 = 9092;
/// Requests below this path fail in so many percent: with 500, which callers see, and with
/// 503, which is retried within the budget.
const FAULTY: &str = "/items";
const FAILED: u32 = 10;
const SENT_AGAIN: u32 = 4;

/// One edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoadEdge {
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) port: u16,
    pub(crate) protocol: &'static str,
}

/// What went over it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EdgeTotals {
    pub(crate) edge: LoadEdge,
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    pub(crate) cancelled: u64,
    pub(crate) attempts: u64,
    pub(crate) attempt_failures: u64,
    /// Open all the while that something is held; unknown where requests come and go.
    pub(crate) open: Option<u64>,
}

/// `web` makes calls that end, `holder` those that stay open.
#[derive(Debug)]
pub(crate) struct Town {
    pub(crate) ns: Namespace,
    api: Api,
    web: Pod,
    holder: Pod,
    shaky: Vec<Pod>,
}

/// What is started before the first of it ends.
struct Loads {
    steady: Load,
    left: Load,
    unary: Load,
    faulty: Load,
    retried: Load,
}

const fn edge(from: &'static str, to: &'static str, port: u16, protocol: &'static str) -> LoadEdge {
    LoadEdge {
        from,
        to,
        port,
        protocol,
    }
}

impl Town {
    /// All of it runs, was called once over each way, and fails as it shall.
    pub(crate) fn begin() -> anyhow::Result<Self> {
        let ns = Namespace::meshed("eyes-load")?;
        // Two, because a retry never goes to the endpoint of the first attempt.
        let shaky = App::new("shaky")
            .replicas(2)
            .annotation("weft.dev/skip-inbound-ports", &BYPASS.to_string());
        ns.apply_all(&shaky.objects())?;
        ns.run(&["web", "holder", "cart"])?;
        ns.ready(&["shaky"])?;
        let town = Self {
            api: Api::open(&ns.cluster)?,
            web: ns.pod("web")?,
            holder: ns.pod("holder")?,
            shaky: ns.pods("shaky")?,
            ns,
        };
        ensure!(town.shaky.len() == 2, "{:?}", town.shaky);
        eventually(SOON, "every way serves", || town.is_served())?;
        let cart = town.ns.pod("cart")?;
        town.fails(&cart, 500, FAILED)?;
        for pod in &town.shaky {
            town.fails(pod, 503, SENT_AGAIN)?;
        }
        Ok(town)
    }

    fn is_served(&self) -> anyhow::Result<()> {
        for (from, services) in [
            (&self.web, &["cart", "shaky"][..]),
            (&self.holder, &["cart"][..]),
        ] {
            for service in services {
                from.report(&url(service, 8080, "/"), &[])?;
                from.report(&url(service, 8080, "/"), &["--http2"])?;
            }
            from.exec(&["tcp", "cart:9000"])?;
            let called = from.grpc(&["cart:8080"])?;
            ensure!(called.grpc_status.as_deref() == Some("0"), "{called:?}");
        }
        Ok(())
    }

    fn fails(&self, pod: &Pod, status: u16, percent: u32) -> anyhow::Result<()> {
        let wrong = json!({"status": status, "percent": percent, "only": FAULTY, "for": "10m"});
        self.api.set_fault(pod, &wrong)
    }

    /// Makes all calls and meanwhile what else is to be done; returns with the last of them.
    pub(crate) fn calls<T>(
        &self,
        meanwhile: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<(Vec<EdgeTotals>, T)> {
        let (web, holder) = (&self.web, &self.holder);
        let loads = self.loads()?;
        let (meanwhile, short) = thread::scope(|scope| {
            let streams: Vec<_> = (0..STREAMS)
                .map(|_| scope.spawn(move || stream(holder)))
                .collect();
            let count = CONNECTIONS.to_string();
            let held_count = scope.spawn(move || connections(holder, &count, OPEN_FOR));
            let short = scope.spawn(move || short(web));
            let meanwhile = meanwhile()?;
            for stream in streams {
                joined(stream)?;
            }
            let held_count = joined(held_count)?;
            ensure!(
                held_count == CONNECTIONS,
                "{held_count} of {CONNECTIONS} were held"
            );
            anyhow::Ok((meanwhile, joined(short)?))
        })?;
        let mut seen = loads.seen()?;
        seen.push(all_well(edge("web", "cart", 9000, "tcp"), short, None));
        seen.push(all_well(
            edge("holder", "cart", 8080, "grpc"),
            STREAMS,
            Some(STREAMS),
        ));
        seen.push(all_well(
            edge("holder", "cart", 9000, "tcp"),
            CONNECTIONS,
            Some(CONNECTIONS),
        ));
        for seen in &mut seen {
            if seen.edge.to == "shaky" {
                self.reached(seen)?;
            }
        }
        Ok((seen, meanwhile))
    }

    fn loads(&self) -> anyhow::Result<Loads> {
        let load = |path: &str, rate: &str, more: &[&str]| {
            let every = ["--rate", rate, "--duration", LOAD, "-c", "8"];
            let called = url("cart", 8080, path);
            self.web.start_load(&called, &[&every[..], more].concat())
        };
        let grpc = |status: &str, rate: &str| {
            let status = format!("echo-grpc-status:{status}");
            let kind = "content-type:application/grpc";
            let head = ["--http2", "-X", "POST", "-H", kind, "-H", "te:trailers"];
            let more = [&head[..], &["-H", &status]].concat();
            load("/weft.echo.Echo/Unary", rate, &more)
        };
        let shaky = url("shaky", 8080, FAULTY);
        let every = ["--rate", "16", "--duration", LOAD, "-c", "8"];
        Ok(Loads {
            steady: load(FAULTY, "40", &[])?,
            // Over HTTP/1.1 a client that closes may still read: only HTTP/2 signals a cancel.
            left: load("/slow?delay=3s", "4", &["--http2", "--timeout", "500ms"])?,
            unary: grpc("0", "20")?,
            faulty: grpc("13", "2")?,
            retried: self.web.start_load(&shaky, &every)?,
        })
    }

    /// What is sent again, only the applications know.
    fn reached(&self, seen: &mut EdgeTotals) -> anyhow::Result<()> {
        let mut records: Vec<Record> = Vec::new();
        for pod in &self.shaky {
            let path = format!("{}?only={FAULTY}", request_log::PATH);
            let (status, text) = self.api.ask_pod(pod, BYPASS, &Method::GET, &path, "")?;
            ensure!(status == 200, "{} answered {status}: {text}", pod.name);
            let log: LogSnapshot = serde_json::from_str(&text)?;
            ensure!(log.lost == 0, "{} lost {} records", pod.name, log.lost);
            records.extend(log.records);
        }
        let failed = records.iter().filter(|one| one.status == Some(503));
        seen.attempt_failures = failed.count() as u64;
        seen.attempts = records.len() as u64;
        ensure!(
            seen.attempts > seen.requests,
            "nothing was sent again: {seen:?}"
        );
        Ok(())
    }
}

impl Loads {
    fn seen(self) -> anyhow::Result<Vec<EdgeTotals>> {
        let cart = |protocol| edge("web", "cart", 8080, protocol);
        let steady = answered(self.steady)?;
        let failures = of(&steady, "500");
        let http1 = EdgeTotals {
            failures,
            attempt_failures: failures,
            ..all_well(cart("http1"), steady.sent, None)
        };
        let left = self.left.finish()?;
        let cancelled = left.errors.get("timeout").copied().unwrap_or_default();
        ensure!(cancelled == left.sent, "not all left: {left:?}");
        let http2 = EdgeTotals {
            cancelled,
            ..all_well(cart("http2"), left.sent, None)
        };
        let (unary, faulty) = (answered(self.unary)?, answered(self.faulty)?);
        let grpc = EdgeTotals {
            failures: faulty.sent,
            attempt_failures: faulty.sent,
            ..all_well(cart("grpc"), unary.sent + faulty.sent, None)
        };
        let retried = answered(self.retried)?;
        let shaky = EdgeTotals {
            failures: of(&retried, "503"),
            ..all_well(edge("web", "shaky", 8080, "http1"), retried.sent, None)
        };
        Ok(vec![http1, http2, grpc, shaky])
    }
}

/// Calls that were each sent once and went well.
fn all_well(edge: LoadEdge, requests: u64, open: Option<u64>) -> EdgeTotals {
    EdgeTotals {
        edge,
        requests,
        failures: 0,
        cancelled: 0,
        attempts: requests,
        attempt_failures: 0,
        open,
    }
}

/// A load of which nothing was lost on its way.
fn answered(load: Load) -> anyhow::Result<Summary> {
    let seen = load.finish()?;
    ensure!(
        seen.sent == seen.planned && seen.answered == seen.sent,
        "calls were lost: {seen:?}"
    );
    Ok(seen)
}

fn of(seen: &Summary, status: &str) -> u64 {
    seen.by_status.get(status).copied().unwrap_or_default()
}

/// A stream of gRPC that stays open.
fn stream(from: &Pod) -> anyhow::Result<()> {
    let seen = from.grpc(&["cart:8080", "--duration", OPEN_FOR, "--rate", "2"])?;
    let whole = seen.grpc_status.as_deref() == Some("0") && seen.received == seen.sent;
    ensure!(whole, "a stream broke off: {seen:?}");
    Ok(())
}

/// Connections of bytes; how many of them answered at their end.
fn connections(from: &Pod, count: &str, time: &str) -> anyhow::Result<u64> {
    let args = ["tcp", "cart:9000", "-c", count, "--duration", time];
    let alive = from.exec(&args)?;
    let alive = alive.trim();
    alive
        .parse()
        .with_context(|| format!("weft-echo tcp printed {alive}"))
}

/// Connections of bytes that come and go; how many there were.
fn short(from: &Pod) -> anyhow::Result<u64> {
    let (count, time, rounds) = SHORT;
    let mut all = 0;
    for _ in 0..rounds {
        let alive = connections(from, count, time)?;
        ensure!(alive.to_string() == count, "{alive} of {count} answered");
        all += alive;
    }
    Ok(all)
}

fn joined<T>(thread: ScopedJoinHandle<'_, anyhow::Result<T>>) -> anyhow::Result<T> {
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("a thread panicked"))?
}
