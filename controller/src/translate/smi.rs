//! SMI objects. Never fails: what cannot be read becomes a fact that says so.

use std::sync::Arc;

use crds::smi::{
    HTTPRouteGroup, IdentityBinding, RouteMatch, Subject, TCPRoute, TrafficSplit, TrafficTarget,
    UDPRoute, parse_headers,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;
use policy::http_match::{Budget, HttpMatch};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::metadata::{created, text};
use crate::world::{
    BackendFacts, BindingFacts, GroupFacts, Header, MatchFacts, Meta, RefFacts, RuleFacts,
    SplitFacts, SubjectFacts, TargetFacts, TcpRouteFacts, UdpRouteFacts,
};

fn meta(meta: &ObjectMeta) -> Meta {
    Meta {
        generation: meta.generation.unwrap_or(0),
        created: created(meta),
        uid: text(meta.uid.as_deref()),
        unreadable: None,
    }
}

/// Reads the object, or says in the metadata why it cannot be read.
fn read<K>(object: DynamicObject) -> (Meta, Option<K>)
where
    K: kube::Resource + DeserializeOwned,
{
    let mut meta = meta(&object.metadata);
    let kind = object.types.as_ref().map_or("", |types| &types.kind);
    if let Err(why) = check_shape("", &object.data, kind) {
        meta.unreadable = Some(why.into());
        return (meta, None);
    }
    match object.try_parse::<K>() {
        Ok(read) => (meta, Some(read)),
        Err(error) => {
            // It may quote a value of any length.
            let why: String = error.to_string().chars().take(LONGEST_REASON).collect();
            meta.unreadable = Some(why.into());
            (meta, None)
        }
    }
}

/// Characters of a reason that are kept.
const LONGEST_REASON: usize = 300;

/// Fields that hold objects; a list in their place would be read by position, in the
/// order in which our types happen to declare their fields, and so get a meaning.
const OBJECTS: [&str; 6] = [
    "spec",
    "status",
    "destination",
    "schemes",
    "podLabelSelector",
    "matchLabels",
];

/// The most entries of lists, as the schemas have them. Objects that were stored under
/// another product's schema may hold more, and lists that refer to lists multiply.
const BOUNDS: [(&str, usize); 7] = [
    ("sources", 256),
    ("rules", 64),
    ("backends", 64),
    ("matches", 64),
    ("methods", 32),
    ("ports", 128),
    ("spiffeIdentities", 64),
];

/// Finds what reading into types would not: lists in the place of objects, and lists
/// that are too long.
fn check_shape(at: &str, value: &Value, kind: &str) -> Result<(), String> {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                // Which has two shapes, and a reader of its own.
                if name == "headers" {
                    continue;
                }
                let at = match at {
                    "" => name.clone(),
                    at => format!("{at}.{name}"),
                };
                if let Value::Array(entries) = value {
                    // Elsewhere `matches` is a list.
                    let of_ports = kind.ends_with("Route") && at == "spec.matches";
                    if of_ports || OBJECTS.contains(&name.as_str()) {
                        return Err(format!("{at} is a list, but must be an object"));
                    }
                    let bound = BOUNDS.iter().find(|(bounded, _)| bounded == name);
                    if let Some((_, most)) = bound.filter(|(_, most)| entries.len() > *most) {
                        let many = entries.len();
                        return Err(format!("{at} holds {many} entries; at most {most} may be"));
                    }
                }
                check_shape(&at, value, kind)?;
            }
            Ok(())
        }
        Value::Array(entries) => {
            for (i, entry) in entries.iter().enumerate() {
                let at = format!("{at}[{i}]");
                if entry.is_array() {
                    return Err(format!("{at} is a list, but must be an object"));
                }
                check_shape(&at, entry, kind)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A TrafficTarget.
pub fn target(object: DynamicObject) -> TargetFacts {
    // Kept aside: a target that cannot be read still protects whom it names.
    let named = object
        .data
        .pointer("/spec/destination")
        .and_then(named_destination);
    let (meta, read) = read::<TrafficTarget>(object);
    let Some(TrafficTarget { spec, .. }) = read else {
        return TargetFacts {
            meta,
            destination: named,
            ..TargetFacts::default()
        };
    };
    TargetFacts {
        meta,
        destination: (spec.destination != Subject::default()).then(|| subject(&spec.destination)),
        sources: spec.sources.iter().map(subject).collect(),
        rules: spec
            .rules
            .iter()
            .map(|rule| RuleFacts {
                kind: rule.kind.as_str().into(),
                name: rule.name.as_str().into(),
                matches: rule.matches.as_ref().map(|names| texts(Some(names))),
            })
            .collect(),
    }
}

fn named_destination(destination: &Value) -> Option<SubjectFacts> {
    let field = |name: &str| text(destination.get(name).and_then(Value::as_str));
    let subject = SubjectFacts {
        kind: field("kind"),
        name: field("name"),
        namespace: field("namespace"),
        port: None,
    };
    (!subject.name.is_empty()).then_some(subject)
}

fn subject(subject: &Subject) -> SubjectFacts {
    SubjectFacts {
        kind: subject.kind.as_str().into(),
        name: subject.name.as_str().into(),
        namespace: text(subject.namespace.as_deref()),
        port: subject.port,
    }
}

/// A TrafficSplit.
pub fn split(object: DynamicObject) -> SplitFacts {
    let (meta, read) = read::<TrafficSplit>(object);
    let spec = read.map(|split| split.spec).unwrap_or_default();
    SplitFacts {
        meta,
        service: spec.service.as_str().into(),
        backends: spec
            .backends
            .iter()
            .map(|backend| BackendFacts {
                service: backend.service.as_str().into(),
                weight: backend.weight,
            })
            .collect(),
        matches: spec
            .matches
            .iter()
            .flatten()
            .map(|reference| RefFacts {
                group: text(reference.api_group.as_deref()),
                kind: reference.kind.as_str().into(),
                name: reference.name.as_str().into(),
            })
            .collect(),
    }
}

/// An HTTPRouteGroup.
pub fn group(object: DynamicObject) -> GroupFacts {
    let (meta, read) = read::<HTTPRouteGroup>(object);
    let spec = read.map(|group| group.spec).unwrap_or_default();
    let mut budget = Budget::group();
    let matches = spec.matches.iter();
    GroupFacts {
        matches: matches
            .map(|written| route_match(written, &mut budget))
            .collect(),
        meta,
    }
}

fn route_match(written: &RouteMatch, budget: &mut Budget) -> MatchFacts {
    let methods = texts(written.methods.as_deref());
    let (headers, bad) = match parse_headers(written.headers.as_ref()) {
        Ok(headers) => {
            let path = written.path_regex.as_deref();
            let checked = HttpMatch::within(budget, &written.name, path, &methods, &headers);
            let bad = checked
                .err()
                .map(|bad| (bad.field.into(), bad.reason.into()));
            (headers, bad)
        }
        Err(error) => (
            Vec::new(),
            Some(("headers".into(), error.to_string().into())),
        ),
    };
    MatchFacts {
        name: written.name.as_str().into(),
        path_regex: written.path_regex.as_deref().map(Arc::from),
        methods,
        headers: headers
            .into_iter()
            .map(|(name, regex)| Header {
                name: name.into(),
                regex: regex.into(),
            })
            .collect(),
        bad,
    }
}

/// A TCPRoute.
pub fn tcp_route(object: DynamicObject) -> TcpRouteFacts {
    let (meta, read) = read::<TCPRoute>(object);
    let matches = read.and_then(|route| route.spec.matches);
    TcpRouteFacts {
        meta,
        ports: matches.and_then(|m| m.ports).unwrap_or_default(),
    }
}

/// A UDPRoute.
pub fn udp_route(object: DynamicObject) -> UdpRouteFacts {
    let (meta, read) = read::<UDPRoute>(object);
    let matches = read.and_then(|route| route.spec.matches);
    UdpRouteFacts {
        meta,
        ports: matches.and_then(|m| m.ports),
    }
}

/// An IdentityBinding.
pub fn binding(object: DynamicObject) -> BindingFacts {
    // Kept aside: one that cannot be read allows nobody, and still protects whom it
    // names.
    let schemes = object.data.pointer("/spec/schemes").map(named_schemes);
    let (meta, read) = read::<IdentityBinding>(object);
    let Some(IdentityBinding { spec, .. }) = read else {
        return BindingFacts {
            meta,
            ..schemes.unwrap_or_default()
        };
    };
    let schemes = spec.schemes;
    BindingFacts {
        meta,
        labels: schemes.pod_label_selector.map(|selector| {
            let labels = selector.match_labels.iter();
            labels
                .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                .collect()
        }),
        spiffe_ids: schemes
            .spiffe_identities
            .map(|ids| texts(Some(ids.as_slice()))),
        service_account: schemes.service_account.as_deref().map(Arc::from),
    }
}

fn named_schemes(schemes: &Value) -> BindingFacts {
    let labels = schemes.pointer("/podLabelSelector/matchLabels");
    let labels = labels.and_then(Value::as_object).map(|labels| {
        let text =
            |(name, value): (&String, &Value)| Some((name.as_str().into(), value.as_str()?.into()));
        labels.iter().filter_map(text).collect()
    });
    let account = schemes.get("serviceAccount").and_then(Value::as_str);
    BindingFacts {
        labels,
        service_account: account.map(Arc::from),
        ..BindingFacts::default()
    }
}

fn texts(list: Option<&[String]>) -> Vec<Arc<str>> {
    list.into_iter()
        .flatten()
        .map(|text| text.as_str().into())
        .collect()
}
