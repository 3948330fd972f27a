//! Programs that make load, what they print, and what it cost.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::rate::{self, Latencies, Load};
use crate::system::{Port, System};

/// Beyond its own time, a program gets this long to begin and end.
const SLACK: Duration = Duration::from_secs(5);

/// CPU time that both proxies used, or the server where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost(pub(crate) Duration);

impl Cost {
    pub(crate) fn micros_per(self, requests: f64) -> f64 {
        self.0.as_secs_f64() * 1e6 / requests
    }
}

/// What `wrk` or `h2load` did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Done {
    pub(crate) requests: f64,
    /// Per second.
    pub(crate) rate: f64,
}

/// Runs `work` and says what it cost.
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
) -> Result<Done> {
    let (connections, seconds) = (
        format!("-c{connections}"),
        format!("-d{}s", time.as_secs().max(1)),
    );
    let (host, url) = (
        format!("Host: {}", port.host()),
        format!("http://{}{path}", system.target(port)),
    );
    let mut line = vec!["wrk", "-t1", &connections, &seconds, "-H", &host];
    if !keep {
        line.extend(["-H", "Connection: close"]);
    }
    line.push(&url);
    let said = system.place.client.run_within(time + SLACK, &line)?;
    parse_wrk(&said).map_err(|error| anyhow!("{error:#}; the load said {said}"))
}

fn parse_wrk(said: &str) -> Result<Done> {
    ensure!(!said.contains("Non-2xx"), "answers that are no success");
    let errors = said.lines().find(|line| line.contains("Socket errors"));
    ensure!(errors.is_none(), "{}", errors.unwrap_or_default().trim());
    let requests = said
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "));
    let rate = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    let requests: f64 = requests.context("no count")?.0.parse()?;
    ensure!(requests > 0.0, "no request was answered");
    Ok(Done {
        requests,
        rate: rate.context("no rate")?.trim().parse()?,
    })
}

/// One HTTP/2 connection with 32 requests at a time.
pub(crate) fn h2load(
    system: &System,
    port: Port,
    path: &str,
    extra: &[&str],
    time: Duration,
) -> Result<Done> {
    let duration = time.as_secs().max(1).to_string();
    let (host, url) = (
        format!(":authority: {}", port.host()),
        format!("http://{}{path}", system.target(port)),
    );
    let mut line = vec!["h2load", "-t1", "-c1", "-m32", "-D", &duration, "-H", &host];
    line.extend(extra);
    line.push(&url);
    let said = system.place.client.run_within(time + SLACK, &line)?;
    parse_h2load(&said).map_err(|error| anyhow!("{error:#}; the load said {said}"))
}

fn parse_h2load(said: &str) -> Result<Done> {
    let number = |line: &str, unit: &str| -> Option<f64> {
        line.split([',', ':'])
            .find_map(|part| part.trim().strip_suffix(unit)?.trim().parse().ok())
    };
    let line = |start: &str| said.lines().find(|line| line.starts_with(start));
    let requests = line("requests:").context("no count")?;
    let codes = line("status codes:").context("no status codes")?;
    let done = number(requests, "succeeded").context("no successes")?;
    for bad in ["3xx", "4xx", "5xx"] {
        ensure!(
            number(codes, bad) == Some(0.0),
            "answers that are no success"
        );
    }
    ensure!(done > 0.0, "no request was answered");
    let rate = number(line("finished in").context("no rate")?, "req/s").context("no rate")?;
    Ok(Done {
        requests: done,
        rate,
    })
}

/// As many gRPC calls as possible.
pub(crate) fn grpc(system: &System, time: Duration) -> Result<Done> {
    let message = system.message();
    let extra = [
        "-d",
        &message,
        "-H",
        "content-type: application/grpc",
        "-H",
        "te: trailers",
    ];
    h2load(system, Port::Grpc, "/bench.Echo/Unary", &extra, time)
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
        .place
        .client
        .within(|| rate::run(load, "/bench", Port::Http1.host()))
}

/// What a stream of bytes did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bulk {
    pub(crate) gib: f64,
    pub(crate) gib_per_second: f64,
}

/// Bytes as fast as they go, from client to server.
pub(crate) fn iperf(system: &System, streams: u32, time: Duration) -> Result<Bulk> {
    let target = system.target(Port::Bulk);
    let (ip, port) = (target.ip().to_string(), target.port().to_string());
    let (streams, seconds) = (streams.to_string(), time.as_secs().max(1).to_string());
    let line = [
        "iperf3", "-J", "-c", &ip, "-p", &port, "-t", &seconds, "-P", &streams,
    ];
    parse_iperf(&system.place.client.run_within(time + SLACK, &line)?)
}

fn parse_iperf(said: &str) -> Result<Bulk> {
    const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
    let said: serde_json::Value = serde_json::from_str(said)?;
    let received = &said["end"]["sum_received"];
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
    use super::{parse_h2load, parse_wrk};

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
}
