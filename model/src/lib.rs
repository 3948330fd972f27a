//! What a cluster means for its proxies: objects become a World, a World becomes a Model, and a
//! Model gives each proxy its resources, each object its problems, and each call an explanation.
//!
//! `translate` makes facts of objects and `world` collects them; `compile` turns a World into a
//! `model`; `resources` selects the part for one proxy, and `explain` explains why a call passes
//! or not. `problem` has what authors of objects read.
//!
//! Pure: no client of the API server, no runtime, no sockets, no environment. The controller does
//! what needs those. What a folder may import stands at its head, and for all of them in
//! docs/architecture.md.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

mod compile;
pub mod explain;
mod model;
pub mod problem;
pub mod resources;
pub mod translate;
pub mod world;

#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;

// As `model::Model` and not `model::model::Model`.
pub use self::model::{
    Defaults, Endpoint, Index, Model, PodEntry, PodId, Target, bindings, changes, compiled, faults,
    modes, owner_above, protocols, published, revoked,
};
