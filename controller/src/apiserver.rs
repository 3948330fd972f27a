//! Ways to the API server that every other part uses: calls that end, the Lease of the
//! replica that writes, Events.
//!
//! May import nothing else of this crate, because everything may import it.

#[macro_use]
mod debug;

pub(crate) mod client;
pub(crate) mod events;
pub(crate) mod lease;
