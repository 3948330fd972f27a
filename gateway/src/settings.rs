//! Settings of a Gateway's pod, read from its environment.

use runtime::env::{BadEnv, EnvReader};
use weft_proxy::Settings;

/// Proxies before a Gateway at most that are believed.
const MOST_HOPS: u8 = 8;
const HOPS: &str = "WEFT_TRUSTED_HOPS";

#[derive(Debug)]
pub struct GatewaySettings {
    /// Of the pod as a proxy of the mesh.
    pub proxy: Settings,
    /// So many proxies before the Gateway are believed about clients.
    pub trusted_hops: u8,
}

impl GatewaySettings {
    /// # Errors
    /// Names every variable that is missing or wrong.
    pub fn from_env() -> Result<Self, BadEnv> {
        Self::read(EnvReader::from_env())
    }

    /// # Errors
    /// As [`GatewaySettings::from_env`].
    pub fn read(mut env: EnvReader) -> Result<Self, BadEnv> {
        let trusted_hops = env.or(HOPS, 0);
        if trusted_hops > MOST_HOPS {
            env.mistake(
                HOPS,
                format!("is {trusted_hops}, expected 0 to {MOST_HOPS}"),
            );
        }
        let mut proxy = Settings::read(env)?;
        proxy.workload.own = proxy.workload.own.of_gateway();
        Ok(Self {
            proxy,
            trusted_hops,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[(&str, &str)] = &[
        ("WEFT_TRUST_DOMAIN", "cluster.local"),
        ("WEFT_NAMESPACE", "edge"),
        ("WEFT_SERVICE_ACCOUNT", "web-weft"),
        ("WEFT_CONTROLLER_NAMESPACE", "weft-system"),
        ("WEFT_POD_NAME", "web-weft-1"),
        ("WEFT_POD_IPS", "10.0.0.7"),
        (
            "WEFT_CONTROLLER_ADDRESS",
            "weft-controller.weft-system.svc:8443",
        ),
        ("WEFT_TOKEN_FILE", "/token"),
        ("WEFT_TRUST_BUNDLE", "/ca.crt"),
    ];

    fn read(more: &[(&str, &str)]) -> Result<GatewaySettings, BadEnv> {
        let all = GOOD.iter().chain(more).copied();
        GatewaySettings::read(EnvReader::from_map(all))
    }

    #[test]
    fn few_hops_are_believed_and_none_unless_said() {
        assert_eq!(read(&[]).unwrap().trusted_hops, 0);
        assert_eq!(read(&[(HOPS, "8")]).unwrap().trusted_hops, 8);
        for wrong in ["9", "-1", "300", "all"] {
            let error = read(&[(HOPS, wrong)]).unwrap_err();
            assert_eq!(error.mistakes.len(), 1, "{error}");
            assert_eq!(error.mistakes[0].variable, HOPS);
        }
    }
}
