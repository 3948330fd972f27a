//! Explains why a call passes or not: evaluates it as the proxies do, by the Model that is sent to
//! them.
//!
//! `gateway` explains calls of a Gateway's clients: `client_call` reads the URL, `entered` finds
//! listener and rule. `call` finds the caller and what is called, `service_names` resolves names without an address,
//! `route` finds the backends, `rules`
//! describes rules of routes, `evaluate` applies the rules of the called pods, `host` detects
//! results that depend on the host, `backends` sums results by backend, `steps` writes the text
//! for users, `noticed` selects lines of the manual, `fix` suggests what would let the call pass;
//! `comparison` evaluates a change for recorded calls, `candidates` selects the rules of a change
//! that proxies can evaluate. Nothing is decided here that `policy` does not decide: the text
//! comes from the same values that proxies act by.
//!
//! May import `model`, `problem` and `world`: its caller passes the owners of pods and the callers seen.

mod about;
mod answer;
mod backends;
mod call;
pub mod candidates;
mod client_call;
pub mod comparison;
mod declared;
mod entered;
mod evaluate;
mod external;
mod fix;
mod gateway;
mod host;
mod noticed;
mod outcome;
mod outside;
mod question;
mod route;
mod rules;
mod service_names;
mod steps;

pub use self::answer::{CountedPort, Explained, UNKNOWN_HOST};
pub use self::comparison::{CallerSet, Calls, Meaning, ModelComparison, Share};
pub use self::entered::Shows;
pub use self::noticed::of_seen_calls;
pub use self::question::{BadQuestion, CallerView, Callers, Owner, SeenCallers};

#[cfg(test)]
mod tests;
