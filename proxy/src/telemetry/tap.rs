//! Taps: requests that a client watches, reported one by one as they end.
//!
//! Without a tap a request looks at one flag and nothing else. With taps it is compared with what
//! they want of its head when it comes, and only what fits is written down, to be compared with
//! the rest when it has ended. A request never waits for a reader: what finds no room on its way
//! is dropped and counted.
//!
//! No body and no query is ever reported, and of headers those that the tap names. The controller
//! checks those; the ones that hold secrets are skipped here too, whatever a controller requests.

mod filter;
pub(crate) mod record;
pub(crate) mod watch;

#[cfg(test)]
mod tests;
