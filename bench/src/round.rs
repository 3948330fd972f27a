//! All measurements of one system in one round.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::book::Book;
use crate::load::{self, Bulk, costing};
use crate::load_result::LoadResult;
use crate::loads::{COUNTED, Counted, HTTP, Http};
use crate::plan::Plan;
use crate::proof;
use crate::resources::{self, Pod, SERVED};
use crate::sidecar::get;
use crate::system::{Port, System, SystemKind, hold, touch};

/// Also gives the proof that rules and splits are at work something to look at.
const WARM_UP: &str = "warm-up";
/// Idle connections of the memory measure.
const IDLE: usize = 1000;
/// Connections of the burst, in as many parts as a proxy's own bound requires.
const BURST: (usize, usize) = (2, 5000);
/// Services of the measure of many of them, with ten endpoints each.
const MANY_SERVICES: u16 = 1000;
const SCRAPES: u32 = 100;
const CHANGES: u32 = 50;
/// How long connections have been idle when their memory is read.
const REST: Duration = Duration::from_secs(2);
/// Lets the machine settle between two measurements.
const PAUSE: Duration = Duration::from_millis(150);

/// What a round did not give.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    pub(crate) out_of_time: Vec<String>,
    /// With the reason.
    pub(crate) failed: Vec<String>,
}

/// Measures and notes. One measurement that fails leaves the others standing.
///
/// # Errors
/// When the system does not start, or did not do the work that it should.
pub(crate) fn run(
    system: &mut System,
    plan: &Plan,
    round: usize,
    deadline: Instant,
    book: &mut Book,
    gaps: &mut Gaps,
) -> Result<()> {
    if let Some(took) = system.start_pair()? {
        book.note("start", system.name, took.as_secs_f64() * 1e3);
    }
    let proxied = system.kind != SystemKind::Direct;
    let mut steps = Steps {
        system,
        plan,
        book,
        deadline,
        gaps,
    };
    if proxied {
        steps.step(
            "memory of idle connections",
            plan.load,
            memory_of_connections,
        )?;
    }
    steps.step(WARM_UP, plan.load, |system, _, _| warm_up(system))?;
    for load in HTTP.iter().filter(|load| plan.full || !load.full_only) {
        steps.step(load.cpu, plan.load, |system, plan, book| {
            at_full_speed(system, plan, load, book)
        })?;
    }
    steps.step("h2c", plan.load, |system, plan, book| {
        let (done, cost) = costing(system, |system| {
            load::h2load(system, Port::Http2, "/bench", plan.load)
        })?;
        note(book, system, "cpu-h2", "rps-h2", done, cost);
        Ok(())
    })?;
    const AT_1000: [&str; 5] = ["cpu-r1000", "p50-1000", "p90-1000", "p99-1000", "p999-1000"];
    const AT_4000: [&str; 5] = ["cpu-r4000", "p50-4000", "p90-4000", "p99-4000", "p999-4000"];
    steps.step("1000/s", plan.rate, |system, plan, book| {
        fixed_rate(system, plan, 1000, AT_1000, book)
    })?;
    steps.step("one TCP stream", plan.load, |system, plan, book| {
        bulk(system, plan, 1, ("tcp-rate", "tcp-cpu"), book)
    })?;
    steps.step("new TCP connections", plan.load, |system, plan, book| {
        short_connections(
            system,
            plan,
            Port::Bytes,
            ("cpu-conn-tcp", "conn-tcp"),
            book,
        )
    })?;
    if plan.full {
        steps.step("4000/s", plan.rate, |system, plan, book| {
            fixed_rate(system, plan, 4000, AT_4000, book)
        })?;
        steps.step("eight TCP streams", plan.load, |system, plan, book| {
            bulk(system, plan, 8, ("tcp8-rate", "tcp8-cpu"), book)
        })?;
        steps.step("new HTTP connections", plan.load, |system, plan, book| {
            short_connections(
                system,
                plan,
                Port::Http1,
                ("cpu-conn-http", "conn-http"),
                book,
            )
        })?;
    }
    for load in COUNTED.iter().filter(|load| plan.full || !load.full_only) {
        steps.step(load.step, plan.bodies, |system, plan, book| {
            counted(system, plan, load, book)
        })?;
    }
    steps.step("gRPC stream both ways", plan.bodies, both_ways)?;
    if proxied {
        steps
            .book
            .note("mem-after", steps.system.name, larger(steps.system)?);
    }
    proof::check(steps.system)?;
    by_other_processes(&mut steps, round)?;
    steps.system.stop_pair();
    Ok(())
}

/// Measurements for which proxies are started anew.
fn by_other_processes(steps: &mut Steps<'_>, round: usize) -> Result<()> {
    let plan = steps.plan;
    if plan.full && round == 0 && steps.system.kind != SystemKind::Direct {
        let takes = plan.calm + Duration::from_secs(10);
        steps.step("memory after a burst", takes, burst)?;
        if matches!(steps.system.kind, SystemKind::Weft(_)) {
            steps.step("many Services", Duration::from_secs(15), many_services)?;
        }
    }
    if plan.edge && steps.system.at_edge().is_some() {
        steps.step("edge", plan.load * 4, edge)?;
    }
    Ok(())
}

/// Measurements one after the other, as long as there is time.
struct Steps<'a> {
    system: &'a mut System,
    plan: &'a Plan,
    book: &'a mut Book,
    deadline: Instant,
    gaps: &'a mut Gaps,
}

impl Steps<'_> {
    fn step(
        &mut self,
        what: &str,
        takes: Duration,
        work: impl FnOnce(&mut System, &Plan, &mut Book) -> Result<()>,
    ) -> Result<()> {
        if what != WARM_UP && !self.plan.wants(what) {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
        if Instant::now() + takes > self.deadline {
            self.gaps.out_of_time.push(what.to_owned());
            return Ok(());
        }
        if let Err(error) = work(self.system, self.plan, self.book) {
            // The first line is the error; programs that make load print much more.
            let message = format!("{error:#}");
            let message = message.lines().next().unwrap_or_default();
            eprintln!("{}, {what}: {error:#}", self.system.name);
            self.gaps
                .failed
                .push(format!("{}, {what}: {message}", self.system.name));
            self.system.start_pair()?;
            // What it counted is gone, and the proof at the end looks at that.
            warm_up(self.system)?;
        }
        Ok(())
    }
}

fn warm_up(system: &System) -> Result<()> {
    let second = Duration::from_secs(1);
    load::wrk(system, Port::Http1, "/bench", 32, second, true).map(drop)
}

fn note(
    book: &mut Book,
    system: &System,
    cpu: &'static str,
    rate: &'static str,
    done: LoadResult,
    cost: load::Cost,
) {
    book.note(cpu, system.name, cost.micros_per(done.requests));
    book.note(rate, system.name, done.rate);
}

fn at_full_speed(system: &mut System, plan: &Plan, load: &Http, book: &mut Book) -> Result<()> {
    let mut under_load = None;
    let (done, cost) = costing(system, |system| {
        std::thread::scope(|scope| {
            let measured =
                (load.cpu == "cpu-c128" && system.kind != SystemKind::Direct).then(|| {
                    scope.spawn(|| {
                        std::thread::sleep(plan.load.mul_f64(0.8));
                        larger(system)
                    })
                });
            let done = load.make(system, plan.load);
            under_load = measured.and_then(|thread| thread.join().ok()).transpose()?;
            done
        })
    })?;
    note(book, system, load.cpu, load.rate, done, cost);
    if let Some(under_load) = under_load {
        book.note("mem-load", system.name, under_load);
    }
    Ok(())
}

fn counted(system: &mut System, plan: &Plan, load: &Counted, book: &mut Book) -> Result<()> {
    let count = load.calls.in_time(system, plan.bodies)?;
    let (done, cost) = costing(system, |system| load.calls.make(system, count, plan.bodies))?;
    let (rate, cost) = match load.bytes {
        Some(bytes) => {
            let bulk = Bulk::of(done, bytes);
            (bulk.gib_per_second, cost.0.as_secs_f64() / bulk.gib)
        }
        None => (done.rate, cost.micros_per(done.requests)),
    };
    book.note(load.rate, system.name, rate);
    // Without proxies the cost would be nginx's, which serves only the downloads.
    if system.kind != SystemKind::Direct {
        book.note(load.cpu, system.name, cost);
    }
    Ok(())
}

fn both_ways(system: &mut System, plan: &Plan, book: &mut Book) -> Result<()> {
    let (done, cost) = costing(system, |system| load::both_ways(system, plan.bodies))?;
    book.note("rps-both", system.name, done.rate);
    if system.kind != SystemKind::Direct {
        book.note("cpu-both", system.name, cost.micros_per(done.requests));
    }
    Ok(())
}

fn fixed_rate(
    system: &mut System,
    plan: &Plan,
    rate: u32,
    ids: [&'static str; 5],
    book: &mut Book,
) -> Result<()> {
    let (latencies, cost) = costing(system, |system| load::fixed(system, rate, plan.rate))?;
    book.note(ids[0], system.name, cost.micros_per(latencies.sent as f64));
    for (id, share) in ids[1..].iter().zip([0.5, 0.9, 0.99, 0.999]) {
        book.note(
            id,
            system.name,
            latencies.quantile(share).as_secs_f64() * 1e6,
        );
    }
    Ok(())
}

fn bulk(
    system: &mut System,
    plan: &Plan,
    streams: u32,
    ids: (&'static str, &'static str),
    book: &mut Book,
) -> Result<()> {
    let (done, cost) = costing(system, |system| load::iperf(system, streams, plan.load))?;
    book.note(ids.0, system.name, done.gib_per_second);
    // Without proxies the cost would be nginx's, which has no part in this.
    if system.kind != SystemKind::Direct {
        book.note(ids.1, system.name, cost.0.as_secs_f64() / done.gib);
    }
    Ok(())
}

fn short_connections(
    system: &mut System,
    plan: &Plan,
    port: Port,
    ids: (&'static str, &'static str),
    book: &mut Book,
) -> Result<()> {
    let (done, cost) = costing(system, |system| {
        load::wrk(system, port, "/bench", 16, plan.load, false)
    })?;
    note(book, system, ids.0, ids.1, done, cost);
    Ok(())
}

/// What stands at the edge, in the client's place. Its CPU alone: the server's proxy is not its
/// part.
fn edge(system: &mut System, plan: &Plan, book: &mut Book) -> Result<()> {
    system.start_edge()?;
    let wrk = |system: &System, port, time| load::wrk(system, port, "/bench", 32, time, true);
    for (port, cpu, rate) in [
        (Port::Edge, "cpu-edge", "rps-edge"),
        (Port::EdgeTls, "cpu-edge-tls", "rps-edge-tls"),
    ] {
        wrk(system, port, Duration::from_secs(1))?;
        let before = client_cpu(system)?;
        let done = wrk(system, port, plan.load)?;
        let cost = load::Cost(client_cpu(system)?.saturating_sub(before));
        system.pair_alive()?;
        note(book, system, cpu, rate, done, cost);
    }
    Ok(())
}

/// Before anything else grew the proxies.
fn memory_of_connections(system: &mut System, _plan: &Plan, book: &mut Book) -> Result<()> {
    let before = residents(system)?;
    book.note("mem-idle", system.name, megabytes(before.0.max(before.1)));
    let target = system.target(Port::Http1);
    let connections = system
        .namespaces
        .client
        .within(|| hold(target, Port::Http1.host(), IDLE))?;
    std::thread::sleep(REST);
    let during = residents(system)?;
    drop(connections);
    let grown = (during.0 + during.1).saturating_sub(before.0 + before.1);
    book.note("mem-conn", system.name, grown as f64 / IDLE as f64);
    system.pair_alive()
}

fn burst(system: &mut System, plan: &Plan, book: &mut Book) -> Result<()> {
    system.start_pair()?;
    load::wrk(
        system,
        Port::Http1,
        "/bench",
        32,
        Duration::from_secs(2),
        true,
    )?;
    let before = residents(system)?;
    let target = system.target(Port::Http1);
    for _ in 0..BURST.0 {
        drop(
            system
                .namespaces
                .client
                .within(|| hold(target, Port::Http1.host(), BURST.1))?,
        );
    }
    std::thread::sleep(plan.calm);
    let after = residents(system)?;
    let share = |after: u64, before: u64| after as f64 * 100.0 / before as f64;
    book.note(
        "mem-burst",
        system.name,
        share(after.0, before.0).max(share(after.1, before.1)),
    );
    system.pair_alive()
}

fn many_services(system: &mut System, _plan: &Plan, book: &mut Book) -> Result<()> {
    system.start_pair()?;
    system.namespaces.client.within(|| {
        for n in 0..SERVED {
            let (status, _) = get(resources::many_address(n), "web", "/bench")?;
            ensure!(status == 200, "many/many-{n} answered {status}");
        }
        Ok(())
    })?;
    let before = client_cpu(system)?;
    for _ in 0..SCRAPES {
        system.admin(Pod::Client, "/metrics")?;
    }
    let used = client_cpu(system)?.saturating_sub(before);
    book.note(
        "scrape",
        system.name,
        used.as_secs_f64() * 1e3 / f64::from(SCRAPES),
    );
    system.namespaces.client.within(|| {
        touch(
            (0..MANY_SERVICES).map(resources::many_address),
            Duration::from_millis(2),
        )
    })?;
    std::thread::sleep(Duration::from_secs(1));
    if let Some(controller) = &system.controller {
        let before = client_cpu(system)?;
        for _ in 0..CHANGES {
            controller.change_endpoints()?;
        }
        let used = client_cpu(system)?.saturating_sub(before);
        book.note(
            "apply",
            system.name,
            used.as_secs_f64() * 1e3 / f64::from(CHANGES),
        );
    }
    book.note("mem-crowd", system.name, megabytes(residents(system)?.0));
    system.pair_alive()
}

fn client_cpu(system: &System) -> Result<Duration> {
    let client = system.pair.as_ref().map(|pair| pair.client.cpu());
    client.unwrap_or(Ok(Duration::ZERO))
}

/// KiB of both proxies.
fn residents(system: &System) -> Result<(u64, u64)> {
    let pair = system.pair.as_ref();
    let kib =
        pair.map(|pair| Ok::<_, anyhow::Error>((pair.client.resident()?, pair.server.resident()?)));
    kib.unwrap_or(Ok((0, 0)))
}

fn larger(system: &System) -> Result<f64> {
    residents(system).map(|(client, server)| megabytes(client.max(server)))
}

fn megabytes(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}
