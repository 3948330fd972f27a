//! Parses and validates the change of a dry run, as the webhook would validate its objects.

use std::collections::BTreeSet;

use crds::convert::convert;
use crds::observe::DryRunSpec;
use crds::smi::validation::{Cluster, Mistake, RuleKind, Severity};
use crds::smi::{STORAGE_VERSION, SmiKind};
use crds::weft;
use kube::core::DynamicObject;
use model::translate::change::{Change, exists};
use model::world::{ObjectKey, World};
use policy::mode::AccessMode;
use policy::name::Kind;
use serde_json::Value;

use crate::aggregated::refusal::Refusal;

/// Max objects of one change; each costs up to four queries to the API server.
const MAX_OBJECTS: usize = 64;
/// Max bytes of the text about all of them.
const WORDS: usize = 1024;

/// The requested change.
#[derive(Debug, Default)]
pub(super) struct TriedChange {
    pub(super) change: Change,
    /// Admission's warnings beside its consent, and fields that the API server would remove.
    pub(super) warnings: Vec<String>,
}

fn wrong(field: &str, why: impl std::fmt::Display) -> Refusal {
    Refusal::bad(format!("spec.{field}: {why}"))
}

impl TriedChange {
    pub(super) fn read(spec: &DryRunSpec, cluster: &Cluster) -> Result<Self, Refusal> {
        let count = spec.objects.len() + spec.delete.len() + spec.access.len();
        if count == 0 {
            return Err(wrong("objects", "there is nothing to try"));
        }
        if count > MAX_OBJECTS {
            let why = format!("there are more than {MAX_OBJECTS} objects; try fewer");
            return Err(wrong("objects", why));
        }
        let mut parsed = Self::default();
        for (index, object) in spec.objects.iter().enumerate() {
            parsed.object(&format!("objects[{index}]"), object, cluster)?;
        }
        for (index, gone) in spec.delete.iter().enumerate() {
            let field = format!("delete[{index}]");
            let kind = laid(&gone.kind).ok_or_else(|| wrong(&field, not_laid(&gone.kind)))?;
            if gone.namespace.is_empty() || gone.name.is_empty() {
                return Err(wrong(&field, "needs a namespace and a name"));
            }
            let key = ObjectKey::new(&gone.namespace, &gone.name);
            parsed.change.delete.push((kind, key));
        }
        for (index, change) in spec.access.iter().enumerate() {
            let mode: Result<AccessMode, _> = change.mode.parse();
            let mode = mode.map_err(|bad| wrong(&format!("access[{index}].mode"), bad))?;
            let namespace = ObjectKey::new("", &change.namespace);
            parsed.change.access.push((namespace, mode));
        }
        Ok(parsed)
    }

    fn object(&mut self, field: &str, object: &Value, cluster: &Cluster) -> Result<(), Refusal> {
        let text = |pointer: &str| {
            let text = object.pointer(pointer).and_then(Value::as_str);
            text.unwrap_or_default()
        };
        let (name, namespace) = (text("/metadata/name"), text("/metadata/namespace"));
        if name.is_empty() || namespace.is_empty() {
            return Err(wrong(field, "needs metadata.name and metadata.namespace"));
        }
        let (api_version, spelled) = (text("/apiVersion"), text("/kind"));
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        // Two kinds have one name.
        let kind = Kind::of(group, spelled).filter(|kind| Kind::WRITTEN.contains(kind));
        let kind = kind.or_else(|| laid(spelled));
        let kind = kind.ok_or_else(|| wrong(field, not_laid(spelled)))?;
        let stored = match SmiKind::read(api_version, spelled) {
            Some((smi, _)) => {
                let stored = format!("{}/{STORAGE_VERSION}", smi.group());
                convert(object, &stored).map_err(|error| wrong(field, error))?
            }
            None if api_version == format!("{}/{}", weft::GROUP, weft::VERSION) => object.clone(),
            None if is_of_gateway_api(kind, api_version) => object.clone(),
            None => {
                let why = format!("apiVersion {api_version:?} is not served for kind {spelled}");
                return Err(wrong(field, why));
            }
        };
        let at = cluster.around(namespace);
        let mut mistakes = crds::validate::as_written(object);
        let of_spec = crds::validate::object(group, spelled, stored.get("spec"), &at);
        mistakes.extend(of_spec.into_iter().flatten());
        let named = format!("{spelled} {namespace}/{name}");
        self.add_mistakes(field, &named, &mistakes)?;
        let found = gateway_api::findings::of(kind, object).into_iter();
        let words = found.map(|one| format!("{named}: {}: {}", one.path, one.message));
        self.warnings.extend(words);
        let read: DynamicObject =
            serde_json::from_value(stored).map_err(|error| wrong(field, error))?;
        self.change.objects.push((kind, read));
        Ok(())
    }

    fn add_mistakes(
        &mut self,
        field: &str,
        object: &str,
        mistakes: &[Mistake],
    ) -> Result<(), Refusal> {
        let words = |mistake: &Mistake| format!("{object}: {}: {}", mistake.field, mistake.text);
        let mut refused = mistakes
            .iter()
            .filter(|one| one.severity == Severity::Refuse);
        if let Some(first) = refused.next() {
            return Err(wrong(field, format!("would be refused: {}", words(first))));
        }
        self.warnings.extend(mistakes.iter().map(words));
        Ok(())
    }

    /// Namespaces of its own objects, which the user may write.
    pub(super) fn namespaces(&self) -> BTreeSet<String> {
        let put = self.change.objects.iter();
        let put = put.filter_map(|(_, object)| object.metadata.namespace.clone());
        let deleted = self.change.delete.iter();
        let deleted = deleted.map(|(_, key)| key.namespace.to_string());
        let modes = self.change.access.iter();
        let modes = modes.map(|(namespace, _)| namespace.name.to_string());
        put.chain(deleted).chain(modes).collect()
    }

    /// What it is, for the log: no control character, and cut.
    pub(super) fn words(&self) -> String {
        let put = self.change.objects.iter().map(|(kind, object)| {
            let key = model::translate::key(&object.metadata);
            format!("{} {key}", kind.as_str())
        });
        let deleted = self.change.delete.iter();
        let deleted = deleted.map(|(kind, key)| format!("delete {} {key}", kind.as_str()));
        let modes = self.change.access.iter();
        let modes = modes.map(|(key, mode)| format!("{} of {}", mode.as_str(), key.name));
        let words: Vec<String> = put.chain(deleted).chain(modes).collect();
        let words = words.join(", ").replace(char::is_control, "?");
        words[..words.floor_char_boundary(WORDS)].to_owned()
    }

    /// Whether what would go or be annotated is there: the response must not report for a misspelt
    /// name that nothing changes. Checked after the rights, so it reveals no more than the user may
    /// know.
    pub(super) fn must_be_there(&self, world: &World) -> Result<(), Refusal> {
        for (index, (kind, key)) in self.change.delete.iter().enumerate() {
            if !exists(world, *kind, key) {
                let why = format!("there is no {} {key}", kind.as_str());
                return Err(wrong(&format!("delete[{index}]"), why));
            }
        }
        for (index, (namespace, _)) in self.change.access.iter().enumerate() {
            if !world.namespaces.contains_key(namespace) {
                let why = format!("there is no namespace {}", namespace.name);
                return Err(wrong(&format!("access[{index}].namespace"), why));
            }
        }
        Ok(())
    }

    /// Leaves out objects of the Gateway API, which are not read and have no effect.
    pub(super) fn leave_out_gateway_api(&mut self) {
        let is_read = |kind: Kind| kind.group() != gateway_api::GROUP;
        let Change {
            objects, delete, ..
        } = &mut self.change;
        let before = objects.len() + delete.len();
        objects.retain(|(kind, _)| is_read(*kind));
        delete.retain(|(kind, _)| is_read(*kind));
        if objects.len() + delete.len() < before {
            let warning = "objects of the Gateway API have no effect while value \
                           gatewayApi.enabled is false";
            self.warnings.push(warning.to_owned());
        }
    }

    /// Warns of rules about UDP where NetworkPolicies hold it: no call over it is remembered, so
    /// that one which is opened or refused changes no call.
    pub(super) fn warn_of_udp(&mut self, world: &World) {
        let put = self.change.objects.iter().map(|(kind, object)| {
            let key = model::translate::key(&object.metadata);
            (*kind, key, names_udp(object))
        });
        let deleted = self.change.delete.iter();
        let deleted = deleted.map(|(kind, key)| (*kind, key.clone(), false));
        let of_udp = put.chain(deleted).filter(|(kind, key, names_udp)| {
            let is_target = *kind == Kind::TrafficTarget;
            *kind == Kind::UdpRoute || *names_udp || is_target && allows_udp(world, key)
        });
        let warnings: Vec<String> = of_udp
            .map(|(kind, key, _)| {
                let kind = kind.as_str();
                format!(
                    "{kind} {key}: what it says of UDP is not evaluated: compare NetworkPolicies"
                )
            })
            .collect();
        self.warnings.extend(warnings);
    }

    /// Warns of objects in namespaces that are not there: they may be about to be made, or be
    /// misspelt, and then the response must not report that nothing changes.
    pub(super) fn warn_of_new_namespaces(&mut self, world: &World) {
        let put = self.change.objects.iter();
        let namespaces: BTreeSet<&str> = put
            .filter_map(|(_, object)| object.metadata.namespace.as_deref())
            .collect();
        let new = namespaces
            .into_iter()
            .filter(|index| world.namespace(index).is_none());
        let warnings: Vec<String> = new
            .map(|index| {
                format!("there is no namespace {index}: what would be put there changes no call")
            })
            .collect();
        self.warnings.extend(warnings);
    }
}

/// Whether a target that would be put has rules about UDP.
fn names_udp(object: &DynamicObject) -> bool {
    let rules = object.data["spec"]["rules"].as_array();
    let mut rules = rules.into_iter().flatten();
    rules.any(|rule| rule["kind"] == Kind::UdpRoute.as_str())
}

/// Whether a target that is there has.
fn allows_udp(world: &World, target: &ObjectKey) -> bool {
    let target = world.targets.get(target);
    target.is_some_and(|facts| {
        let mut rules = facts.spec.rules.iter();
        rules.any(|rule| rule.kind == RuleKind::UdpRoute)
    })
}

/// Whether objects of a kind of the Gateway API are read in this version.
fn is_of_gateway_api(kind: Kind, api_version: &str) -> bool {
    let version = api_version.strip_prefix(gateway_api::GROUP);
    let version = version.and_then(|rest| rest.strip_prefix('/'));
    version.is_some_and(|version| gateway_api::findings::versions(kind).contains(&version))
}

fn laid(spelled: &str) -> Option<Kind> {
    Kind::WRITTEN
        .into_iter()
        .find(|kind| kind.as_str() == spelled)
}

fn not_laid(spelled: &str) -> String {
    let kinds: Vec<&str> = Kind::WRITTEN.iter().map(|kind| kind.as_str()).collect();
    format!("kind {spelled:?} is none of {}", kinds.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crds::observe::Deleted;
    use serde_json::json;

    use super::*;
    use crate::testing::cluster::{shop, target, udp_route};

    #[test]
    fn objects_in_missing_namespace_produce_one_warning() {
        let object = |namespace: &str, name: &str| {
            json!({"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "TCPRoute",
                "metadata": {"namespace": namespace, "name": name},
                "spec": {"matches": {"ports": [80]}}})
        };
        let objects = [("shop", "a"), ("shpo", "a"), ("shpo", "b")];
        let spec = DryRunSpec {
            objects: objects.map(|(index, name)| object(index, name)).to_vec(),
            ..DryRunSpec::default()
        };
        let mut change = TriedChange::read(&spec, &Cluster::default()).unwrap();
        let mut world = World::default();
        let namespaces = Arc::make_mut(&mut world.namespaces);
        namespaces.insert(ObjectKey::new("", "shop"), Arc::default());
        change.warn_of_new_namespaces(&world);
        assert_eq!(
            change.warnings,
            ["there is no namespace shpo: what would be put there changes no call"]
        );
    }

    #[test]
    fn route_of_gateway_api_is_read_beside_its_namesake() {
        let read = |api_version: &str| {
            let spec = json!({
                "parentRefs": [{"group": "", "kind": "Service", "name": "api"}],
                "rules": [{"backendRefs": [{"kind": "Bucket", "name": "b"}]}],
            });
            let object = json!({"apiVersion": api_version, "kind": "TCPRoute",
                "metadata": {"namespace": "shop", "name": "a"}, "spec": spec});
            let spec = DryRunSpec {
                objects: vec![object],
                ..DryRunSpec::default()
            };
            TriedChange::read(&spec, &Cluster::default())
        };
        for version in ["v1", "v1alpha2"] {
            let change = read(&format!("gateway.networking.k8s.io/{version}")).unwrap();
            assert_eq!(change.change.objects[0].0, Kind::GatewayTcpRoute);
            let [warning] = &*change.warnings else {
                panic!("{:?}", change.warnings);
            };
            assert!(
                warning.contains("spec.rules[0].backendRefs[0]"),
                "{warning}"
            );
        }
        let refusal = read("gateway.networking.k8s.io/v9").unwrap_err();
        assert!(
            refusal.message.contains("is not served"),
            "{}",
            refusal.message
        );
    }

    #[test]
    fn objects_that_are_not_read_are_left_out() {
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"namespace": "shop", "name": "a"},
            "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "api"}]},
        });
        let gone = |kind: &str| Deleted {
            kind: kind.to_owned(),
            namespace: "shop".to_owned(),
            name: "a".to_owned(),
        };
        let spec = DryRunSpec {
            objects: vec![route],
            delete: vec![gone("ReferenceGrant"), gone("TCPRoute")],
            ..DryRunSpec::default()
        };
        let mut change = TriedChange::read(&spec, &Cluster::default()).unwrap();
        change.warnings.clear();
        for _ in 0..2 {
            change.leave_out_gateway_api();
            assert!(change.change.objects.is_empty());
            let [(left, _)] = &*change.change.delete else {
                panic!("{:?}", change.change.delete);
            };
            assert_eq!(*left, Kind::TcpRoute);
            assert_eq!(change.warnings.len(), 1, "{:?}", change.warnings);
        }
    }

    #[test]
    fn changed_udp_rules_produce_a_warning() {
        let rules = json!([{"kind": "UDPRoute", "name": "dns"}]);
        let cluster = shop().with(target("dns", "api", &["web"], rules.clone()));
        let world = cluster.with(udp_route("dns", &[53])).world();
        let deleted = |kind: &str, name: &str| DryRunSpec {
            delete: vec![Deleted {
                kind: kind.to_owned(),
                namespace: "shop".to_owned(),
                name: name.to_owned(),
            }],
            ..DryRunSpec::default()
        };
        let put = DryRunSpec {
            objects: vec![target("new", "api", &["web"], rules)],
            ..DryRunSpec::default()
        };
        for (spec, expected) in [
            (deleted("UDPRoute", "dns"), 1),
            (deleted("TrafficTarget", "dns"), 1),
            (put, 1),
            (deleted("TCPRoute", "dns"), 0),
            (deleted("TrafficTarget", "other"), 0),
        ] {
            let mut change = TriedChange::read(&spec, &Cluster::default()).unwrap();
            change.warnings.clear();
            change.warn_of_udp(&world);
            assert_eq!(change.warnings.len(), expected, "{spec:?}");
        }
    }
}
