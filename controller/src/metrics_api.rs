//! `metrics.smi-spec.io`: how much traffic the cluster's objects have, as an
//! aggregated API that every replica serves.
//!
//! The API server calls with a certificate of its own and says on whose behalf
//! (`front`); what that user may read is asked back (`access`). The answer is
//! made of what proxies reported (`crate::observe::reports`) and of which objects exist
//! (`inventory`): `query` reads the question, `aggregate` adds up, `render` gives
//! it the shape that clients know.

pub(crate) mod access;
pub(crate) mod aggregate;
pub(crate) mod answer;
pub(crate) mod certificate;
pub(crate) mod discovery;
pub(crate) mod duration;
pub(crate) mod follow;
pub(crate) mod front;
pub(crate) mod inventory;
pub(crate) mod kind;
pub(crate) mod openapi;
pub(crate) mod query;
pub(crate) mod render;
pub(crate) mod selector;
pub(crate) mod server;

#[cfg(test)]
pub(crate) mod fixture;
