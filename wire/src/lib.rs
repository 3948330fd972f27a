//! The protocol between controller and proxy.
//!
//! `proto/weft.proto` defines it, [`v1`] is the code generated from it. The rest converts messages
//! to the types of `policy` and back, at the edge.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

mod bounds;
pub mod capability;
mod codec;
pub mod convert;
pub mod names;
pub mod version;

pub use bounds::from_proxy;

/// The key does not stay in memory that is given back, whatever held a copy of the message.
impl Drop for v1::ListenerCertificate {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

/// Without the certificate and its key.
impl std::fmt::Debug for v1::ListenerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerCertificate")
            .finish_non_exhaustive()
    }
}

/// Generated from `proto/weft.proto`; the test `generated` writes it.
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::needless_pass_by_value,
    clippy::use_self
)]
pub mod v1 {
    include!("generated.rs");
}
