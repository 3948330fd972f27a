//! Decides whether a Gateway is programmed: its objects are there, its pods serve what it says, and
//! it has an address.

use model::problem::Condition;
use model::world::ObjectKey;
use serde_json::Value;

use super::objects::{Part, written_name};
use super::status::Address;

/// What there is of a Gateway's objects.
#[derive(Debug)]
pub(super) enum Made {
    /// Nothing was to be made.
    Nothing,
    /// An object of this kind has the name and is another owner's.
    Taken(Part),
    /// One could not be written, for this reason.
    Failed(String),
    /// One is going that was made before, as this says.
    Going(String),
    /// One could not be read or written now, which says nothing about how it is.
    Unknown(String),
    /// All of them, as they are now.
    All {
        deployment: Value,
        addresses: Vec<Address>,
    },
}

/// That an object of a Gateway's name is another owner's, and the way out.
pub(super) fn taken(part: Part, namespace: &str, gateway: &str) -> String {
    let (kind, name) = (part.kind(), written_name(gateway));
    format!(
        "{kind} {namespace}/{name} was not made for this Gateway and is left alone: delete it, or \
         give the Gateway another name"
    )
}

/// The condition. `acknowledged`: what the proxies report of the Gateway; none: it is not known
/// yet.
pub(super) fn programmed(
    accepted: &Condition,
    made: &Made,
    gateway: &ObjectKey,
    acknowledged: Option<&Condition>,
) -> Condition {
    let name = &format!("{}/{}", gateway.namespace, written_name(&gateway.name));
    let not = |reason: &'static str, message: String| Condition {
        status: false,
        reason,
        message,
    };
    if !accepted.status {
        let message = format!("it is not accepted: {}", accepted.message);
        return not("Invalid", message);
    }
    let (deployment, addresses) = match made {
        Made::Nothing => return not("Pending", "nothing is made for it yet".to_owned()),
        Made::Taken(part) => {
            return not("NameTaken", taken(*part, &gateway.namespace, &gateway.name));
        }
        Made::Failed(why) | Made::Going(why) | Made::Unknown(why) => {
            return not("Pending", why.clone());
        }
        Made::All {
            deployment,
            addresses,
        } => (deployment, addresses),
    };
    if let Some(why) = unavailable(deployment, name) {
        return why;
    }
    if addresses.is_empty() {
        let message = format!(
            "Service {name} has no address yet: the cluster has to give LoadBalancers one, or \
             parameter serviceType has to be another"
        );
        return not("AddressNotAssigned", message);
    }
    match acknowledged {
        Some(condition) if condition.status => Condition {
            status: true,
            reason: "Programmed",
            message: condition.message.clone(),
        },
        Some(condition) => condition.clone(),
        None => not("Pending", "its pods have not reported yet".to_owned()),
    }
}

/// Why a Deployment has no pod that serves; none if it has one.
fn unavailable(deployment: &Value, name: &str) -> Option<Condition> {
    let status = &deployment["status"];
    if status["availableReplicas"].as_u64().unwrap_or_default() > 0 {
        return None;
    }
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let mut failures = conditions.filter(|one| match one["type"].as_str() {
        Some("ReplicaFailure") => one["status"] == "True",
        Some("Progressing") => one["status"] == "False",
        _ => false,
    });
    Some(match failures.next() {
        Some(failure) => Condition {
            status: false,
            reason: "NoResources",
            message: format!(
                "no pod of Deployment {name} is ready: {}",
                failure["message"].as_str().unwrap_or_default()
            ),
        },
        None => Condition {
            status: false,
            reason: "Pending",
            message: format!("no pod of Deployment {name} is ready yet"),
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is(status: bool, reason: &'static str) -> Condition {
        Condition {
            status,
            reason,
            message: "1 of 1 proxies".to_owned(),
        }
    }

    fn made(available: u64, addresses: &[&str]) -> Made {
        let addresses = addresses.iter();
        Made::All {
            deployment: json!({"status": {"availableReplicas": available}}),
            addresses: addresses.map(|ip| Address::Ip((*ip).to_owned())).collect(),
        }
    }

    #[test]
    fn gateway_is_programmed_with_pod_address_and_acknowledgement() {
        let gateway = ObjectKey::new("edge", "web");
        let (yes, served) = (is(true, "Accepted"), is(true, "Programmed"));
        let failed = json!({"status": {"conditions": [
            {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"},
        ]}});
        let failed = Made::All {
            deployment: failed,
            addresses: Vec::new(),
        };
        for (accepted, made, acknowledged, expected) in [
            (&yes, made(1, &["198.18.0.1"]), Some(&served), "Programmed"),
            (
                &is(false, "Invalid"),
                made(1, &["a"]),
                Some(&served),
                "Invalid",
            ),
            (&yes, Made::Nothing, Some(&served), "Pending"),
            (&yes, Made::Taken(Part::Service), Some(&served), "NameTaken"),
            (&yes, Made::Failed(String::new()), Some(&served), "Pending"),
            (&yes, made(0, &["a"]), Some(&served), "Pending"),
            (&yes, failed, Some(&served), "NoResources"),
            (&yes, made(1, &[]), Some(&served), "AddressNotAssigned"),
            (&yes, made(1, &["a"]), None, "Pending"),
            (&yes, made(1, &["a"]), Some(&is(false, "Nacked")), "Nacked"),
        ] {
            let condition = programmed(accepted, &made, &gateway, acknowledged);
            assert_eq!(condition.reason, expected, "{made:?}");
            assert_eq!(condition.status, expected == "Programmed", "{made:?}");
        }
        let taken = programmed(&yes, &Made::Taken(Part::Service), &gateway, None);
        assert!(
            taken.message.contains("Service edge/web-weft"),
            "{}",
            taken.message
        );
    }
}
