//! One service's calls to another, as the caller's and the server's proxies
//! counted them.

use super::{
    ledger::Ledger,
    names::{NAMESPACE, SERVICES},
};

const REQUESTS: &str = "weft_requests_total";
const BUCKETS: &str = "weft_request_duration_seconds_bucket";

/// Counts of one edge. All are whole numbers, kept as the metrics have them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Call {
    pub from: &'static str,
    pub to: &'static str,
    /// What the caller's proxies counted: in total, answered well by the application,
    /// with mTLS, and refused with 403 and `weft-reason: not-allowed`.
    pub requests: f64,
    pub successes: f64,
    pub mtls: f64,
    pub refused: f64,
    /// What the server's proxies counted of this caller: answered by the application,
    /// and refused.
    pub reached: f64,
    pub refused_by_server: f64,
    /// Seconds; `None` before the first request.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    /// Requests by backend, as far as a backend is not the service itself.
    pub backends: Vec<(String, f64)>,
}

impl Call {
    pub fn read(ledger: &Ledger, from: &'static str, to: &'static str) -> Self {
        let service = format!("{}/{to}", NAMESPACE);
        let edge = [("direction", "outbound"), ("service", service.as_str())];
        let out = |more: &[(&str, &str)]| ledger.sum(from, REQUESTS, &[&edge[..], more].concat());
        let caller = format!("{}/{from}", NAMESPACE);
        let arrived = |more: &[(&str, &str)]| {
            let edge = [("direction", "inbound"), ("peer", caller.as_str())];
            ledger.sum(to, REQUESTS, &[&edge[..], more].concat())
        };
        let backends = ledger
            .values(from, REQUESTS, "backend")
            .into_iter()
            .filter(|backend| *backend != service)
            .map(|backend| (backend.to_owned(), out(&[("backend", backend)])))
            .filter(|(_, requests)| *requests > 0.0)
            .collect();
        let at_most: Vec<(f64, f64)> = ledger
            .values(from, BUCKETS, "le")
            .into_iter()
            .filter_map(|le| {
                let bound = if le == "+Inf" {
                    Ok(f64::INFINITY)
                } else {
                    le.parse()
                };
                let labels = [&edge[..], &[("le", le)]].concat();
                Some((bound.ok()?, ledger.sum(from, BUCKETS, &labels)))
            })
            .collect();
        Self {
            from,
            to,
            requests: out(&[]),
            successes: out(&[("success", "true"), ("reason", "")]),
            mtls: out(&[("security", "mtls")]),
            refused: out(&[("status", "403"), ("reason", "not-allowed")]),
            // An answer with a reason is the mesh's own.
            reached: arrived(&[("reason", "")]),
            refused_by_server: arrived(&[("status", "403"), ("reason", "not-allowed")]),
            p50: quantile(&at_most, 0.5),
            p99: quantile(&at_most, 0.99),
            backends,
        }
    }
}

/// What share of everything that the shop's proxies counted, on both sides, was
/// mTLS: counts of (mTLS, all). Inbound counts hold plaintext callers too, which
/// the callers' own side cannot show.
pub fn protected(ledger: &Ledger) -> (f64, f64) {
    let (mut mtls, mut all) = (0.0, 0.0);
    for service in SERVICES {
        for direction in ["inbound", "outbound"] {
            let labels = [("direction", direction), ("security", "mtls")];
            mtls += ledger.sum(service, REQUESTS, &labels);
            all += ledger.sum(service, REQUESTS, &labels[..1]);
        }
    }
    (mtls, all)
}

/// Quantile of a histogram of (upper bound, count at most that), linear within its
/// bucket as Prometheus does it. Beyond the last finite bound it is that bound.
pub fn quantile(at_most: &[(f64, f64)], share: f64) -> Option<f64> {
    let mut at_most = at_most.to_vec();
    at_most.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all = at_most.last()?.1;
    if all <= 0.0 {
        return None;
    }
    let wanted = all * share;
    let (mut below, mut low) = (0.0, 0.0);
    for (bound, count) in at_most {
        if count >= wanted {
            let inside = (wanted - below) / (count - below);
            return Some(if bound.is_finite() {
                low + (bound - low) * inside
            } else {
                low
            });
        }
        (below, low) = (count, bound);
    }
    None
}
