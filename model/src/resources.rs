//! Selects and encodes the resources of one proxy from a Model: its own policy, the destinations
//! that it requested, and whatever those refer to.
//!
//! May import `model` and `world`. Pure, and encodes nothing twice: what is encoded stays
//! in the Model for the next proxy.

mod attributes;
mod destination;
mod endpoints;
mod external;
mod gateways;
pub mod left_out;
mod policy;
mod resolve;
mod route_names;
mod service;
pub mod urgency;
mod workload;
