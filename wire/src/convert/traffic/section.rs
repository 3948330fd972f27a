//! Each section into its message, and back.

mod call;
mod endpoint;
mod guard;

use crate::convert::error::BadResource;

pub(super) use call::{fallback, mirrors, overrides, retry, sticky, timeouts};
pub(super) use endpoint::{balance, breaker, ejection};
pub(super) use guard::{overload, priority, rate_limit};

type Read<T> = Result<T, BadResource>;
