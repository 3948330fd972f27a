//! Findings about one object of the Gateway API by itself, before it is applied: for `weft
//! validate` and for dry runs.
//!
//! The API server takes what its own schema allows, and no webhook of Weft judges these kinds. So
//! what is reported here is not refused there: a rule that cannot be served whole is answered
//! with an error.

use policy::name::Kind;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    gateway::GatewaySpec,
    kinds::{GRPCRoute, Gateway, HTTPRoute, TCPRoute},
    listeners,
    parents::ParentRef,
    route::{BackendTarget, Route, RouteKind},
};

/// The class of Gateways that the chart makes.
const CLASS: &str = "weft";

/// One thing that an author should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Path of the field; empty for the whole object.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
    /// Whether calls are refused by it; else it has no effect where it stands.
    pub refuses: bool,
}

/// The versions in which objects of this kind may be written, newest first; none if it is no kind
/// of the Gateway API that is read. The API server serves an object in each version that its
/// definition has, so these are more than those that are read.
#[must_use]
pub fn versions(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::HttpRoute => &["v1", "v1beta1"],
        Kind::GrpcRoute | Kind::GatewayTcpRoute => &["v1", "v1alpha2"],
        Kind::TlsRoute => &["v1", "v1alpha3", "v1alpha2"],
        Kind::Gateway | Kind::GatewayClass => &["v1", "v1beta1"],
        Kind::ReferenceGrant => &["v1", "v1beta1", "v1alpha2"],
        _ => &[],
    }
}

/// Whether the mesh has anything to do with an object of these kinds: a route whose parents are no
/// Services is others', and so is a Gateway of another class than the chart's.
#[must_use]
pub fn concerns(object: &Value) -> bool {
    let class = object.pointer("/spec/gatewayClassName");
    if let Some(class) = class.and_then(Value::as_str) {
        return class == CLASS;
    }
    let Some(parents) = object.pointer("/spec/parentRefs").and_then(Value::as_array) else {
        return true;
    };
    let mut parents = parents.iter().filter_map(|one| ParentRef::read(one, ""));
    parents.any(|parent| parent.service().is_some())
}

/// What is to be said of an object of this kind. Nothing of a route whose parents are no Services,
/// and of a Gateway of another class than the chart's: others look after it.
#[must_use]
pub fn of(kind: Kind, object: &Value) -> Vec<Finding> {
    let route = match kind {
        Kind::HttpRoute => read::<HTTPRoute>(object).map(|read| Route::read_http(&read)),
        Kind::GrpcRoute => read::<GRPCRoute>(object).map(|read| Route::read_grpc(&read)),
        Kind::GatewayTcpRoute => read::<TCPRoute>(object).map(|read| Route::read_tcp(&read)),
        Kind::Gateway => {
            return match read::<Gateway>(object) {
                Ok(read) => of_gateway(&GatewaySpec::read(&read)),
                Err(message) => vec![whole(message)],
            };
        }
        _ => return Vec::new(),
    };
    match route {
        Ok(route) => of_route(&route),
        Err(message) => vec![whole(message)],
    }
}

/// About the whole object.
const fn whole(message: String) -> Finding {
    Finding {
        path: String::new(),
        message,
        refuses: true,
    }
}

/// What keeps a Gateway, or listeners of it, from being served.
fn of_gateway(gateway: &GatewaySpec) -> Vec<Finding> {
    if &*gateway.class != CLASS {
        return Vec::new();
    }
    let broken = gateway.broken.iter().chain(&gateway.address);
    let mut found: Vec<Finding> = broken
        .map(|broken| Finding {
            path: broken.path.clone(),
            message: broken.message.clone(),
            refuses: true,
        })
        .collect();
    let states = listeners::states(gateway);
    let refused = states.into_iter().filter_map(|state| state.refused);
    found.extend(refused.map(|refusal| Finding {
        path: refusal.path,
        message: refusal.message,
        refuses: true,
    }));
    found
}

fn read<K: DeserializeOwned>(object: &Value) -> Result<K, String> {
    serde_json::from_value(object.clone()).map_err(|error| format!("cannot be read: {error}"))
}

fn of_route(route: &Route) -> Vec<Finding> {
    if route
        .parents
        .iter()
        .all(|parent| parent.service().is_none())
    {
        return Vec::new();
    }
    let mut found = Vec::new();
    if !route.hostnames.is_empty() {
        found.push(Finding {
            path: "spec.hostnames".to_owned(),
            message: "has no effect where the parent is a Service; leave it out".to_owned(),
            refuses: false,
        });
    }
    for (number, rule) in route.rules.iter().enumerate() {
        if number > 0 && route.kind == RouteKind::Tcp {
            found.push(Finding {
                path: format!("spec.rules[{number}]"),
                message: "has no effect: of a TCPRoute the first rule holds; leave it out"
                    .to_owned(),
                refuses: false,
            });
            continue;
        }
        if let Some(broken) = &rule.broken {
            found.push(Finding {
                path: broken.path.clone(),
                message: format!("{}; requests of this rule are answered 500", broken.message),
                refuses: true,
            });
            continue;
        }
        let mirrors = rule.filters.mirrors.iter();
        let backends = rule.backends.iter();
        let targets = backends.map(|backend| &backend.target);
        found.extend(
            mirrors
                .map(|mirror| &mirror.target)
                .chain(targets)
                .filter_map(unresolved),
        );
    }
    found
}

fn unresolved(target: &BackendTarget) -> Option<Finding> {
    let unresolved = target.service().err()?;
    Some(Finding {
        path: unresolved.path,
        message: unresolved.message,
        refuses: true,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::{ReferenceGrant, TLSRoute};

    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers write it where it is passed"
    )]
    fn route(kind: &str, parent: &str, rules: Value) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": "r"},
            "spec": {
                "parentRefs": [{"group": "", "kind": parent, "name": "api"}],
                "rules": rules,
            },
        })
    }

    #[test]
    fn what_is_read_may_be_written_too() {
        for (kind, read) in [
            (Kind::HttpRoute, HTTPRoute::VERSIONS),
            (Kind::GrpcRoute, GRPCRoute::VERSIONS),
            (Kind::GatewayTcpRoute, TCPRoute::VERSIONS),
            (Kind::TlsRoute, TLSRoute::VERSIONS),
            (Kind::Gateway, Gateway::VERSIONS),
            (Kind::ReferenceGrant, ReferenceGrant::VERSIONS),
        ] {
            assert!(versions(kind).starts_with(read), "{kind}");
        }
    }

    #[test]
    fn only_routes_of_services_concern_the_mesh() {
        for (kind, concerned) in [("Service", true), ("Gateway", false)] {
            let object = route("HTTPRoute", kind, json!([]));
            assert_eq!(concerns(&object), concerned, "{kind}");
        }
        assert!(concerns(&json!({"kind": "ReferenceGrant", "spec": {}})));
    }

    /// Paths and whether calls are refused.
    fn found(kind: Kind, object: &Value) -> Vec<(String, bool)> {
        let found = of(kind, object).into_iter();
        found.map(|one| (one.path, one.refuses)).collect()
    }

    #[test]
    fn broken_rules_and_backends_are_named_by_path() {
        let backends =
            json!([{"name": "a", "port": 80}, {"kind": "Bucket", "name": "b", "port": 1}]);
        let unknown = json!([{"type": "Teleport"}]);
        let rules = json!([{"backendRefs": backends}, {"filters": unknown}]);
        let object = route("HTTPRoute", "Service", rules.clone());
        assert_eq!(
            found(Kind::HttpRoute, &object),
            [
                ("spec.rules[0].backendRefs[1]".to_owned(), true),
                ("spec.rules[1].filters[0]".to_owned(), true),
            ]
        );
        // Routes of Gateways are others'.
        let object = route("HTTPRoute", "Gateway", rules);
        assert!(found(Kind::HttpRoute, &object).is_empty());
    }

    #[test]
    fn listeners_that_cannot_be_served_are_named_by_path() {
        let listeners = json!([
            {"name": "a", "port": 80, "protocol": "HTTP"},
            {"name": "b", "port": 443, "protocol": "HTTPS"},
            {"name": "c", "port": 53, "protocol": "UDP"},
        ]);
        let gateway = |class: &str| {
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "edge"},
                "spec": {"gatewayClassName": class, "listeners": listeners}})
        };
        assert_eq!(
            found(Kind::Gateway, &gateway("weft")),
            [
                ("spec.listeners[1]".to_owned(), true),
                ("spec.listeners[2].protocol".to_owned(), true),
            ]
        );
        assert!(found(Kind::Gateway, &gateway("nginx")).is_empty());
        assert!(concerns(&gateway("weft")) && !concerns(&gateway("nginx")));
    }

    #[test]
    fn parts_without_effect_are_warned_of() {
        let one = json!({"backendRefs": [{"name": "a", "port": 80}]});
        let object = route("TCPRoute", "Service", json!([one, one]));
        assert_eq!(
            found(Kind::GatewayTcpRoute, &object),
            [("spec.rules[1]".to_owned(), false)]
        );
        let mut object = route("HTTPRoute", "Service", json!([one]));
        object["spec"]["hostnames"] = json!(["a.example"]);
        assert_eq!(
            found(Kind::HttpRoute, &object),
            [("spec.hostnames".to_owned(), false)]
        );
    }
}
