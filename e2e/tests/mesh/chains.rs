//! Services behind each other: what one of them fails in or is allowed shows at the others.
//!
//! The test application calls on (`NEXT`), and its log of requests tells what reached it,
//! what it was told, and when and how that ended. What has a bound of time is in
//! `alone/chains.rs`.

mod links;
mod overrides;
mod retries;
