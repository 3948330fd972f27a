//! Reconciles one Gateway: makes its Deployment, Service and ServiceAccount, and writes its status.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crds::item::Item;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use kube::{Api, Client};
use model::compiled::Compiled;
use model::problem::{Condition, ObjectReport};
use model::world::{GatewayFacts, ObjectKey};
use policy::gateway::target_port;
use policy::name::{Kind, ObjectRef};
use prometheus_client::metrics::counter::Counter;
use serde_json::Value;
use tokio::time::Instant;
use tracing::warn;

use super::apply::{self, Applied, History, apply, is_refusal, message_of};
use super::class::{current, is_about, put, resource};
use super::ending;
use super::objects::{self, Part, Wanted};
use super::parameters::Parameters;
use super::programmed::{Made, programmed, taken};
use super::status::{GatewayStatus, addresses, now, of_gateway};
use crate::apiserver::events::{About, Event, EventRecorder, EventType};
use crate::observe::acknowledged::Observed;
use crate::settings::gateways::GatewaySettings;
use crate::status::apart::Conditions;
use crate::status::conditions::api_version;

/// After a change of the Lease holder the streams of pods are not known at once. What was
/// programmed stays so for this time, as of other objects.
const RECONNECT: Duration = Duration::from_secs(15);

/// What a look needs besides the Gateway.
pub(super) struct Around<'a> {
    pub(super) client: &'a Client,
    pub(super) compiled: &'a Compiled,
    pub(super) observed: &'a Observed,
    pub(super) events: &'a EventRecorder,
    pub(super) settings: &'a GatewaySettings,
    pub(super) written: &'a Counter,
    /// When this replica began to look.
    pub(super) started: Instant,
}

/// What is known of one Gateway between two looks.
#[derive(Default)]
pub(super) struct Driven {
    /// As they were read last.
    parameters: Option<Parameters>,
    /// Of its objects.
    histories: BTreeMap<Part, History>,
    /// What was found at the last look that needs a person.
    warnings: BTreeSet<Warning>,
    conditions: Conditions,
}

/// What needs a person: the reason of its Event, and what the Event says.
type Warning = (&'static str, String);

const NOT_WRITTEN: &str = "NotWritten";
/// The same where it may pass by itself: it is in the log alone.
const NOT_NOW: &str = "NotWrittenNow";

/// Why a Gateway cannot be run as it is written.
struct Refusal {
    reason: &'static str,
    message: String,
}

impl Driven {
    /// Makes what is needed, and writes the status. Returns whether there is nothing to wait for.
    ///
    /// # Errors
    /// When something cannot be read, or the status cannot be written.
    pub(super) async fn settle(
        &mut self,
        around: &Around<'_>,
        key: &ObjectKey,
        report: &ObjectReport,
    ) -> Result<bool, kube::Error> {
        let Some(facts) = around.compiled.world.gateways.get(key).cloned() else {
            return Ok(true);
        };
        let wanted = self.wanted(around, key, &facts, report).await?;
        let accepted = match &wanted {
            Err(refusal) if report.accepted.status => Condition {
                status: false,
                reason: refusal.reason,
                message: refusal.message.clone(),
            },
            _ => report.accepted.clone(),
        };
        let made = match wanted {
            Ok((name, wanted)) if accepted.status && !wanted.ports.is_empty() => {
                self.make(around, &name, &wanted).await
            }
            _ => Made::Nothing,
        };
        let object = ObjectRef::new(Kind::Gateway, key.namespace.clone(), key.name.clone());
        let ending = ending::soon(&facts.spec, &around.compiled.world, Timestamp::now());
        let mut warnings = self.needs_a_person(key, (&made, ending.as_slice()));
        // What the model refuses is reported with the other objects.
        if report.accepted.status && !accepted.status {
            warnings.insert((accepted.reason, accepted.message.clone()));
        }
        self.record(around, &object, &facts, warnings);
        let of_proxies = (self.conditions).update(&object, around.compiled, around.observed);
        let acknowledged = of_proxies.map(|(_, [.., (_, programmed)])| programmed);
        let programmed = programmed(&accepted, &made, key, acknowledged);
        let conditions = (accepted, programmed, ending);
        write(around, key, report, conditions, made).await
    }

    /// The name and content of its objects.
    async fn wanted(
        &mut self,
        around: &Around<'_>,
        key: &ObjectKey,
        facts: &GatewayFacts,
        report: &ObjectReport,
    ) -> Result<Result<(String, Wanted), Refusal>, kube::Error> {
        let parameters = match parameters(around.client, key, facts).await {
            Ok(Ok(parameters)) => parameters,
            Ok(Err(message)) => {
                let reason = "InvalidParameters";
                return Ok(Err(Refusal { reason, message }));
            }
            // They stay as they were.
            Err(error) => self.parameters.clone().ok_or(error)?,
        };
        self.parameters = Some(parameters.clone());
        let name = match objects::name(&key.name) {
            Ok(name) => name,
            Err(message) => {
                let reason = "Invalid";
                return Ok(Err(Refusal { reason, message }));
            }
        };
        let infrastructure = &facts.spec.infrastructure;
        let wanted = Wanted {
            gateway: key.clone(),
            uid: report.uid.to_string(),
            class: facts.spec.class.to_string(),
            labels: infrastructure.labels.clone(),
            annotations: infrastructure.annotations.clone(),
            ports: ports(facts, report),
            parameters,
        };
        Ok(Ok((name, wanted)))
    }

    async fn make(&mut self, around: &Around<'_>, name: &str, wanted: &Wanted) -> Made {
        let (mut deployment, mut service) = (Value::Null, Value::Null);
        for part in Part::ALL {
            let history = self.histories.entry(part).or_default();
            let applied = apply(around.client, part, name, wanted, around.settings, history);
            let live = match applied.await {
                Ok(Applied::Same { live }) => live,
                Ok(Applied::Written { live }) => {
                    around.written.inc();
                    live
                }
                Ok(Applied::Taken) => return Made::Taken(part),
                Ok(Applied::Going) => {
                    let kind = part.kind();
                    return Made::Going(format!("{kind} {name} is being deleted"));
                }
                Err(error) => {
                    let (kind, message) = (part.kind(), message_of(&error));
                    let why = format!("{kind} {name} cannot be written: {message}");
                    return if is_refusal(&error) {
                        Made::Failed(why)
                    } else {
                        Made::Unknown(why)
                    };
                }
            };
            match part {
                Part::ServiceAccount => {}
                Part::Deployment => deployment = live,
                Part::Service => service = live,
            }
        }
        Made::All {
            deployment,
            addresses: addresses(&service),
        }
    }

    fn needs_a_person(
        &self,
        key: &ObjectKey,
        (made, ending): (&Made, &[String]),
    ) -> BTreeSet<Warning> {
        let ends = ending.iter().map(|text| ("CertificateEnds", text.clone()));
        let mut all: BTreeSet<Warning> = ends.collect();
        match made {
            Made::Taken(part) => {
                all.insert(("NameTaken", taken(*part, &key.namespace, &key.name)));
            }
            Made::Failed(why) => {
                all.insert((NOT_WRITTEN, why.clone()));
            }
            Made::Unknown(why) => {
                all.insert((NOT_NOW, why.clone()));
            }
            Made::Nothing | Made::Going(_) | Made::All { .. } => {}
        }
        for (part, history) in &self.histories {
            if let Some(fields) = history.left() {
                let (kind, name) = (part.kind(), objects::written_name(&key.name));
                let text = format!(
                    "{kind} {}/{name}: {fields} is changed again each time that Weft undoes that: \
                     keep the webhook or controller that does so away from this object; Weft tries \
                     again within an hour",
                    key.namespace
                );
                all.insert(("ForeignEdit", text));
            }
        }
        all
    }

    /// Records what needs a person, and logs what is new of it.
    fn record(
        &mut self,
        around: &Around<'_>,
        object: &ObjectRef,
        facts: &GatewayFacts,
        warnings: BTreeSet<Warning>,
    ) {
        for (reason, text) in warnings.difference(&self.warnings) {
            warn!(%object, reason, text, "a Gateway needs a person");
        }
        let for_events = warnings.iter().filter(|(reason, _)| *reason != NOT_NOW);
        for &(reason, ref text) in for_events {
            around.events.record(Event {
                about: About {
                    api_version: api_version(Kind::Gateway),
                    kind: Kind::Gateway.to_string(),
                    namespace: object.namespace.to_string(),
                    name: object.name.to_string(),
                    uid: facts.meta.uid.to_string(),
                },
                event_type: EventType::Warning,
                reason,
                action: "Run",
                text: text.clone(),
            });
        }
        self.warnings = warnings;
    }
}

/// Takes the objects away that were made for the Gateway of this uid, whichever replica made them.
///
/// # Errors
/// When one cannot be read or deleted.
pub(super) async fn remove(
    client: &Client,
    gateway: &ObjectKey,
    uid: &str,
) -> Result<(), kube::Error> {
    let name = objects::written_name(&gateway.name);
    // The Service first: no call comes any more then.
    for part in Part::ALL.into_iter().rev() {
        apply::remove(client, part, (&*gateway.namespace, name.as_str()), uid).await?;
    }
    Ok(())
}

/// What the ConfigMap says that the Gateway names. The inner error is why it cannot be used.
async fn parameters(
    client: &Client,
    key: &ObjectKey,
    facts: &GatewayFacts,
) -> Result<Result<Parameters, String>, kube::Error> {
    let Some(named) = &facts.spec.infrastructure.parameters else {
        return Ok(Ok(Parameters::default()));
    };
    let (kind, name) = (&named.kind, &named.name);
    let path = "spec.infrastructure.parametersRef";
    if !named.group.is_empty() || &**kind != "ConfigMap" {
        return Ok(Err(format!(
            "{path} names a {kind}: Weft reads parameters from a ConfigMap of group \"\""
        )));
    }
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &key.namespace);
    let Some(found) = api.get_opt(name).await? else {
        let namespace = &key.namespace;
        return Ok(Err(format!(
            "{path}: ConfigMap {namespace}/{name} does not exist: create it"
        )));
    };
    let read = Parameters::read(&found.data.unwrap_or_default());
    Ok(read.map_err(|why| format!("{path}: ConfigMap {name}: {why}")))
}

/// The ports of the listeners that are accepted.
fn ports(facts: &GatewayFacts, report: &ObjectReport) -> BTreeMap<u16, u16> {
    let accepted = report.listeners.iter().filter(|one| one.accepted.status);
    let ports = accepted.filter_map(|accepted| {
        let mut listeners = facts.spec.listeners.iter();
        let port = listeners.find(|one| one.name == accepted.name)?.port;
        Some((port, target_port(port)?))
    });
    ports.collect()
}

/// Writes the status, where it is not what it should be. Returns whether there is nothing to wait
/// for.
async fn write(
    around: &Around<'_>,
    key: &ObjectKey,
    report: &ObjectReport,
    (accepted, programmed, ending): (Condition, Condition, Vec<String>),
    made: Made,
) -> Result<bool, kube::Error> {
    let Some(resource) = resource(Kind::Gateway) else {
        return Ok(true);
    };
    let api: Api<Item<DynamicObject>> =
        Api::namespaced_with(around.client.clone(), &key.namespace, &resource);
    let Some(live) = api.get_opt(&key.name).await?.and_then(current) else {
        return Ok(true);
    };
    if !is_about(&live, report) {
        return Ok(false);
    }
    let is_new_here = around.started.elapsed() < RECONNECT;
    let is_unknown = matches!(made, Made::Unknown(_));
    let programmed = match was_programmed(&live, report.generation) {
        Some(before) if (is_new_here || is_unknown) && programmed.reason == "Pending" => before,
        _ => programmed,
    };
    let is_settled = !is_unknown && (programmed.status || !accepted.status);
    let status = GatewayStatus {
        generation: report.generation,
        accepted,
        programmed,
        listeners: &report.listeners,
        ending: &ending,
        addresses: match made {
            Made::All { addresses, .. } => Some(addresses),
            _ => None,
        },
    };
    if let Some(status) = of_gateway(&live, &status, &now()) {
        put(&api, &key.name, &live, &status).await?;
    }
    Ok(is_settled)
}

/// The condition of this generation as it stands, where it says that the Gateway is programmed.
fn was_programmed(live: &Value, generation: i64) -> Option<Condition> {
    let mut conditions = live["status"]["conditions"].as_array()?.iter();
    let before = conditions.find(|one| one["type"] == "Programmed" && one["status"] == "True")?;
    (before["observedGeneration"] == generation).then(|| Condition {
        status: true,
        reason: "Programmed",
        message: before["message"].as_str().unwrap_or_default().to_owned(),
    })
}
