//! Explains why a call passes or not: repeats what the proxies do, by the Model that is sent to
//! them.
//!
//! `call` finds the caller and what is called, `service_names` what a name stands for that has no
//! address of its own, `route` where that goes, `judge` what the called pods say, `host` whether
//! that depends on the host, `backends` which share of the calls ends how and which proxies refuse,
//! `words` all of it for people, `noticed` which lines of the manual the call meets, `fix` what
//! would let it pass; `comparison` what a change would mean for calls that were seen, `candidates`
//! what proxies can try of one. Nothing is decided here that `policy` does not decide: the words
//! come from the same values that proxies act by.
//!
//! May import `model` and `world`: its caller passes the owners of pods and the callers seen.

mod about;
mod answer;
mod backends;
mod call;
pub mod candidates;
pub mod comparison;
mod declared;
mod evaluate;
mod fix;
mod host;
mod noticed;
mod outcome;
mod question;
mod route;
mod service_names;
mod steps;

pub use self::answer::Explained;
pub use self::answer::{CountedPort, UNKNOWN_HOST};
pub use self::comparison::{CallerSet, Calls, Meaning, ModelComparison, Share};
pub use self::noticed::of_seen_calls;
pub use self::question::{BadQuestion, CallerView, Callers, Owner, SeenCallers};

#[cfg(test)]
mod tests;
