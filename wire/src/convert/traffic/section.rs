//! Converts each section of a TrafficPolicy.

mod call;
mod endpoint;
mod fault;
mod guard;

use crate::convert::error::BadResource;
use crate::v1::policy_rule::Section;

pub(super) use call::{fallback, mirrors, overrides, retry, sticky, timeouts};
pub(super) use endpoint::{balance, breaker, ejection};
pub(super) use fault::{fault, groups};
pub(super) use guard::{overload, priority, rate_limit};

type Read<T> = Result<T, BadResource>;

/// What every section can do: become the message that carries it.
///
/// A trait, so that one table of rules is written by one function whatever its sections are.
pub(super) trait ToSection {
    fn to_section(&self) -> Section;
}
