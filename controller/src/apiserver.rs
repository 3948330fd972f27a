//! Access to the API server for all other parts: a client with time limits, the Lease of the
//! replica that writes, and the event recorder.
//!
//! May import nothing else of this crate, because everything may import it.

/// `Debug` for a type that holds a kube client, which has none.
macro_rules! opaque_debug {
    ($name:ident) => {
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

pub(crate) mod client;
pub(crate) mod events;
pub(crate) mod lease;
