//! Translates routes and grants of the Gateway API. It never fails: a mistake costs the part of
//! the object that holds it.

use std::sync::Arc;

use crds::smi::validation::{Cluster, Code, Mistake, Severity};
use gateway_api::{grants::Grant, route::Route};
use kube::core::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::metadata::{created, text};
use crate::world::{GatewayRouteFacts, GrantFacts, Meta};

/// An HTTPRoute.
pub fn http_route(object: &DynamicObject, _: &Cluster) -> GatewayRouteFacts {
    route(object, Route::read_http)
}

/// A GRPCRoute.
pub fn grpc_route(object: &DynamicObject, _: &Cluster) -> GatewayRouteFacts {
    route(object, Route::read_grpc)
}

/// A TCPRoute of the Gateway API.
pub fn gateway_tcp_route(object: &DynamicObject, _: &Cluster) -> GatewayRouteFacts {
    route(object, Route::read_tcp)
}
