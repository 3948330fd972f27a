//! Limits that all pods of a Service keep together: how they are divided among the pods.
//!
//! One replica divides, the holder of the Lease, whichever replicas serve the pods: two that did
//! could both give away what is free. `policy::limit::shares` decides which shares shrink and grow.
//! Each replica sends the others what its own pods hold and are offered, so a holder that is new
//! goes on from there, and passes on to its pods what the holder gives them.
//!
//! May import `latest_model`.

mod demand;
mod divide;
mod key;
mod lead;
mod registry;

pub(crate) use self::lead::lead;
pub(crate) use self::registry::ShareRegistry;

#[cfg(test)]
mod tests;
