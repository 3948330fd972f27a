//! The oracle: evaluates SMI objects straight from their text. May this call pass, and
//! which share of it goes where? And of HTTPRoutes: which rule decides?
//!
//! The mesh is compared with it, so it is written to be read beside docs/smi.md and
//! shares no code with the mesh: nothing is compiled, converted or cached. Every query
//! walks through all objects again, as JSON, in whichever version they are written.
//!
//! Skipped: UDP, ports that a pod skips, and protocols declared by port names.

mod access;
mod binding;
mod http;
mod modes;
mod object;
mod path;
mod ports;
mod quantity;
mod shape;
mod split;
mod world;

pub mod gateway;
pub mod generate;
pub mod random;
pub mod seeds;

pub use split::Shares;
pub use world::{CLUSTER_DOMAIN, Call, Caller, Chart, Request, TRUST_DOMAIN, Traffic, World};
