//! The injector's settings, read from its environment.

use crds::inject::{self, Architectures, CaptureMode, DefaultLimits};
use crds::labels::parse_quantity;
use runtime::env::{BadEnv, EnvReader};

/// Everything that differs between installations.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Namespace of this process, which is the controller's too.
    pub(crate) namespace: String,
    /// Name of this pod, for logs.
    pub(crate) pod_name: String,
    /// DNS domain of the cluster, without dots at its ends.
    pub(crate) cluster_domain: String,
    /// What is logged.
    pub(crate) log: String,
    /// Whether CanaryReleases gate pods.
    pub(crate) releases: bool,
    /// What goes into every proxy.
    pub(crate) inject: inject::Settings,
}

impl Settings {
    /// # Errors
    /// Every error at once.
    pub(crate) fn read(mut env: EnvReader) -> Result<Self, BadEnv> {
        let namespace: Option<String> = env.required("WEFT_NAMESPACE");
        let pod_name = env.required("WEFT_POD_NAME");
        let proxy_image = env.required("WEFT_PROXY_IMAGE");
        let proxy_pull_policy = env.or("WEFT_PROXY_PULL_POLICY", "IfNotPresent".to_owned());
        if !["Always", "IfNotPresent", "Never"].contains(&proxy_pull_policy.as_str()) {
            env.mistake(
                "WEFT_PROXY_PULL_POLICY",
                "must be Always, IfNotPresent or Never",
            );
        }
        let architectures = env.or("WEFT_PROXY_ARCHITECTURES", Architectures::default());
        let controller_address = env.required("WEFT_CONTROLLER_ADDRESS");
        let trust_domain = env.or("WEFT_TRUST_DOMAIN", "cluster.local".to_owned());
        let cluster_domain = env.or("WEFT_CLUSTER_DOMAIN", "cluster.local".to_owned());
        let version = env.or("WEFT_VERSION", env!("CARGO_PKG_VERSION").to_owned());
        let compatibility_series = env.or("WEFT_COMPATIBILITY_SERIES", String::new());
        let guaranteed_cpu = amount(
            &mut env,
            "WEFT_GUARANTEED_CPU",
            inject::Settings::GUARANTEED_CPU,
        );
        let guaranteed_memory = amount(
            &mut env,
            "WEFT_GUARANTEED_MEMORY",
            inject::Settings::GUARANTEED_MEMORY,
        );
        let limits = DefaultLimits {
            cpu: limit(&mut env, "WEFT_PROXY_CPU_LIMIT"),
            memory: limit(&mut env, "WEFT_PROXY_MEMORY_LIMIT"),
        };
        let capture = env.or("WEFT_CAPTURE_MODE", CaptureMode::Init);
        let releases = env.or("WEFT_RELEASES", true);
        let log = env.or("WEFT_LOG", "info".to_owned());
        env.finish_with(|| {
            let namespace = namespace?;
            Some(Self {
                pod_name: pod_name?,
                cluster_domain,
                log,
                releases,
                inject: inject::Settings {
                    proxy_image: proxy_image?,
                    proxy_pull_policy,
                    architectures,
                    controller_address: controller_address?,
                    controller_namespace: namespace.clone(),
                    trust_domain,
                    version,
                    compatibility_series,
                    guaranteed_cpu,
                    guaranteed_memory,
                    limits,
                    capture,
                },
                namespace,
            })
        })
    }
}

/// A quantity of Kubernetes.
fn amount(env: &mut EnvReader, name: &'static str, default: &str) -> String {
    let amount = env.or(name, default.to_owned());
    if let Err(bad) = parse_quantity(&amount) {
        env.mistake(name, bad.to_string());
    }
    amount
}

/// The same, where one is named.
fn limit(env: &mut EnvReader, name: &'static str) -> Option<String> {
    let limit: String = env.or(name, String::new());
    if limit.is_empty() {
        return None;
    }
    if let Err(bad) = parse_quantity(&limit) {
        env.mistake(name, bad.to_string());
    }
    Some(limit)
}
