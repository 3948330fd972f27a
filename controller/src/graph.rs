//! The service graph: what proxies reported, as a graph of workloads and their calls.
//!
//! `fold` turns the reports of one slot into sums by edge, purely; `history` keeps those of the
//! last minutes and, by minute, of the last hour; `memory` keeps every edge that was ever seen.
//! `answer` makes the read API's response of all that, `written` its text. `follow` is the task
//! that folds each slot as its reports come; `wall_clock` reports when the clock that numbers the
//! slots was set. `exported` counts the graph as metrics for other tools, `push` sends those to a
//! collector.
//!
//! May import `apiserver`, `inventory`, `metrics`, `model`, `observe` and `world`.

pub(crate) mod answer;
mod blocking;
pub(crate) mod checkpoint;
pub(crate) mod edges;
pub(crate) mod exported;
pub(crate) mod fold;
pub(crate) mod follow;
pub(crate) mod history;
pub(crate) mod key;
pub(crate) mod memory;
mod otlp;
pub(crate) mod owners;
pub(crate) mod protocol;
pub(crate) mod push;
pub(crate) mod sums;
mod wall_clock;
pub(crate) mod window;
pub(crate) mod workloads;
pub(crate) mod written;
