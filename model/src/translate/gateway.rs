//! Translates objects of the Gateway API. It never fails: a mistake costs the part of
//! the object that holds it.

use std::sync::Arc;

use crds::smi::validation::Cluster;
use gateway_api::{
    GRPCRoute, Gateway, GatewayClass, HTTPRoute, ReferenceGrant, TCPRoute, TLSRoute,
    gateway::{ClassSpec, GatewaySpec},
    grants::Grant,
    route::{ParentRef, Route},
};
use kube::core::DynamicObject;
use serde_json::Value;

use super::metadata::{created, text};
use crate::world::{GatewayClassFacts, GatewayFacts, GatewayRouteFacts, GrantFacts, Meta};

/// An HTTPRoute.
pub fn http_route(object: &DynamicObject, _: &Cluster) -> GatewayRouteFacts {
    let route = HTTPRoute {
        metadata: object.metadata.clone(),
        spec: spec(object),
        ..HTTPRoute::default()
    };
    facts(object, Route::read_http(&route))
}

/// A GRPCRoute.
pub fn grpc_route(object: &DynamicObject, _: &Cluster) -> GatewayRouteFacts {
    let route = GRPCRoute {
        metadata: object.metadata.clone(),
        spec: spec(object),
        ..GRPCRoute::default()
    };
    facts(object, Route::read_grpc(&route))
}

/// A TCPRoute of the Gateway API.
pub fn gateway_tcp_route(object: &DynamicObject, _: &Cluster) -> GatewayRouteFacts {
    let route = TCPRoute {
        metadata: object.metadata.clone(),
        spec: spec(object),
        ..TCPRoute::default()
    };
    facts(object, Route::read_tcp(&route))
}

/// A TLSRoute.
pub fn tls_route(object: &DynamicObject, _: &Cluster) -> GatewayRouteFacts {
    let route = TLSRoute {
        metadata: object.metadata.clone(),
        spec: spec(object),
        ..TLSRoute::default()
    };
    facts(object, Route::read_tls(&route))
}

/// A Gateway.
pub fn gateway(object: &DynamicObject, _: &Cluster) -> GatewayFacts {
    let gateway = Gateway {
        metadata: object.metadata.clone(),
        spec: spec(object),
        ..Gateway::default()
    };
    GatewayFacts {
        meta: meta(object),
        spec: Arc::new(GatewaySpec::read(&gateway)),
    }
}

/// A GatewayClass.
pub fn gateway_class(object: &DynamicObject, _: &Cluster) -> GatewayClassFacts {
    let class = GatewayClass {
        metadata: object.metadata.clone(),
        spec: spec(object),
        ..GatewayClass::default()
    };
    GatewayClassFacts {
        meta: meta(object),
        spec: ClassSpec::read(&class),
    }
}

/// A ReferenceGrant.
pub fn reference_grant(object: &DynamicObject, _: &Cluster) -> GrantFacts {
    let grant = ReferenceGrant {
        metadata: object.metadata.clone(),
        spec: spec(object),
        ..ReferenceGrant::default()
    };
    GrantFacts {
        meta: meta(object),
        grant: Arc::new(Grant::read(&grant)),
    }
}

/// Of a route with other parents than Services and Gateways alone, which other controllers look after, nothing is kept but
/// that it is there: whatever changes in it, nothing is compiled for it.
fn facts(object: &DynamicObject, route: Route) -> GatewayRouteFacts {
    let is_ours = |parent: &ParentRef| parent.service().is_some() || parent.gateway().is_some();
    let (meta, route) = if route.parents.iter().any(is_ours) {
        (meta(object), route)
    } else {
        let meta = Meta {
            generation: 0,
            ..meta(object)
        };
        let route = Route {
            parents: Vec::new(),
            hostnames: Vec::new(),
            rules: Vec::new(),
            ..route
        };
        (meta, route)
    };
    GatewayRouteFacts {
        meta,
        route: Arc::new(route),
    }
}

fn spec(object: &DynamicObject) -> Value {
    object.data.get("spec").cloned().unwrap_or_default()
}

/// What is wrong with a rule is part of the rule.
fn meta(object: &DynamicObject) -> Meta {
    let metadata = &object.metadata;
    Meta {
        generation: metadata.generation.unwrap_or(0),
        created: created(metadata),
        uid: text(metadata.uid.as_deref()),
        mistakes: Vec::new(),
    }
}
