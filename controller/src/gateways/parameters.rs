//! Reads the ConfigMap that a Gateway names in `infrastructure.parametersRef`: how many pods it
//! has, and how they are reached.
//!
//! What is not known is refused, not passed over: a field that is misspelt would have no effect,
//! and the user would learn it from an outage.

use std::collections::BTreeMap;
use std::str::FromStr;

use crds::labels::quantity_in_milli;

/// Fields, as they are written.
const REPLICAS: &str = "replicas";
const SERVICE_TYPE: &str = "serviceType";
const EXTERNAL_TRAFFIC_POLICY: &str = "externalTrafficPolicy";
const TRUSTED_HOPS: &str = "trustedHops";
const CPU_REQUEST: &str = "cpuRequest";
const MEMORY_REQUEST: &str = "memoryRequest";

/// Most pods of a Gateway. Each has a control stream and knows every endpoint behind its routes.
const MAX_REPLICAS: u32 = 100;
/// Most proxies in front of a Gateway that may be believed. There are seldom more than two.
const MAX_TRUSTED_HOPS: u32 = 8;

/// How a Gateway is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    pub(super) replicas: Replicas,
    pub(super) service_type: ServiceType,
    /// None: that of Kubernetes, `Cluster`.
    pub(super) external_traffic_policy: Option<ExternalTrafficPolicy>,
    /// How many entries of `x-forwarded-for` are believed, from its end.
    pub(super) trusted_hops: u32,
    pub(super) cpu_request: String,
    pub(super) memory_request: String,
}

/// How many pods there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replicas {
    Fixed(u32),
    /// As a HorizontalPodAutoscaler, or a user, has set it.
    Auto,
}

/// Of the Service in front of the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceType {
    LoadBalancer,
    NodePort,
    ClusterIp,
}

/// To which pods calls from outside are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExternalTrafficPolicy {
    Cluster,
    Local,
}

impl ServiceType {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
            Self::ClusterIp => "ClusterIP",
        }
    }
}

impl ExternalTrafficPolicy {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        }
    }
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            replicas: Replicas::Fixed(1),
            service_type: ServiceType::LoadBalancer,
            external_traffic_policy: None,
            trusted_hops: 0,
            cpu_request: "100m".to_owned(),
            memory_request: "64Mi".to_owned(),
        }
    }
}

impl Parameters {
    /// Reads the data of a ConfigMap.
    ///
    /// # Errors
    /// Every field that is not known or wrong, each with what would be right.
    pub(super) fn read(data: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut all = Self::default();
        let mut wrong = Vec::new();
        for (field, value) in data {
            let value = value.trim();
            if let Err(expected) = all.set(field, value) {
                wrong.push(match expected {
                    Some(expected) => format!("{field} is {value:?}, but must be {expected}"),
                    None => format!("{field} is no parameter"),
                });
            }
        }
        let without_nodes = all.service_type == ServiceType::ClusterIp;
        if without_nodes && all.external_traffic_policy.is_some() {
            wrong.push(format!(
                "{EXTERNAL_TRAFFIC_POLICY} has no meaning with {SERVICE_TYPE} ClusterIP: leave it out"
            ));
        }
        if wrong.is_empty() {
            Ok(all)
        } else {
            Err(wrong.join("; "))
        }
    }

    /// Sets one field. The error is what would be right; none where there is no such field.
    fn set(&mut self, field: &str, value: &str) -> Result<(), Option<&'static str>> {
        let amount = |expected: &'static str| {
            let milli = quantity_in_milli(value).filter(|milli| *milli > 0);
            milli.map(|_| value.to_owned()).ok_or(Some(expected))
        };
        match field {
            REPLICAS if value == "auto" => self.replicas = Replicas::Auto,
            REPLICAS => {
                let number = number(value, 1, MAX_REPLICAS);
                self.replicas = Replicas::Fixed(number.ok_or("auto, or a number of 1 to 100")?);
            }
            SERVICE_TYPE => self.service_type = ServiceType::from_str(value)?,
            EXTERNAL_TRAFFIC_POLICY => {
                self.external_traffic_policy = Some(ExternalTrafficPolicy::from_str(value)?);
            }
            TRUSTED_HOPS => {
                let number = number(value, 0, MAX_TRUSTED_HOPS);
                self.trusted_hops = number.ok_or("a number of 0 to 8")?;
            }
            CPU_REQUEST => self.cpu_request = amount("an amount of CPU such as 100m")?,
            MEMORY_REQUEST => self.memory_request = amount("an amount of memory such as 64Mi")?,
            _ => return Err(None),
        }
        Ok(())
    }
}

impl FromStr for ServiceType {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = [Self::LoadBalancer, Self::NodePort, Self::ClusterIp].into_iter();
        let named = all.find(|one| one.as_str() == text);
        named.ok_or("LoadBalancer, NodePort or ClusterIP")
    }
}

impl FromStr for ExternalTrafficPolicy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = [Self::Cluster, Self::Local].into_iter();
        let named = all.find(|one| one.as_str() == text);
        named.ok_or("Cluster or Local")
    }
}

fn number(text: &str, least: u32, most: u32) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (least..=most).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[(&str, &str)]) -> Result<Parameters, String> {
        let own = |(field, value): &(&str, &str)| ((*field).to_owned(), (*value).to_owned());
        Parameters::read(&data.iter().map(own).collect())
    }

    #[test]
    fn parameters_set_what_is_named_and_nothing_else() {
        assert_eq!(read(&[]), Ok(Parameters::default()));
        let all = read(&[
            ("replicas", "auto"),
            ("serviceType", "NodePort"),
            ("externalTrafficPolicy", "Local"),
            ("trustedHops", "2"),
            ("cpuRequest", "1"),
            ("memoryRequest", "1Gi"),
        ]);
        let expected = Parameters {
            replicas: Replicas::Auto,
            service_type: ServiceType::NodePort,
            external_traffic_policy: Some(ExternalTrafficPolicy::Local),
            trusted_hops: 2,
            cpu_request: "1".to_owned(),
            memory_request: "1Gi".to_owned(),
        };
        assert_eq!(all, Ok(expected));
    }

    #[test]
    fn unknown_or_wrong_parameters_are_each_named() {
        for (field, value) in [
            ("replica", "2"),
            ("replicas", "0"),
            ("replicas", "101"),
            ("replicas", "many"),
            ("serviceType", "ExternalName"),
            ("externalTrafficPolicy", "local"),
            ("trustedHops", "-1"),
            ("trustedHops", "9"),
            ("cpuRequest", "0"),
            ("memoryRequest", "64 MiB"),
        ] {
            let why = read(&[(field, value)]).unwrap_err();
            assert!(why.starts_with(field), "{why}");
        }
        let why = read(&[("replicas", "x"), ("trustedHops", "x")]).unwrap_err();
        assert!(
            why.contains("replicas") && why.contains("trustedHops"),
            "{why}"
        );
        let pair = [
            ("serviceType", "ClusterIP"),
            ("externalTrafficPolicy", "Local"),
        ];
        assert!(read(&pair).unwrap_err().contains("serviceType ClusterIP"));
    }
}
