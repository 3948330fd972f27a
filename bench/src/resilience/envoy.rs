//! What Envoy reads as a sidecar of the scenarios: what Istio makes of a Service without any
//! settings, and, where asked, what its users add.
//!
//! Istio's defaults: two retries on `connect-failure`, `refused-stream`, `unavailable`,
//! `cancelled` and on no status code (before 1.24: 503 as well), preferring hosts that were
//! not tried; no outlier detection; no circuit breaker; no timeout; 10 s to connect;
//! least-request balancing; HTTP/1.1 stays HTTP/1.1 between the proxies.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::application::{GRPC, HTTP};
use super::client::grpc_host;
use super::cluster::{GRPC_PORT, HTTP_PORT, Pod, services};
use super::network;
use crate::envoy::{
    Http, Side, Upstream, certify, chain, cluster, document, http_filter, listener, redirected, tls,
};
use crate::standing_in::Authority;

/// Where a sidecar takes calls of others.
const MESH: u16 = 15108;

/// What is switched on beyond the defaults of today.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extra {
    /// As Istio did before 1.24.
    pub(super) retries_503: bool,
    /// The filter `adaptive_concurrency`, as its documentation's example has it.
    pub(super) adaptive: bool,
}

const LIMITS: &str = "connect_timeout: 10s
    lb_policy: LEAST_REQUEST
    circuit_breakers: {thresholds: [{max_connections: 4294967295, max_pending_requests: 4294967295, max_requests: 4294967295, max_retries: 4294967295}]}";

const ADAPTIVE: &str = "          - name: envoy.filters.http.adaptive_concurrency
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency
              gradient_controller_config:
                sample_aggregate_percentile: {value: 90}
                concurrency_limit_params: {concurrency_update_interval: 0.1s}
                min_rtt_calc_params: {jitter: {value: 10}, interval: 60s, request_count: 50}
              enabled: {default_value: true, runtime_key: adaptive_concurrency.enabled}
";

/// Writes what all Envoys of these pods read into `folder`.
pub(super) fn write(
    folder: &Path,
    authority: &Authority,
    pods: &[Pod],
    extra: Extra,
    attempt: Option<Duration>,
) -> Result<()> {
    fs::write(folder.join("root.pem"), authority.root.cert_pem())?;
    for pod in pods {
        certify(folder, authority, pod.name, pod.identity()?)?;
        let (out_listener, out_clusters) = outbound(folder, pod, pods, extra, attempt)?;
        let (in_listener, in_clusters) = inbound(folder, pod, pods, extra)?;
        let text = document(
            &[out_listener, in_listener].concat(),
            &[out_clusters, in_clusters].concat(),
        );
        fs::write(folder.join(format!("envoy-{}.yaml", pod.name)), text)?;
    }
    Ok(())
}

/// The retries of a route, and its times.
fn route(extra: Extra, attempt: Option<Duration>) -> String {
    let codes = if extra.retries_503 {
        ", retriable_status_codes: [503]"
    } else {
        ""
    };
    let attempt = attempt.map_or_else(String::new, |attempt| {
        format!(", per_try_timeout: {}s", attempt.as_secs_f64())
    });
    format!(
        ", timeout: 0s, retry_policy: {{retry_on: \"connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes\", num_retries: 2, host_selection_retry_max_attempts: 5, retry_host_predicate: [{{name: envoy.retry_host_predicates.previous_hosts, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}}}]{codes}{attempt}}}"
    )
}

fn outbound(
    folder: &Path,
    own: &Pod,
    pods: &[Pod],
    extra: Extra,
    attempt: Option<Duration>,
) -> Result<(String, String)> {
    let route = route(extra, attempt);
    let names: Vec<_> = services(pods)
        .into_iter()
        .map(|name| (name, grpc_host(name)))
        .collect();
    let chain_of = |port: u16, codec, hosts: &[(&str, &str)]| {
        let http = Http {
            codec,
            hosts,
            route: &route,
            filters: "",
        };
        let matching = format!("{{destination_port: {port}}}");
        chain(&matching, &http_filter(&http), "")
    };
    let http: Vec<_> = names.iter().map(|(name, _)| (*name, *name)).collect();
    let grpc: Vec<_> = names.iter().map(|(_, grpc)| (&**grpc, &**grpc)).collect();
    let chains = [
        chain_of(HTTP_PORT, "HTTP1", &http),
        chain_of(GRPC_PORT, "HTTP2", &grpc),
    ];
    let mut clusters = String::new();
    for (name, grpc) in &names {
        let (mut endpoints, mut identities) = (Vec::new(), Vec::new());
        for (at, pod) in pods.iter().enumerate() {
            if pod.service == Some(*name) {
                endpoints.push((network::ip(at).to_string(), MESH));
                identities.push(pod.identity()?);
            }
        }
        for (name, http2, alpn) in [(*name, false, "http/1.1"), (&**grpc, true, "h2")] {
            let transport = tls(folder, Side::Client, own.name, &identities, alpn);
            clusters.push_str(&cluster(&Upstream {
                name,
                endpoints: &endpoints,
                http2,
                transport: &transport,
                settings: LIMITS,
            }));
        }
    }
    Ok((redirected(&chains.concat()), clusters))
}

fn inbound(folder: &Path, own: &Pod, pods: &[Pod], extra: Extra) -> Result<(String, String)> {
    let callers: Vec<_> = pods.iter().map(Pod::identity).collect::<Result<_>>()?;
    let transport = tls(folder, Side::Server, own.name, &callers, "h2, http/1.1");
    let filters = if extra.adaptive { ADAPTIVE } else { "" };
    let grpc: Vec<_> = services(pods).into_iter().map(grpc_host).collect();
    let mut hosts: Vec<_> = services(pods)
        .into_iter()
        .map(|service| (service, "local"))
        .collect();
    hosts.extend(grpc.iter().map(|host| (&**host, "local-grpc")));
    let http = Http {
        codec: "AUTO",
        hosts: &hosts,
        route: ", timeout: 0s",
        filters,
    };
    let clusters =
        [("local", HTTP, false), ("local-grpc", GRPC, true)].map(|(name, port, http2)| {
            cluster(&Upstream {
                name,
                endpoints: &[("127.0.0.1".to_owned(), port)],
                http2,
                transport: "",
                settings: LIMITS,
            })
        });
    let listener = listener("mesh", MESH, &http_filter(&http), &transport);
    Ok((listener, clusters.concat()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Extra, route};

    #[test]
    fn only_the_defaults_of_before_try_again_on_503() {
        let today = route(Extra::default(), None);
        assert!(
            today.contains("num_retries: 2") && !today.contains("503"),
            "{today}"
        );
        let before = Extra {
            retries_503: true,
            ..Extra::default()
        };
        let before = route(before, Some(Duration::from_millis(500)));
        assert!(before.contains("retriable_status_codes: [503]"), "{before}");
        assert!(before.contains("per_try_timeout: 0.5s"), "{before}");
        assert_eq!(before.matches('{').count(), before.matches('}').count());
    }
}
