//! Programs that make load, what they print, and what it cost.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::load_result::LoadResult;
use crate::rate::{self, Latencies, Load};
use crate::streams;
use crate::system::{Port, System};

/// Beyond its own time, a program gets this long to begin and end.
const SLACK: Duration = Duration::from_secs(5);
/// Streams on the one connection of HTTP/2.
const AT_ONCE: u32 = 32;
/// Content of the messages of gRPC that go both ways.
const BOTH_WAYS: u32 = 100;

/// CPU time that both proxies used, or the server where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost(pub(crate) Duration);

impl Cost {
    pub(crate) fn micros_per(self, requests: f64) -> f64 {
        self.0.as_secs_f64() * 1e6 / requests
    }
}

/// Calls that are counted out beforehand, so that each of them comes to its end,
/// and whose responses are counted by the byte: one that is shorter than it should
/// be is a failure, whatever its status is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    pub(crate) port: Port,
    pub(crate) path: &'static str,
    /// A file of the bench that is sent with each.
    pub(crate) body: Option<&'static str>,
    /// Bytes of each answer.
    pub(crate) answer: usize,
    /// At a time.
    pub(crate) streams: u32,
    /// Made before those that are measured, to learn how many fit into the time.
    pub(crate) probe: u32,
}

impl Calls {
    pub(crate) const fn grpc(method: &'static str, body: &'static str, answer: usize) -> Self {
        Self {
            port: Port::Grpc,
            path: method,
            body: Some(body),
            answer,
            streams: AT_ONCE,
            probe: 2000,
        }
    }

    /// A body that comes back.
    pub(crate) const fn echo(body: &'static str, length: usize) -> Self {
        Self {
            port: Port::Echo,
            path: "/bench-echo",
            body: Some(body),
            answer: length,
            streams: AT_ONCE,
            probe: 2000,
        }
    }

    /// A MB in messages of gRPC, in one direction.
    pub(crate) const fn stream(method: &'static str, body: &'static str, answer: usize) -> Self {
        Self {
            probe: 64,
            ..Self::grpc(method, body, answer)
        }
    }

    /// One after the other.
    pub(crate) const fn download(port: Port, path: &'static str, length: usize) -> Self {
        Self {
            port,
            path,
            body: None,
            answer: length,
            streams: 1,
            probe: 1,
        }
    }

    /// How many of them take about this long.
    pub(crate) fn in_time(&self, system: &System, time: Duration) -> Result<u32> {
        let probe = self
            .make(system, self.probe, time)
            .context("before the measurement")?;
        Ok((probe.rate * time.as_secs_f64()).max(f64::from(self.streams)) as u32)
    }

    /// Makes that many.
    pub(crate) fn make(&self, system: &System, count: u32, time: Duration) -> Result<LoadResult> {
        let (count_text, streams) = (count.to_string(), format!("-m{}", self.streams));
        let body = self.body.map(|body| system.shared(body));
        let mut extra = vec![&*streams, "-n", &count_text];
        if let Some(body) = &body {
            extra.extend(["-d", body]);
        }
        match self.port {
            Port::Http1 => extra.push("--h1"),
            Port::Grpc => {
                extra.extend(["-H", "content-type: application/grpc", "-H", "te: trailers"])
            }
            _ => {}
        }
        // The probe may have met a quicker moment than what is measured.
        let output = run_h2load(system, self.port, self.path, &extra, time * 2)?;
        let answered = u64::from(count) * self.answer as u64;
        parse_h2load(&output)
            .and_then(|done| every_byte(&output, answered).map(|()| done))
            .map_err(|error| anyhow!("{error:#}; the load said\n{output}"))
    }
}

/// Runs `work` and returns what it cost.
pub(crate) fn costing<T>(
    system: &mut System,
    work: impl FnOnce(&System) -> Result<T>,
) -> Result<(T, Cost)> {
    let before = cpu(system)?;
    let done = work(system)?;
    let after = cpu(system)?;
    system.pair_alive()?;
    Ok((done, Cost(after.saturating_sub(before))))
}

fn cpu(system: &System) -> Result<Duration> {
    match (&system.pair, system.server()) {
        (Some(pair), _) => Ok(pair.client.cpu()? + pair.server.cpu()?),
        (None, Some(server)) => server.cpu(),
        (None, None) => Ok(Duration::ZERO),
    }
}

/// As many requests as possible over HTTP/1.1.
pub(crate) fn wrk(
    system: &System,
    port: Port,
    path: &str,
    connections: u32,
    time: Duration,
    keep: bool,
) -> Result<LoadResult> {
    let (connections, seconds) = (
        format!("-c{connections}"),
        format!("-d{}s", time.as_secs().max(1)),
    );
    let (host, url) = (
        format!("Host: {}", port.host()),
        format!("{}://{}{path}", port.scheme(), system.target(port)),
    );
    let mut line = vec!["wrk", "-t1", &connections, &seconds, "-H", &host];
    if !keep {
        line.extend(["-H", "Connection: close"]);
    }
    line.push(&url);
    let output = system.namespaces.client.run_within(time + SLACK, &line)?;
    parse_wrk(&output).map_err(|error| anyhow!("{error:#}; the load said\n{output}"))
}

fn parse_wrk(output: &str) -> Result<LoadResult> {
    ensure!(!output.contains("Non-2xx"), "answers that are no success");
    let errors = output.lines().find(|line| line.contains("Socket errors"));
    ensure!(errors.is_none(), "{}", errors.unwrap_or_default().trim());
    let requests = output
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "));
    let rate = output
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    let requests: f64 = requests.context("no count")?.0.parse()?;
    ensure!(requests > 0.0, "no request was answered");
    Ok(LoadResult {
        requests,
        rate: rate.context("no rate")?.trim().parse()?,
    })
}

/// One HTTP/2 connection with 32 requests at a time.
pub(crate) fn h2load(
    system: &System,
    port: Port,
    path: &str,
    time: Duration,
) -> Result<LoadResult> {
    let (streams, duration) = (format!("-m{AT_ONCE}"), time.as_secs().max(1).to_string());
    let output = run_h2load(system, port, path, &[&streams, "-D", &duration], time)?;
    parse_h2load(&output).map_err(|error| anyhow!("{error:#}; the load said\n{output}"))
}

fn run_h2load(
    system: &System,
    port: Port,
    path: &str,
    extra: &[&str],
    time: Duration,
) -> Result<String> {
    let (host, url) = (
        format!(":authority: {}", port.host()),
        format!("http://{}{path}", system.target(port)),
    );
    let mut line = vec!["h2load", "-t1", "-c1", "-H", &host];
    line.extend(extra);
    line.push(&url);
    let limit = time + SLACK;
    system
        .namespaces
        .client
        .run_within(limit, &line)
        .with_context(|| format!("h2load failed, or waits for calls after {limit:?}"))
}

fn parse_h2load(output: &str) -> Result<LoadResult> {
    let number = |line: &str, unit: &str| -> Option<f64> {
        line.split([',', ':'])
            .find_map(|part| part.trim().strip_suffix(unit)?.trim().parse().ok())
    };
    let line = |start: &str| output.lines().find(|line| line.starts_with(start));
    let requests = line("requests:").context("no count")?;
    let codes = line("status codes:").context("no status codes")?;
    let done = number(requests, "succeeded").context("no successes")?;
    for bad in ["3xx", "4xx", "5xx"] {
        ensure!(
            number(codes, bad) == Some(0.0),
            "answers that are no success: {codes}"
        );
    }
    for bad in ["failed", "errored", "timeout"] {
        ensure!(
            number(requests, bad) == Some(0.0),
            "calls failed: {requests}"
        );
    }
    ensure!(done > 0.0, "no request was answered");
    let rate = number(line("finished in").context("no rate")?, "req/s").context("no rate")?;
    Ok(LoadResult {
        requests: done,
        rate,
    })
}

/// That the answers' bodies had together this many bytes.
fn every_byte(output: &str, expected: u64) -> Result<()> {
    let traffic = output.lines().find(|line| line.starts_with("traffic:"));
    let data = traffic
        .and_then(|line| line.strip_suffix(" data")?.rsplit_once('('))
        .and_then(|(_, bytes)| bytes.strip_suffix(')')?.parse::<u64>().ok())
        .context("no count of bytes")?;
    ensure!(
        data == expected,
        "calls failed: their answers have {data} bytes instead of {expected}"
    );
    Ok(())
}

/// Messages of gRPC that are sent back and forth on 32 streams.
pub(crate) fn both_ways(system: &System, time: Duration) -> Result<LoadResult> {
    let load = streams::Load {
        target: system.target(Port::Grpc),
        host: Port::Grpc.host(),
        path: "/bench.Echo/Both",
        streams: AT_ONCE,
        length: BOTH_WAYS,
        time,
    };
    system.namespaces.client.within(|| streams::run(load))
}

/// Requests at a fixed rate over 32 connections.
pub(crate) fn fixed(system: &System, rate: u32, time: Duration) -> Result<Latencies> {
    let load = Load {
        target: system.target(Port::Http1),
        rate,
        connections: 32,
        warm_up: Duration::from_millis(500),
        measured: time,
    };
    system
        .namespaces
        .client
        .within(|| rate::run(load, "/bench", Port::Http1.host()))
}

/// What a stream of bytes did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bulk {
    pub(crate) gib: f64,
    pub(crate) gib_per_second: f64,
}

impl Bulk {
    /// Calls that moved this many bytes each.
    pub(crate) fn of(done: LoadResult, bytes_each: usize) -> Self {
        let gib_each = bytes_each as f64 / GIB;
        Self {
            gib: done.requests * gib_each,
            gib_per_second: done.rate * gib_each,
        }
    }
}

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// Bytes as fast as they go, from client to server.
pub(crate) fn iperf(system: &System, streams: u32, time: Duration) -> Result<Bulk> {
    let target = system.target(Port::Bulk);
    let (ip, port) = (target.ip().to_string(), target.port().to_string());
    let (streams, seconds) = (streams.to_string(), time.as_secs().max(1).to_string());
    let line = [
        "iperf3", "-J", "-c", &ip, "-p", &port, "-t", &seconds, "-P", &streams,
    ];
    parse_iperf(&system.namespaces.client.run_within(time + SLACK, &line)?)
}

fn parse_iperf(output: &str) -> Result<Bulk> {
    let output: serde_json::Value = serde_json::from_str(output)?;
    let received = &output["end"]["sum_received"];
    let bytes = received["bytes"].as_f64().context("no bytes")?;
    let seconds = received["seconds"].as_f64().context("no seconds")?;
    ensure!(bytes > 0.0 && seconds > 0.0, "nothing was received");
    Ok(Bulk {
        gib: bytes / GIB,
        gib_per_second: bytes / GIB / seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::{Bulk, LoadResult, every_byte, parse_h2load, parse_wrk};

    #[test]
    fn a_refused_request_is_no_result_of_wrk() {
        let good = "Running 2s test\n  10 requests in 2.00s, 1KB read\nRequests/sec:      5.00\n";
        assert_eq!(parse_wrk(good).unwrap().requests, 10.0);
        assert_eq!(parse_wrk(good).unwrap().rate, 5.0);
        assert!(parse_wrk(&format!("{good}  Non-2xx or 3xx responses: 3\n")).is_err());
        let broken = "  Socket errors: connect 0, read 3, write 0, timeout 0\n";
        assert!(parse_wrk(&format!("{good}{broken}")).is_err());
    }

    #[test]
    fn a_refused_request_is_no_result_of_h2load() {
        let good = "finished in 2.00s, 50.50 req/s, 1KB/s\nrequests: 101 total, 101 started, 101 done, 101 succeeded, 0 failed, 0 errored, 0 timeout\nstatus codes: 101 2xx, 0 3xx, 0 4xx, 0 5xx\n";
        assert_eq!(parse_h2load(good).unwrap().requests, 101.0);
        assert_eq!(parse_h2load(good).unwrap().rate, 50.5);
        assert!(parse_h2load(&good.replace("0 4xx", "1 4xx")).is_err());
    }

    #[test]
    fn broken_call_invalidates_h2load_result() {
        let good = "finished in 2.00s, 50.50 req/s, 1KB/s\nrequests: 101 total, 101 started, 101 done, 101 succeeded, 0 failed, 0 errored, 0 timeout\nstatus codes: 101 2xx, 0 3xx, 0 4xx, 0 5xx\n";
        assert!(parse_h2load(good).is_ok());
        for bad in ["failed", "errored", "timeout"] {
            let output = good.replace(&format!("0 {bad}"), &format!("3 {bad}"));
            let error = parse_h2load(&output).expect_err(bad).to_string();
            assert!(error.contains(&format!("3 {bad}")), "{error}");
        }
    }

    /// gRPC's status is in trailers, which `h2load` does not read.
    #[test]
    fn response_200_with_missing_bytes_is_failure() {
        let output = "status codes: 3 2xx, 0 3xx, 0 4xx, 0 5xx\ntraffic: 8.59MB (9010324) total, 339B (339) headers (space savings 38.92%), 8.58MB (9000000) data\n";
        assert!(every_byte(output, 3 * 3_000_000).is_ok());
        let error = every_byte(output, 4 * 3_000_000).unwrap_err().to_string();
        assert!(
            error.contains("9000000 bytes instead of 12000000"),
            "{error}"
        );
        assert!(every_byte("", 0).is_err());
    }

    #[test]
    fn calls_of_a_mebibyte_are_gibibytes() {
        let done = LoadResult {
            requests: 2048.0,
            rate: 512.0,
        };
        let bulk = Bulk::of(done, 1024 * 1024);
        assert_eq!((bulk.gib, bulk.gib_per_second), (2.0, 0.5));
    }
}
