//! Identities of pods and their proof: keys, signing requests, the mesh's certificate authority,
//! verification by SPIFFE id, and TLS configurations made of these.
//!
//! Invariants
//! - The names in a certificate come from the caller of [`authority::Issuer`],
//!   never from the request: only the public key is taken out of that.
//! - A peer is one SPIFFE id, parsed strictly and compared as a string. No host
//!   name, address or pattern ever stands for an identity.
//! - Every connection proves itself anew: TLS 1.3 only, no resumption, no
//!   tickets, no early data.
//! - Certificates and roots are replaced under running listeners; what is
//!   connected stays connected.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

pub mod authority;
pub mod front_proxy;
pub mod request;
pub mod rotate;
pub mod rotation;
pub mod tls;
pub mod verify;

pub use authority::{Issued, Issuer, LeafNames, Root};
pub use request::LeafKey;
pub use tls::{CertHandle, Leaf};
pub use verify::{IdentityError, PeerIdentity, Roots};

#[cfg(test)]
mod fixtures;
