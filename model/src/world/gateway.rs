//! Facts of the Gateway API's routes and grants.
//!
//! Of a route's status nothing is part of a fact: several controllers write it, and none of them
//! decides about calls.

use std::sync::Arc;

use gateway_api::{grants::Grant, route::Route};

use super::{fact::Fact, smi::Meta};

/// An HTTPRoute, a GRPCRoute, or a TCPRoute of the Gateway API.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayRouteFacts {
    /// Metadata, and what is wrong with the object as a whole.
    pub meta: Meta,
    /// What is configured, validated by itself.
    pub route: Arc<Route>,
}

impl Fact for GatewayRouteFacts {}

/// A ReferenceGrant.
#[derive(Clone, Debug, PartialEq)]
pub struct GrantFacts {
    /// Metadata, and what is wrong with the object as a whole.
    pub meta: Meta,
    /// Whose references to what of its namespace it permits.
    pub grant: Arc<Grant>,
}

impl Fact for GrantFacts {}
