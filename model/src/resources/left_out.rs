//! Tracks the objects that a proxy needs and is not sent completely, because its version could not
//! use them.

use policy::{name::ObjectRef, traffic::part::Parts};

/// An object of which a proxy is not sent all, because it could not use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub object: ObjectRef,
    pub generation: i64,
    /// The parts of a TrafficPolicy that it does not carry out; none for other kinds.
    pub lacks: Parts,
}
