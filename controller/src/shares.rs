//! Shared rate limits: limits that all pods of a Service keep together, divided into quota shares.
//!
//! One replica divides, the holder of the Lease, whichever replicas serve the pods: two that did
//! could both give away the same free part. `policy::limit::shares` decides which shares shrink
//! and grow. Each replica sends the others what its own pods hold and are offered, so a new holder
//! continues from there, and passes on to its pods what the holder gives them.
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
