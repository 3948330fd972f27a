//! When a request's deadline passes, reads for it end at every hop, and writes go on.

use std::{
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow, bail, ensure};
use e2e::{
    echo::{
        call::ProxyResponse,
        request_log::{Record, RequestState},
    },
    harness::{Api, App, Load, Namespace, Outcome, Pod, eventually},
};

use super::super::url;
use super::links::{calls_on, fault, link, requests};
use super::{ROUNDS, SOON, between, left, order, same};

/// What a request says that has so many milliseconds.
const DEADLINE: &str = "weft-timeout:2000ms";
const TIME: f64 = 2000.0;
/// Milliseconds from its end until an application sees it.
const SEEN: f64 = 200.0;
/// In a round that does not hold: what is not cut ends 2000 after it.
const SEEN_AT_MOST: f64 = 1900.0;
/// Microseconds that a call has at the first hop at least, or it may not come to the others in
/// time.
const SPARE: u64 = 500_000;
/// Each hop sends whole milliseconds, rounded down.
const EARLY: f64 = 50.0;

/// `client` calls `gate`, behind which is a chain, whose last one is slow below `/slow`. The
/// gate itself holds what is below `/held` for longer than any deadline.
struct Town {
    /// Goes with the test.
    _ns: Namespace,
    api: Api,
    client: Pod,
    gate: Pod,
    chain: [Pod; 3],
}

impl Town {
    fn new() -> anyhow::Result<Self> {
        let ns = Namespace::meshed("chain-deadlines")?;
        let apps = [
            link("client"),
            calls_on("gate", "a", "context"),
            calls_on("a", "b", "context"),
            calls_on("b", "c", "context"),
            link("c"),
        ];
        ns.apply_all(&apps.iter().flat_map(App::objects).collect::<Vec<_>>())?;
        ns.ready(&["client", "gate", "a", "b", "c"])?;
        let town = Self {
            api: Api::open(&ns.cluster)?,
            client: ns.pod("client")?,
            gate: ns.pod("gate")?,
            chain: [ns.pod("a")?, ns.pod("b")?, ns.pod("c")?],
            _ns: ns,
        };
        eventually(SOON, "the chain answers", || {
            let report = town.client.report(&url("gate", 8080, "/warm"), &[])?;
            ensure!(report.hops.len() == 3, "{report:?}");
            Ok(())
        })?;
        let [_, _, last] = &town.chain;
        fault(last, r#"{"delay": "4s", "only": "/slow", "for": "5m"}"#)?;
        let held_fault = r#"{"delay": "5s", "only": "/held", "for": "5m"}"#;
        fault(&town.gate, held_fault)?;
        Ok(town)
    }

    /// A request of the client, once the gate's application has it.
    fn held_call(&self, path: &str, args: &[&str]) -> anyhow::Result<(Load, Record)> {
        let load = self.client.start_load(&url("gate", 8080, path), args)?;
        let record = eventually(SOON, "the gate has the request", || {
            let got = requests(&self.api, &self.gate, path)?;
            got.into_iter().next().context("it has not")
        })?;
        Ok((load, record))
    }

    /// A call that the gate's application makes to the chain with this header. It does not
    /// end it by itself.
    fn call(&self, method: &str, path: &str, shown: (&str, &str)) -> anyhow::Result<Called> {
        let to = (method, url("a", 8080, path));
        let answer = order(&self.api, &self.gate, to, shown)?;
        let ended = SystemTime::now().duration_since(UNIX_EPOCH)?;
        Ok(Called {
            path: path.to_owned(),
            answer,
            ended: u64::try_from(ended.as_micros())?,
        })
    }

    /// What reached the application of this pod, once all of it has ended.
    fn ended(&self, pod: &Pod, path: &str) -> anyhow::Result<Vec<Record>> {
        eventually(SOON, "all requests have ended", || {
            let records = requests(&self.api, pod, path)?;
            let open = records
                .iter()
                .any(|record| record.how == RequestState::Open);
            ensure!(!open, "{}: {records:?}", pod.name);
            Ok(records)
        })
    }

    /// The one request for `path` at each of the chain.
    fn one_each(&self, path: &str) -> anyhow::Result<Vec<Record>> {
        let mut all = Vec::new();
        for pod in &self.chain {
            let records = self.ended(pod, path)?;
            ensure!(records.len() == 1, "{}: {records:?}", pod.name);
            all.extend(records);
        }
        Ok(all)
    }

    /// Whether a call came to the first of the chain so late, or for that not at all, that
    /// nothing follows for the others.
    fn came_late(&self, call: &Called, end: u64) -> anyhow::Result<bool> {
        let [first, ..] = &self.chain;
        let (path, _) = call
            .path
            .split_once('?')
            .unwrap_or((call.path.as_str(), ""));
        let came = self.ended(first, path)?;
        let in_time = |at: u64| at + SPARE < end;
        let late = match came.first() {
            Some(record) => !in_time(record.began),
            None => {
                ensure!(!in_time(call.ended), "refused before {end}: {call:?}");
                true
            }
        };
        if late {
            println!("came too late, its time was over at {end}: {call:?}");
        }
        Ok(late)
    }
}

/// A call of the gate's application that is over.
#[derive(Debug)]
struct Called {
    /// With the query.
    path: String,
    answer: ProxyResponse,
    /// In microseconds since 1970, as logs have it.
    ended: u64,
}

/// Repeats a round, with paths of its own each time, whose calls came too late to say anything.
fn until_in_time(what: &str, round: impl Fn(usize) -> anyhow::Result<bool>) -> anyhow::Result<()> {
    for number in 0..ROUNDS {
        if round(number)? {
            return Ok(());
        }
    }
    bail!("{what}: in none of {ROUNDS} rounds the calls came in time");
}

/// Trace context of its own for each number.
fn traceparent(number: usize) -> String {
    format!("00-4bf92f3577b34da6a3ce929d0e0e47{number:02x}-00f067aa0ba902b7-01")
}

/// When the time of a request is over that has reached the gate, in microseconds since 1970.
fn end(held_call: &Record) -> anyhow::Result<u64> {
    Ok(held_call.began + (left(held_call)? * 1000.0) as u64)
}

/// Its application saw its deadline pass: its request was cancelled, or its own call was, and
/// reported that first. The last one of a chain makes no call, and answers nothing but 200.
fn saw_end(record: &Record) -> bool {
    match record.how {
        RequestState::Cancelled => true,
        RequestState::Answered => record.status == Some(504),
        RequestState::Open => false,
    }
}

fn is_late(answer: &ProxyResponse) -> bool {
    let reason = answer.headers.get("weft-reason").map(String::as_str);
    answer.status == 504 && reason == Some("deadline")
}

/// The request of a load that is over because its time was.
fn was_late(load: Load) -> anyhow::Result<()> {
    let seen = load.finish()?;
    ensure!(is_late(&seen.last), "{seen:?}");
    Ok(())
}

/// Their answers came whole, and later than `end`.
fn went_on(records: &[Record], end: u64) -> anyhow::Result<()> {
    for record in records {
        let good = (record.how, record.status) == (RequestState::Answered, Some(200));
        ensure!(good && record.ended > Some(end), "{end}: {record:?}");
    }
    Ok(())
}

fn readers_end_everywhere(town: &Town) -> anyhow::Result<()> {
    for round in 0..ROUNDS {
        if all_see_the_end(town, &format!("/slow/read/{round}"))? {
            return Ok(());
        }
    }
    bail!("in none of {ROUNDS} rounds all saw the end within {SEEN} ms");
}

/// Whether every application sees the end of each of five calls in time.
fn all_see_the_end(town: &Town, path: &str) -> anyhow::Result<bool> {
    // Not all at once, or they would wait for each other's work.
    let args = [
        "-n", "5", "-c", "5", "--rate", "2", "--trace", "-H", DEADLINE,
    ];
    let seen = town.client.get(&url("gate", 8080, path), &args)?;
    ensure!(seen.by_reason.get("deadline") == Some(&5), "{seen:?}");
    let firsts = town.ended(&town.gate, path)?;
    let mut holds = true;
    for first in &firsts {
        let used = TIME - left(first)?;
        println!("{used} ms were used before the gate");
        holds &= (0.0..=EARLY).contains(&used);
    }
    for pod in [&town.gate].into_iter().chain(&town.chain) {
        let records = town.ended(pod, path)?;
        ensure!(records.len() == 5, "{}: {records:?}", pod.name);
        let mut late = Vec::new();
        for record in &records {
            ensure!(saw_end(record), "{}: {record:?}", pod.name);
            let ended = record.ended.context("it has not ended")?;
            late.push(between(end(same(&firsts, record)?)?, ended));
        }
        println!("{} saw the end after so many ms: {late:.1?}", pod.name);
        let last = late.iter().copied().fold(f64::MIN, f64::max);
        ensure!(
            last <= SEEN_AT_MOST,
            "{} saw one end after {last} ms",
            pod.name
        );
        holds &= late.iter().all(|late| (-EARLY..=SEEN).contains(late));
    }
    Ok(holds)
}

/// Whether the calls came in time to say that.
fn writers_go_on_and_none_begins(town: &Town, round: usize) -> anyhow::Result<bool> {
    let held = format!("/held/writers/{round}");
    let (load, held_call) = town.held_call(&held, &["-H", DEADLINE])?;
    let context = held_call.headers.get("weft-context");
    let shown = ("weft-context", context.context("it has no name")?.as_str());
    let paths = ["/slow/write", "/slow/control", "/step"].map(|path| format!("{path}/{round}"));
    let [to_write, to_read, to_step] = &paths;
    let slow_step = format!("{to_step}?delay=1200ms");
    let calls = thread::scope(|scope| {
        let write = scope.spawn(|| town.call("POST", to_write, shown));
        let read = scope.spawn(|| town.call("GET", to_read, shown));
        // Each hop waits before it calls on: the second one for too long.
        let step = scope.spawn(|| town.call("POST", &slow_step, shown));
        [write, read, step].map(|call| call.join())
    });
    let [write, read, step] =
        calls.map(|call| call.unwrap_or_else(|_| Err(anyhow!("a call panicked"))));
    let (write, read, step) = (write?, read?, step?);
    was_late(load)?;
    let end = end(&held_call)?;
    for call in [&write, &read, &step] {
        if town.came_late(call, end)? {
            return Ok(false);
        }
    }

    ensure!(
        is_late(&read.answer),
        "control: its time ends what reads: {read:?}"
    );
    for record in town.one_each(to_read)? {
        ensure!(saw_end(&record), "control: {record:?}");
    }
    ensure!(write.answer.status == 200, "{write:?}");
    went_on(&town.one_each(to_write)?, end)?;
    ensure!(
        step.answer.status == 504,
        "nothing begins at the last: {step:?}"
    );
    goes_no_further(town, to_step, end)?;

    let after = format!("/after/{round}");
    for method in ["POST", "GET"] {
        let refused = town.call(method, &after, shown)?;
        ensure!(is_late(&refused.answer), "{method}: {refused:?}");
    }
    let [first, ..] = &town.chain;
    let none = requests(&town.api, first, &after)?;
    ensure!(none.is_empty(), "{none:?}");
    Ok(true)
}

/// What came to the first two of the chain went on, and the last one got nothing after `end`.
fn goes_no_further(town: &Town, path: &str, end: u64) -> anyhow::Result<()> {
    let [first, second, last] = &town.chain;
    let began = town.ended(first, path)?;
    ensure!(began.len() == 1, "{began:?}");
    for record in began.into_iter().chain(town.ended(second, path)?) {
        ensure!(
            record.how == RequestState::Answered,
            "broken off: {record:?}"
        );
        ensure!(record.began < end, "it began after {end}: {record:?}");
    }
    let none = requests(&town.api, last, path)?;
    ensure!(none.is_empty(), "{none:?}");
    Ok(())
}

/// Whether the call came in time to say that.
fn a_trace_has_the_end_of_its_request(town: &Town, round: usize) -> anyhow::Result<bool> {
    let context = traceparent(2 * round);
    let header = format!("traceparent:{context}");
    let held = format!("/held/alone/{round}");
    let (load, held_call) = town.held_call(&held, &["-H", DEADLINE, "-H", &header])?;
    let path = format!("/slow/alone/{round}");
    let control = town.call("GET", &path, ("traceparent", context.as_str()))?;
    was_late(load)?;
    if town.came_late(&control, end(&held_call)?)? {
        return Ok(false);
    }
    ensure!(
        is_late(&control.answer),
        "control: a trace has an end: {control:?}"
    );
    Ok(true)
}

/// Whether the call came in time to say that.
fn of_a_trace_the_loosest_end_holds(town: &Town, round: usize) -> anyhow::Result<bool> {
    let context = traceparent(2 * round + 1);
    let header = format!("traceparent:{context}");
    let [free, bound] = ["free", "bound"].map(|name| format!("/held/{name}/{round}"));
    let (free, _) = town.held_call(&free, &["-H", &header])?;
    let (load, held_call) = town.held_call(&bound, &["-H", DEADLINE, "-H", &header])?;
    let path = format!("/slow/shared/{round}");
    let call = town.call("GET", &path, ("traceparent", context.as_str()))?;
    was_late(load)?;
    let free = free.finish()?;
    ensure!(free.by_status.get("200") == Some(&1), "{free:?}");
    let end = end(&held_call)?;
    if town.came_late(&call, end)? {
        return Ok(false);
    }

    ensure!(
        call.answer.status == 200,
        "its caller waits for it: {call:?}"
    );
    let records = town.one_each(&path)?;
    went_on(&records, end)?;
    let both = records.iter().all(|record| record.began < end);
    ensure!(both, "both were in flight until {end}: {records:?}");
    Ok(true)
}

// Claims: calls-77
#[test]
fn request_deadline_stops_readers_everywhere_but_no_writer() -> Outcome {
    let town = Town::new()?;
    readers_end_everywhere(&town)?;
    until_in_time("writers go on", |round| {
        writers_go_on_and_none_begins(&town, round)
    })?;
    until_in_time("a trace has an end", |round| {
        a_trace_has_the_end_of_its_request(&town, round)
    })?;
    until_in_time("the loosest end holds", |round| {
        of_a_trace_the_loosest_end_holds(&town, round)
    })?;
    Ok(())
}
