//! The controller's settings, read from its environment.
//!
//! May import nothing else of this crate.

pub(crate) mod authority;
pub(crate) mod caps;
pub(crate) mod gateways;
mod tracing;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use policy::egress::EgressMode;
use policy::mode::{AccessMode, MtlsMode};
use policy::name::SpiffeId;
use policy::trace::Tracing;
use runtime::env::{BadEnv, EnvReader};

use self::authority::AuthoritySettings;
use self::caps::Caps;
use self::gateways::{GatewayApi, GatewaySettings};

/// Port of the gRPC server.
pub(crate) const SERVE_PORT: u16 = 8443;
/// Port of the aggregated APIs.
pub(crate) const METRICS_PORT: u16 = 8444;
/// Port of `/live`, `/ready`, `/metrics` and `/acks`.
pub(crate) const ADMIN_PORT: u16 = 8080;
/// Audience of the tokens that proxies show.
pub(crate) const AUDIENCE: &str = policy::well_known::TOKEN_AUDIENCE;
/// Shorter leaves would be renewed faster than a busy cluster signs.
const SHORTEST_LEAF: Duration = Duration::from_secs(30);
/// Longer leaves would outlive an issuer's overlap.
const LONGEST_LEAF: Duration = Duration::from_secs(7 * 24 * 3600);

/// Edges of the graph are seen by the hour.
const SHORTEST_MEMORY: Duration = Duration::from_secs(3600);
/// No user needs longer than a year.
const LONGEST_MEMORY: Duration = Duration::from_secs(8760 * 3600);

/// Settings of one replica, fixed for its life.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the control plane.
    pub namespace: String,
    /// This pod.
    pub pod_name: String,
    /// Its address, so that a replica does not connect to itself.
    pub pod_ip: IpAddr,
    /// Its service account.
    pub service_account: String,
    /// Trust domain of all identities.
    pub trust_domain: String,
    /// Domain under which Services have names.
    pub cluster_domain: String,
    /// Life of a proxy's certificate.
    pub leaf_ttl: Duration,
    /// Access mode where neither namespace nor pod says one.
    pub access_default: AccessMode,
    /// mTLS mode where neither namespace nor pod says one.
    pub mtls_default: MtlsMode,
    /// Whether a pod may loosen its namespace's access mode.
    pub access_pods_may_loosen: bool,
    /// Whether a pod may loosen its namespace's mTLS mode.
    pub mtls_pods_may_loosen: bool,
    /// Egress mode where neither namespace nor pod says one.
    pub egress_default: EgressMode,
    /// Whether a pod may loosen its namespace's egress mode.
    pub egress_pods_may_loosen: bool,
    /// Whether UDPRoutes are written as NetworkPolicies.
    pub udp_network_policies: bool,
    /// Namespaces that the mesh leaves alone.
    pub excluded_namespaces: Arc<BTreeSet<String>>,
    /// Whether the metrics API is served.
    pub metrics_api: bool,
    /// Whether the read API is served.
    pub observe: bool,
    /// How long edges of the graph without calls are persisted; none: only while this replica runs,
    /// for an hour.
    pub retention: Duration,
    /// Headers of requests that a tap may show, in small letters.
    pub tap_headers: Arc<BTreeSet<String>>,
    /// Whether the holder of the Lease shows the graph as metrics, for tools that draw one.
    pub service_graph: bool,
    /// Whether CanaryReleases are carried out; else each counts as suspended.
    pub releases: bool,
    /// Whether FaultExperiments may run; else none starts, and nothing is granted.
    pub faults: bool,
    /// Which kinds of the Gateway API are read; of the others there are none.
    pub gateway_api: GatewayApi,
    /// How Gateways are run; none: there are none.
    pub gateways: Option<Arc<GatewaySettings>>,
    /// Which traces proxies record, and where their spans go; none: they record none.
    pub tracing: Option<Arc<Tracing>>,
    /// Log filter.
    pub log: String,
    /// The certificate authority's root and issuer.
    pub(crate) authority: AuthoritySettings,
    /// The controller's own identity.
    pub identity: SpiffeId,
    /// Bounds that follow the memory limit.
    pub caps: Caps,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// Every variable that is missing or wrong.
    pub fn read(mut env: EnvReader) -> Result<Self, BadEnv> {
        let namespace: Option<String> = env.required("WEFT_NAMESPACE");
        let pod_name = env.required("WEFT_POD_NAME");
        let pod_ip = env.required("WEFT_POD_IP");
        let service_account: String = env.or(
            "WEFT_SERVICE_ACCOUNT",
            policy::well_known::CONTROLLER.to_owned(),
        );
        let trust_domain: String = env.or("WEFT_TRUST_DOMAIN", "cluster.local".to_owned());
        let leaf_ttl = env.duration("WEFT_LEAF_TTL", Duration::from_secs(24 * 3600));
        if !(SHORTEST_LEAF..=LONGEST_LEAF).contains(&leaf_ttl) {
            env.mistake("WEFT_LEAF_TTL", "must lie between 30s and 168h");
        }
        let identity = namespace.as_deref().map(|namespace| {
            format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
        });
        let identity = match identity.as_deref().map(SpiffeId::try_from) {
            Some(Err(error)) => {
                env.mistake("WEFT_TRUST_DOMAIN", format!("makes no identity: {error}"));
                None
            }
            Some(Ok(identity)) => Some(identity),
            None => None,
        };
        let cluster_domain: String = env.or("WEFT_CLUSTER_DOMAIN", "cluster.local".to_owned());
        let access_default = env.or("WEFT_ACCESS_DEFAULT", AccessMode::Auto);
        let mtls_default = env.or("WEFT_MTLS_DEFAULT", MtlsMode::Permissive);
        let access_pods_may_loosen = env.or("WEFT_ACCESS_PODS_MAY_LOOSEN", false);
        let mtls_pods_may_loosen = env.or("WEFT_MTLS_PODS_MAY_LOOSEN", false);
        let egress_default = env.or("WEFT_EGRESS_DEFAULT", EgressMode::Allow);
        let egress_pods_may_loosen = env.or("WEFT_EGRESS_PODS_MAY_LOOSEN", false);
        let udp_network_policies = env.or("WEFT_UDP_NETWORK_POLICIES", false);
        let excluded: Vec<String> = env.list("WEFT_EXCLUDED_NAMESPACES");
        let metrics_api = env.or("WEFT_METRICS_API", false);
        let observe = env.or("WEFT_OBSERVE", false);
        let retention = retention(&mut env);
        let tap_headers = tap_headers(&mut env);
        let service_graph = env.or("WEFT_SERVICE_GRAPH", false);
        let releases = env.or("WEFT_RELEASES", true);
        let faults = env.or("WEFT_FAULTS", true);
        let reads_routes = env.or("WEFT_GATEWAY_API", true);
        let controllers = (namespace.as_deref(), SERVE_PORT);
        let domains = (trust_domain.as_str(), cluster_domain.as_str());
        let gateways = gateways::read(&mut env, controllers, domains);
        let tracing = tracing::read(&mut env);
        let authority = authority::read(&mut env);
        let log = env.or("WEFT_LOG", "info".to_owned());
        env.finish_with(|| {
            Some(Self {
                namespace: namespace?,
                pod_name: pod_name?,
                pod_ip: pod_ip?,
                service_account,
                trust_domain,
                cluster_domain,
                leaf_ttl,
                access_default,
                mtls_default,
                access_pods_may_loosen,
                mtls_pods_may_loosen,
                egress_default,
                egress_pods_may_loosen,
                udp_network_policies,
                excluded_namespaces: Arc::new(excluded.into_iter().collect()),
                metrics_api,
                observe,
                retention,
                tap_headers: Arc::new(tap_headers),
                service_graph,
                releases,
                faults,
                gateway_api: GatewayApi::of(reads_routes, gateways.as_ref()),
                gateways: gateways.filter(|_| reads_routes).map(Arc::new),
                tracing: tracing.map(Arc::new),
                log,
                authority,
                identity: identity?,
                caps: Caps::default(),
            })
        })
    }

    /// Where gRPC is served: both families where the kernel has IPv6.
    pub(crate) fn serve_addr(&self) -> SocketAddr {
        self.unspecified(SERVE_PORT)
    }

    /// Where the aggregated APIs are served.
    pub(crate) fn metrics_addr(&self) -> SocketAddr {
        self.unspecified(METRICS_PORT)
    }

    /// Where the admin port is served.
    pub(crate) fn admin_addr(&self) -> SocketAddr {
        self.unspecified(ADMIN_PORT)
    }

    /// An IPv4 pod may have a kernel without IPv6, so the family of its own
    /// address decides; `::` serves both families in a dual-stack pod.
    fn unspecified(&self, port: u16) -> SocketAddr {
        match self.pod_ip {
            IpAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], port)),
            IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        }
    }
}

/// Headers that a tap may show.
fn tap_headers(env: &mut EnvReader) -> BTreeSet<String> {
    let names: Vec<String> = env.list("WEFT_TAP_HEADERS");
    let names: BTreeSet<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    for name in &names {
        if policy::well_known::SECRET_HEADERS.contains(&name.as_str()) {
            let why = format!("{name} proves an identity, so no tap shows it");
            env.mistake("WEFT_TAP_HEADERS", why);
        }
    }
    names
}

/// How long edges of the graph are persisted.
fn retention(env: &mut EnvReader) -> Duration {
    let retention = env.duration("WEFT_REMEMBER_FOR", Duration::from_secs(30 * 24 * 3600));
    if !retention.is_zero() && !(SHORTEST_MEMORY..=LONGEST_MEMORY).contains(&retention) {
        env.mistake(
            "WEFT_REMEMBER_FOR",
            "must be 0s or lie between 1h and 8760h",
        );
    }
    retention
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: [(&str, &str); 3] = [
        ("WEFT_NAMESPACE", "weft-system"),
        ("WEFT_POD_NAME", "weft-controller-0"),
        ("WEFT_POD_IP", "10.0.0.9"),
    ];

    fn read(more: &[(&str, &str)]) -> Result<Settings, BadEnv> {
        Settings::read(EnvReader::from_map(LEAST.iter().chain(more).copied()))
    }

    #[test]
    fn least_environment_gives_the_documented_defaults() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.access_default, AccessMode::Auto);
        assert_eq!(settings.mtls_default, MtlsMode::Permissive);
        assert_eq!(settings.egress_default, EgressMode::Allow);
        assert!(!settings.udp_network_policies);
        assert_eq!(settings.leaf_ttl, Duration::from_secs(86_400));
        assert_eq!(
            settings.identity.as_str(),
            "spiffe://cluster.local/ns/weft-system/sa/weft-controller"
        );
        assert_eq!(settings.serve_addr().to_string(), "0.0.0.0:8443");
    }

    #[test]
    fn every_mistake_is_named() {
        let error = read(&[
            ("WEFT_LEAF_TTL", "1s"),
            ("WEFT_ACCESS_DEFAULT", "maybe"),
            ("WEFT_EGRESS_DEFAULT", "block"),
            ("WEFT_TRUST_DOMAIN", "not a domain"),
            ("WEFT_REMEMBER_FOR", "30m"),
            ("WEFT_TAP_HEADERS", "user-agent,Cookie"),
            ("WEFT_ROOT_LIFE", "1h"),
            ("WEFT_ROTATION_SETTLE", "1s"),
            ("WEFT_ISSUER_SOURCE", "secret"),
            ("WEFT_ISSUER_DIRECTORY", "issuer"),
        ])
        .unwrap_err()
        .to_string();
        for variable in [
            "WEFT_LEAF_TTL",
            "WEFT_ACCESS_DEFAULT",
            "WEFT_EGRESS_DEFAULT",
            "WEFT_TRUST_DOMAIN",
            "WEFT_REMEMBER_FOR",
            "WEFT_ROOT_LIFE",
            "WEFT_ROTATION_SETTLE",
            "WEFT_ISSUER_SECRET",
            "WEFT_ISSUER_DIRECTORY",
            "WEFT_TAP_HEADERS",
        ] {
            assert!(error.contains(variable), "{error}");
        }
    }

    #[test]
    fn excluded_namespaces_are_a_list() {
        let settings = read(&[("WEFT_EXCLUDED_NAMESPACES", "kube-system, kube-public")]).unwrap();
        assert!(settings.excluded_namespaces.contains("kube-public"));
    }
}
