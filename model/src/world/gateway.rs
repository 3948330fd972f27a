//! Facts of the Gateway API: routes, grants, and Gateways.
//!
//! Of a status nothing is part of a fact: several controllers write that of routes, and none of
//! them decides about calls.

use std::sync::Arc;

use gateway_api::gateway::{ClassSpec, GatewaySpec};
use gateway_api::grants::Grant;
use gateway_api::route::Route;

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

impl Fact for GrantFacts {
    /// What it permitted must end at once.
    fn urgent(old: Option<&Self>, new: Option<&Self>) -> bool {
        old.is_some_and(|old| new.is_none_or(|new| new.grant != old.grant))
    }
}

/// A Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayFacts {
    /// Metadata.
    pub meta: Meta,
    /// What is configured, validated by itself.
    pub spec: Arc<GatewaySpec>,
}

impl Fact for GatewayFacts {}

/// A GatewayClass.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayClassFacts {
    /// Metadata.
    pub meta: Meta,
    /// What is configured.
    pub spec: ClassSpec,
}

impl Fact for GatewayClassFacts {}

/// Whether the certificate in a Secret that a Gateway names can be served, under the Secret's own
/// key. The controller reads the Secrets of [`super::World::listener_secrets`] itself; no
/// certificate and no key is ever part of a World. A Secret that was not read yet has no fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerCertificateFacts {
    /// It can.
    Usable {
        /// When it ends, in seconds since 1970.
        not_after: i64,
        /// Of the leaf, as text. Another certificate has another one.
        fingerprint: Arc<str>,
    },
    /// It cannot, or there is no such Secret: one sentence that says why and names the way out,
    /// and nothing that the Secret holds.
    Unusable(Arc<str>),
}

impl Fact for ListenerCertificateFacts {
    /// What must not be served any more ends at once.
    fn urgent(old: Option<&Self>, new: Option<&Self>) -> bool {
        let is_usable = |fact: Option<&Self>| matches!(fact, Some(Self::Usable { .. }));
        is_usable(old) && !is_usable(new)
    }
}
