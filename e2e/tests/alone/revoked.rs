//! A target is deleted while its calls run: row E16.
//!
//! Claims: smi-16

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::{
    conformance::Record,
    harness::{App, Namespace, Outcome, eventually},
};

use super::{grant::grant, modes::in_time, url, websocket::OpenWebSocket};

/// The promise, from the moment kubectl says that the target is gone.
const PROMISED: Duration = Duration::from_secs(2);
const RATE: u64 = 50;

#[test]
fn deleted_target_stops_requests_and_tcp_within_2_s() -> Outcome {
    let mut row = Record::begin("E16")?;
    let ns = Namespace::meshed("revoked")?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    ns.apply_all(&App::new("client").objects())?;
    ns.apply_all(&App::new("server").objects())?;
    // Declared as bytes, so that what runs over it is one TCP connection.
    let opaque = App::new("opaque").annotation("weft.dev/opaque-ports", "8080");
    ns.apply_all(&opaque.objects())?;
    ns.ready(&["client", "server", "opaque"])?;
    grant(&ns, "client")?;
    let client = ns.pod("client")?;
    let target = url("server", 8080, "/");
    eventually(Duration::from_secs(10), "the target allows", || {
        client.report(&target, &[])
    })?;

    let mut bytes = eventually(Duration::from_secs(10), "bytes pass", || {
        let mut socket = OpenWebSocket::open(&ns, &client, "opaque:8080", 300)?;
        OpenWebSocket::all_open(&mut [&mut socket])?;
        Ok(socket)
    })?;
    let rate = RATE.to_string();
    let words = ["--rate", &rate, "--duration", "12s", "-c", "1"];
    let load = client.start_load(&target, &words)?;
    std::thread::sleep(Duration::from_secs(2));
    bytes.is_open()?;

    ns.kubectl(&["delete", "traffictarget", "server", "opaque"])?;
    let start = Instant::now();
    let closed = bytes.closed(start, PROMISED)?;
    in_time("the target is gone", start, || {
        client.refused(&target, &[], 403, "not-allowed")
    })?;
    let seen = load.finish()?;
    let of = |status: &str| seen.by_status.get(status).copied().unwrap_or_default();
    judge(of("200"), of("403"), seen.planned)?;
    assert!(seen.errors.is_empty(), "requests were lost: {seen:?}");
    assert_eq!(seen.connects, 1, "the connection was not kept: {seen:?}");
    row.saw(
        format!("{RATE} requests/s on one kept connection, target deleted after 2 s and more"),
        format!(
            "{} answered 200, then {} refused 403 not-allowed, 1 connection, none lost",
            of("200"),
            of("403")
        ),
    );
    row.saw(
        "an open TCP connection, target deleted",
        format!("closed {closed:?} after the delete"),
    );
    row.passed()?;
    Ok(())
}

/// Answered before, refused after, and nothing else.
fn judge(answered: u64, refused: u64, planned: u64) -> anyhow::Result<()> {
    ensure!(
        answered + refused == planned && answered >= RATE && refused >= 2 * RATE,
        "{answered} answered and {refused} refused of {planned}"
    );
    Ok(())
}
