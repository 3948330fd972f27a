//! `metrics.smi-spec.io`: how much traffic the cluster's objects have, as an
//! aggregated API that every replica serves.
//!
//! The API server calls with a certificate of its own and says on whose behalf
//! (`front`); what that user may read is asked back (`access`). The answer is
//! made of what proxies reported (`crate::reports`) and of which objects exist
//! (`inventory`): `query` reads the question, `aggregate` adds up, `render` gives
//! it the shape that clients know.

pub mod access;
pub mod aggregate;
pub mod answer;
pub mod certificate;
pub mod discovery;
pub mod duration;
pub mod follow;
pub mod front;
pub mod inventory;
pub mod kind;
pub mod openapi;
pub mod query;
pub mod render;
pub mod selector;
pub mod server;
pub mod withdraw;

#[cfg(test)]
pub(crate) mod fixture;
