//! Compiles a World into a Model, and reports objects that do not fit together. Pure: no clock and
//! no randomness; where an earlier Model helps (`after`), it is an argument and changes only the
//! time that compiling takes.
//!
//! Each object was validated by itself when it was read; here objects are resolved against each
//! other. A validation error costs the object that holds it as little as is safe, and no other
//! object anything. Where it is unclear what an access rule means, it allows less.
//!
//! May import `model`, `problem` and `world`.

mod access;
mod accounts;
mod addresses;
mod after;
mod annotations;
mod bindings;
mod differences;
mod endpoints;
mod external;
mod faults;
mod findings;
mod members;
mod protocols;
mod release_findings;
mod releases;
mod revocations;
mod route_names;
mod routes;
mod service_routes;
mod slices;
mod splits;
mod traffic;
mod whole;

use std::sync::Arc;

use crate::{
    model::{Defaults, Model, changes::Changes, compiled::Compiled},
    problem::Problems,
    world::World,
};

impl Model {
    /// Compiles a World. Never fails: what is wrong is in the Problems, and everything else is in
    /// force.
    pub fn compile(world: &World, defaults: &Defaults) -> (Self, Problems) {
        let (index, problems) = whole::compile(world, defaults);
        (
            Self {
                index: Arc::new(index),
            },
            problems,
        )
    }

    /// The same as [`Self::compile`], faster: what `before` computed and the change does not touch
    /// is taken over, encoded resources included. Also returns what differs.
    pub fn compile_after(
        world: &World,
        defaults: &Defaults,
        before: &Self,
        problems: &Arc<Problems>,
    ) -> (Self, Arc<Problems>, Changes) {
        let (index, problems, changes) =
            after::compile_after(world, defaults, &before.index, problems);
        let index = Arc::new(index);
        (Self { index }, problems, changes)
    }
}

impl Compiled {
    /// Compiles a World after the one that `self` was made from.
    pub fn after(&self, world: Arc<World>, defaults: &Defaults) -> Self {
        let compiled = Model::compile_after(&world, defaults, &self.model, &self.problems);
        self.followed_by(world, compiled)
    }
}

#[cfg(test)]
mod tests;
