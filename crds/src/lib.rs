//! The Kubernetes vocabulary of Weft: the kinds, labels and annotations that users write, and the
//! patch that injects the proxy into a pod.
//!
//! Only these types touch the API server. Nothing here does I/O, so the webhook
//! and a command line can share every decision.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

pub mod applications;
pub mod chart;
pub mod convert;
pub mod inject;
pub mod item;
mod kind;
pub mod label_syntax;
pub mod labels;
pub mod names;
pub mod near;
pub mod objects;
pub mod observe;
pub mod restart;
pub mod shallow;
pub mod smi;
pub mod validate;
pub mod weft;
mod yaml;
