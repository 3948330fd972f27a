//! Settings of the proxy, read from its environment once and nowhere else.
//!
//! Settings of the process and of the workload are apart: a process may serve more than one
//! workload, and nothing of the one is found through the other.
//!
//! Modes and rules are not here: they come from the controller and change at
//! run time.
//!
//! Imports nothing of this crate.

use std::net::IpAddr;
use std::path::PathBuf;

use policy::access_log::AccessLog;
use policy::name::SpiffeId;
use runtime::env::{BadEnv, EnvReader};

/// Service account of the controller.
const CONTROLLER_ACCOUNT: &str = policy::well_known::CONTROLLER;

/// Of the process, and of the one workload that a sidecar serves.
#[derive(Clone, Debug)]
pub struct Settings {
    pub process: ProcessSettings,
    pub workload: WorkloadSettings,
}

/// What holds for whatever a process serves.
#[derive(Clone, Debug)]
pub struct ProcessSettings {
    /// Filter of the log.
    pub log: String,
}

/// What holds for one workload.
#[derive(Clone, Debug)]
pub struct WorkloadSettings {
    pub own: Own,
    pub controller: ControllerSettings,
    /// Until the controller configures another.
    pub access_log: AccessLog,
    /// JSON, as the injector wrote it.
    pub probes: Option<String>,
    pub hooks: Option<String>,
    /// Series under the names of other meshes; `None` makes none.
    pub compatibility: Option<Compatibility>,
}

/// How a workload reaches the controller, and proves its identity.
#[derive(Clone, Debug)]
pub struct ControllerSettings {
    /// `host:port`.
    pub address: String,
    pub identity: SpiffeId,
    pub token_file: PathBuf,
    pub trust_bundle: PathBuf,
}

/// Which other meshes' series are made, and for which workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compatibility {
    pub linkerd: bool,
    pub osm: bool,
    /// `Deployment`, `StatefulSet` and so on.
    pub kind: String,
    pub workload: String,
}

/// The workload itself: its addresses, its identity, its namespace and its pod.
#[derive(Clone, Debug)]
pub struct Own {
    pub namespace: String,
    pub pod: String,
    pub identity: SpiffeId,
    /// The first of its addresses.
    pub ip: IpAddr,
    /// The same as text: the caller's name for session affinity.
    pub name: String,
    ips: Vec<IpAddr>,
    /// It serves the listeners of a Gateway, and no application.
    gateway: bool,
}

impl Own {
    /// `None` without an address.
    #[must_use]
    pub fn new(
        namespace: String,
        pod: String,
        identity: SpiffeId,
        ips: Vec<IpAddr>,
    ) -> Option<Self> {
        let ip = *ips.first()?;
        Some(Self {
            namespace,
            pod,
            identity,
            ip,
            name: ip.to_string(),
            ips,
            gateway: false,
        })
    }

    /// The same of a pod of a Gateway.
    #[must_use]
    pub fn of_gateway(self) -> Self {
        Self {
            gateway: true,
            ..self
        }
    }

    pub(crate) const fn is_gateway(&self) -> bool {
        self.gateway
    }

    /// True for the workload's own addresses, in either spelling of IPv4.
    #[must_use]
    pub fn has(&self, ip: IpAddr) -> bool {
        self.ips.contains(&ip.to_canonical())
    }
}

impl Settings {
    /// # Errors
    /// Names every variable that is missing or wrong.
    pub fn from_env() -> Result<Self, BadEnv> {
        Self::read(EnvReader::from_env())
    }

    /// # Errors
    /// As [`Settings::from_env`].
    pub fn read(mut env: EnvReader) -> Result<Self, BadEnv> {
        let process = ProcessSettings {
            log: env.or("WEFT_LOG", "info".to_owned()),
        };
        let workload = WorkloadSettings::read(&mut env);
        env.finish_with(|| {
            Some(Self {
                process,
                workload: workload?,
            })
        })
    }
}

impl WorkloadSettings {
    /// `None` where the reader has noted what is missing or wrong.
    fn read(env: &mut EnvReader) -> Option<Self> {
        let trust_domain: Option<String> = env.required("WEFT_TRUST_DOMAIN");
        let own = own(env, trust_domain.as_deref());
        let controller = ControllerSettings::read(env, trust_domain.as_deref());
        let access_log = env.or("WEFT_ACCESS_LOG", AccessLog::OFF);
        let probes = env.optional("WEFT_PROBES");
        let hooks = env.optional("WEFT_HOOKS");
        let compatibility = compatibility(env);
        Some(Self {
            own: own?,
            controller: controller?,
            access_log,
            probes,
            hooks,
            compatibility,
        })
    }
}

impl ControllerSettings {
    fn read(env: &mut EnvReader, trust_domain: Option<&str>) -> Option<Self> {
        let namespace: Option<String> = env.required("WEFT_CONTROLLER_NAMESPACE");
        let address = env.required("WEFT_CONTROLLER_ADDRESS");
        let token_file = env.required("WEFT_TOKEN_FILE");
        let trust_bundle = env.required("WEFT_TRUST_BUNDLE");
        Some(Self {
            identity: spiffe_id(env, trust_domain?, &namespace?, CONTROLLER_ACCOUNT)?,
            address: address?,
            token_file: token_file?,
            trust_bundle: trust_bundle?,
        })
    }
}

fn own(env: &mut EnvReader, trust_domain: Option<&str>) -> Option<Own> {
    let namespace: Option<String> = env.required("WEFT_NAMESPACE");
    let account: Option<String> = env.required("WEFT_SERVICE_ACCOUNT");
    let pod = env.required("WEFT_POD_NAME");
    let ips = env.list("WEFT_POD_IPS");
    if ips.is_empty() {
        env.mistake("WEFT_POD_IPS", "names no address of the pod");
    }
    let namespace = namespace?;
    let identity = spiffe_id(env, trust_domain?, &namespace, &account?)?;
    Own::new(namespace, pod?, identity, ips)
}

fn spiffe_id(
    env: &mut EnvReader,
    trust_domain: &str,
    namespace: &str,
    account: &str,
) -> Option<SpiffeId> {
    SpiffeId::of(trust_domain, namespace, account)
        .map_err(|error| env.mistake("WEFT_TRUST_DOMAIN", format!("makes no SPIFFE id: {error}")))
        .ok()
}

/// `WEFT_COMPATIBILITY_SERIES` is `linkerd`, `osm` or both; nothing is off.
fn compatibility(env: &mut EnvReader) -> Option<Compatibility> {
    const NAME: &str = "WEFT_COMPATIBILITY_SERIES";
    let meshes: Vec<String> = env.list(NAME);
    for mesh in &meshes {
        if !["linkerd", "osm"].contains(&mesh.as_str()) {
            env.mistake(NAME, format!("holds {mesh:?}, expected linkerd or osm"));
        }
    }
    if meshes.is_empty() {
        return None;
    }
    let has = |mesh: &str| meshes.iter().any(|known| known == mesh);
    let (kind, workload) = (
        env.required("WEFT_WORKLOAD_KIND"),
        env.required("WEFT_WORKLOAD_NAME"),
    );
    Some(Compatibility {
        linkerd: has("linkerd"),
        osm: has("osm"),
        kind: kind?,
        workload: workload?,
    })
}

#[cfg(test)]
mod tests {
    use runtime::env::EnvReader;

    use super::Settings;

    const GOOD: &[(&str, &str)] = &[
        ("WEFT_TRUST_DOMAIN", "cluster.local"),
        ("WEFT_NAMESPACE", "shop"),
        ("WEFT_SERVICE_ACCOUNT", "web"),
        ("WEFT_CONTROLLER_NAMESPACE", "weft-system"),
        ("WEFT_POD_NAME", "web-1"),
        ("WEFT_POD_IPS", "10.0.0.7,fd00::7"),
        (
            "WEFT_CONTROLLER_ADDRESS",
            "weft-controller.weft-system.svc:8443",
        ),
        ("WEFT_TOKEN_FILE", "/token"),
        ("WEFT_TRUST_BUNDLE", "/ca.crt"),
    ];

    #[test]
    fn a_pod_knows_its_addresses_in_both_spellings() {
        let settings = Settings::read(EnvReader::from_map(GOOD.iter().copied())).unwrap();
        let own = settings.workload.own;
        assert!(own.has("::ffff:10.0.0.7".parse().unwrap()));
        assert!(own.has("fd00::7".parse().unwrap()));
        assert!(!own.has("127.0.0.1".parse().unwrap()));
        assert_eq!(
            own.identity.as_str(),
            "spiffe://cluster.local/ns/shop/sa/web"
        );
    }

    #[test]
    fn compatibility_series_default_off_and_require_workload() {
        let read = |more: &[(&'static str, &'static str)]| {
            let all = GOOD.iter().chain(more).copied();
            Settings::read(EnvReader::from_map(all)).map(|settings| settings.workload.compatibility)
        };
        assert_eq!(read(&[]).unwrap(), None);
        let series = ("WEFT_COMPATIBILITY_SERIES", "osm");
        let workload = [
            ("WEFT_WORKLOAD_KIND", "Deployment"),
            ("WEFT_WORKLOAD_NAME", "web"),
        ];
        let some = read(&[series, workload[0], workload[1]]).unwrap().unwrap();
        assert!(some.osm && !some.linkerd, "{some:?}");
        assert!(
            read(&[series])
                .unwrap_err()
                .to_string()
                .contains("WEFT_WORKLOAD_NAME")
        );
        let unknown = ("WEFT_COMPATIBILITY_SERIES", "istio");
        let error = read(&[unknown, workload[0], workload[1]]).unwrap_err();
        assert!(error.to_string().contains("istio"), "{error}");
    }

    #[test]
    fn every_missing_variable_is_named_at_once() {
        let error = Settings::read(EnvReader::from_map([("WEFT_NAMESPACE", "shop")]))
            .unwrap_err()
            .to_string();
        for name in [
            "WEFT_TRUST_DOMAIN",
            "WEFT_POD_NAME",
            "WEFT_POD_IPS",
            "WEFT_TOKEN_FILE",
        ] {
            assert!(error.contains(name), "{error}");
        }
    }
}
