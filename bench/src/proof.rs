//! Proves that the proxies did the work that the figures claim.

use anyhow::{Context, Result, ensure};

use crate::resources::Pod;
use crate::system::{Port, System, SystemKind};

/// Both backends of the split were used about evenly, every request was judged
/// under the caller's identity, and the rules refuse what they do not allow.
///
/// # Errors
/// When a counter did not move.
pub(crate) fn check(system: &System) -> Result<()> {
    match system.kind {
        SystemKind::Direct => Ok(()),
        SystemKind::Envoy(_) => envoy(system),
        SystemKind::Weft(_) => weft(system),
    }
}

fn weft(system: &System) -> Result<()> {
    let sent = system.admin(Pod::Client, "/metrics")?;
    let backend = |name: &str| {
        sum(
            &sent,
            "weft_requests_total",
            &[
                "direction=\"outbound\"",
                &format!("backend=\"bench/{name}\""),
                "security=\"mtls\"",
                "status=\"200\"",
            ],
        )
    };
    let (a, b) = (backend("web-a"), backend("web-b"));
    ensure!(
        a > 0.0 && b > 0.0,
        "the split was not used: web-a {a}, web-b {b}"
    );
    // Five standard deviations of a fair coin.
    ensure!(
        (a - b).abs() <= 5.0 * (a + b).sqrt() + 1.0,
        "the split is uneven: web-a {a}, web-b {b}"
    );

    let judged = |page: &str, more: &str| {
        sum(
            page,
            "weft_requests_total",
            &[
                "direction=\"inbound\"",
                "peer=\"bench/client\"",
                "security=\"mtls\"",
                more,
            ],
        )
    };
    let before = system.admin(Pod::Server, "/metrics")?;
    ensure!(
        judged(&before, "") >= a + b,
        "the server's proxy did not judge every request"
    );
    let (status, _) = system.get(Port::Http1, "/not-in-any-route")?;
    ensure!(
        status == 403,
        "a path that no rule allows was answered {status}"
    );
    let after = system.admin(Pod::Server, "/metrics")?;
    let refused = "reason=\"not-allowed\"";
    ensure!(
        judged(&after, refused) == judged(&before, refused) + 1.0,
        "a refusal was not counted"
    );
    Ok(())
}

fn envoy(system: &System) -> Result<()> {
    for (pod, count) in [
        (Pod::Client, "cluster.web.upstream_rq_200"),
        (Pod::Server, "http.http.downstream_rq_2xx"),
    ] {
        let page = system.admin(pod, "/stats")?;
        let value = |name: &str| {
            let line = page
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.and_then(|value| value.parse::<u64>().ok())
        };
        let counted = value(count).with_context(|| format!("{count} is not counted"))?;
        ensure!(counted > 0, "{count} did not move");
    }
    let page = system.admin(Pod::Server, "/stats?filter=listener.*15108.ssl.handshake")?;
    ensure!(
        !page.trim().is_empty() && !page.trim().ends_with(": 0"),
        "no handshake between the proxies: {page}"
    );
    Ok(())
}

/// Sum of all series of a metric that carry all these labels.
pub(crate) fn sum(page: &str, metric: &str, labels: &[&str]) -> f64 {
    page.lines()
        .filter(|line| {
            line.strip_prefix(metric)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn series_are_added_that_carry_every_label() {
        let page = "# TYPE r counter\nr_total{a=\"1\",b=\"2\"} 3\nr_total{a=\"1\",b=\"3\"} 4\nr_total{a=\"2\",b=\"2\"} 5\nr_total_more{a=\"1\"} 9\n";
        assert_eq!(sum(page, "r_total", &["a=\"1\""]), 7.0);
        assert_eq!(sum(page, "r_total", &["a=\"1\"", "b=\"2\""]), 3.0);
        assert_eq!(sum("g 2\ng_more 3\n", "g", &[]), 2.0);
    }
}
