//! Certificates expire under load, and no call fails. A part of what `upgraded` tries.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use e2e::harness::{Namespace, Outcome, Pod};

use super::url;

/// Life of a leaf in this test, seconds, and as the chart's value.
pub(super) const LIFE: (f64, &str) = (60.0, "identity.leafTtl=60s");
/// Every certificate of the beginning has ended before.
const LOAD: Duration = Duration::from_secs(70);

// Claims: mesh-12
pub(super) fn certificates_of_one_minute_are_renewed_under_load_without_a_lost_request() -> Outcome
{
    let ns = Namespace::meshed("renewal")?.without_retries()?;
    ns.run(&["client", "server"])?;
    let (client, server) = (ns.pod("client")?, ns.pod("server")?);
    let target = url("server", 8080, "/");
    client.report(&target, &[])?;
    let started = Instant::now();
    let length = format!("{}s", LOAD.as_secs());
    let load = client.start_load(
        &target,
        &["--rate", "100", "--duration", &length, "-c", "10"],
    )?;

    let mut ends = [BTreeSet::new(), BTreeSet::new()];
    while started.elapsed() < LOAD - Duration::from_secs(5) {
        for (pod, ends) in [&client, &server].into_iter().zip(&mut ends) {
            let end = certificate_end(pod)?;
            let left = end as f64 - SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
            assert!(
                (0.0..=LIFE.0 + 1.0).contains(&left),
                "{} has a certificate for another {left} s",
                pod.name
            );
            ends.insert(end);
        }
        thread::sleep(Duration::from_secs(3));
    }
    // Handshakes of today, on either side, by proxies that have renewed.
    ns.run(&["late"])?;
    let late = ns.pod("late")?;
    for (caller, callee) in [(&late, "server"), (&client, "late")] {
        let report = caller.report(&url(callee, 8080, "/"), &[])?;
        assert!(report.client_id.is_some(), "not over mTLS: {report:?}");
    }

    let seen = load.finish()?;
    println!(
        "{:?}, latency {:?}; ends of certificates: client {:?}, server {:?}",
        seen.by_status, seen.latency_ms, ends[0], ends[1]
    );
    assert!(
        seen.planned == seen.sent && seen.by_status.get("200") == Some(&seen.planned),
        "requests were lost: {seen:?}"
    );
    for (pod, ends) in [&client, &server].into_iter().zip(&ends) {
        assert!(ends.len() >= 2, "{} never renewed: {ends:?}", pod.name);
        let failures = pod
            .proxy_metrics()?
            .sum("weft_certificate_failures_total", &[]);
        assert_eq!(failures, 0.0, "{}", pod.name);
    }
    Ok(())
}

/// Unix time.
fn certificate_end(pod: &Pod) -> anyhow::Result<u64> {
    let metrics = pod.proxy_metrics()?;
    Ok(metrics.sum("weft_certificate_expiry_timestamp_seconds", &[]) as u64)
}
