//! Settings of Gateways, read from the environment.

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::inject::Architectures;
use runtime::env::EnvReader;

const NAMESPACES: &str = "WEFT_GATEWAY_NAMESPACES";
const PULL_POLICY: &str = "WEFT_GATEWAY_PULL_POLICY";
const ARCHITECTURES: &str = "WEFT_GATEWAY_ARCHITECTURES";

/// Which kinds of the Gateway API are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayApi {
    /// None: there is no right to any.
    Off,
    /// Routes with Services as parents, and grants.
    Routes,
    /// Gateways, their classes and TLSRoutes besides.
    Gateways,
}

/// What holds for all Gateways of this controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Namespaces in which Gateways are run.
    pub namespaces: Arc<BTreeSet<String>>,
    /// Image of their pods.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: String,
    /// Secrets with which it is pulled.
    pub pull_secrets: Vec<String>,
    /// The processors that it is built for.
    pub architectures: Architectures,
    /// `host:port` of the controllers.
    pub controller_address: String,
    /// Namespace of the controllers.
    pub controller_namespace: String,
    /// Of all identities.
    pub trust_domain: String,
}

impl GatewayApi {
    pub(super) fn of(reads_routes: bool, gateways: Option<&GatewaySettings>) -> Self {
        match (reads_routes, gateways) {
            (false, _) => Self::Off,
            (true, None) => Self::Routes,
            (true, Some(_)) => Self::Gateways,
        }
    }
}

/// `None` where no namespace is named, or where something is wrong, which the reader notes.
/// The pairs are the controllers' namespace and port, and the domains of identities and of DNS.
pub(super) fn read(
    env: &mut EnvReader,
    (namespace, port): (Option<&str>, u16),
    (trust_domain, cluster_domain): (&str, &str),
) -> Option<GatewaySettings> {
    let namespaces: Vec<String> = env.list(NAMESPACES);
    let image: Option<String> = env.optional("WEFT_GATEWAY_IMAGE");
    let pull_policy = env.or(PULL_POLICY, "IfNotPresent".to_owned());
    let pull_secrets = env.list("WEFT_GATEWAY_PULL_SECRETS");
    let architectures = env.or(ARCHITECTURES, Architectures::default());
    if !["Always", "IfNotPresent", "Never"].contains(&pull_policy.as_str()) {
        env.mistake(PULL_POLICY, "must be Always, IfNotPresent or Never");
    }
    if namespaces.is_empty() {
        return None;
    }
    if image.is_none() {
        env.mistake(
            "WEFT_GATEWAY_IMAGE",
            format!("is missing, and {NAMESPACES} is not"),
        );
    }
    let namespace = namespace?;
    Some(GatewaySettings {
        namespaces: Arc::new(namespaces.into_iter().collect()),
        image: image?,
        pull_policy,
        pull_secrets,
        architectures,
        // With a dot at its end, so that no search list of the pod is tried.
        controller_address: format!(
            "{}.{namespace}.svc.{cluster_domain}.:{port}",
            policy::well_known::CONTROLLER
        ),
        controller_namespace: namespace.to_owned(),
        trust_domain: trust_domain.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use runtime::env::BadEnv;

    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<GatewaySettings>, BadEnv> {
        let mut env = EnvReader::from_map(variables.iter().copied());
        let settings = read(
            &mut env,
            (Some("weft-system"), 8443),
            ("mesh.example", "c.local"),
        );
        env.finish().map(|()| settings)
    }

    #[test]
    fn gateways_are_off_until_namespaces_are_named() {
        assert_eq!(of(&[("WEFT_GATEWAY_IMAGE", "r/gateway:1")]).unwrap(), None);
        let on = of(&[
            (NAMESPACES, "edge, shop"),
            ("WEFT_GATEWAY_IMAGE", "r/gateway:1"),
        ]);
        let on = on.unwrap().unwrap();
        assert!(on.namespaces.contains("edge") && on.namespaces.contains("shop"));
        assert_eq!(
            on.controller_address,
            "weft-controller.weft-system.svc.c.local.:8443"
        );
        assert_eq!(on.architectures, Architectures::default());
        assert_eq!(GatewayApi::of(true, Some(&on)), GatewayApi::Gateways);
        assert_eq!(GatewayApi::of(true, None), GatewayApi::Routes);
        assert_eq!(GatewayApi::of(false, Some(&on)), GatewayApi::Off);
    }

    #[test]
    fn gateways_without_image_or_with_wrong_values_are_refused() {
        for (variables, named) in [
            (vec![(NAMESPACES, "edge")], "WEFT_GATEWAY_IMAGE"),
            (vec![(PULL_POLICY, "Sometimes")], PULL_POLICY),
            (vec![(ARCHITECTURES, "mips")], ARCHITECTURES),
        ] {
            let error = of(&variables).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
