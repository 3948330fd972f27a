//! Says what SMI objects mean, straight from their text: may this call pass, and
//! which share of it goes where.
//!
//! This is what the mesh is compared with, so it is written to be read beside
//! docs/smi.md and shares no code with the mesh: nothing is compiled, converted or
//! kept. Every question walks through all objects again, as JSON, in whichever
//! version their author chose.
//!
//! Left out: UDP, ports that a pod skips, and protocols declared by port names.

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

pub mod generate;
pub mod random;
pub mod seeds;

pub use split::Shares;
pub use world::{CLUSTER_DOMAIN, Call, Caller, Chart, Request, TRUST_DOMAIN, Traffic, World};
