//! Chains of services: a failure or a policy of one of them shows at the others.
//!
//! The test application calls the next service (`NEXT`), and its request log holds what reached
//! it, with which headers, and when and how that ended. Tests with a bound of time are in
//! `alone/chains.rs`.

mod links;
mod overrides;
mod retries;
