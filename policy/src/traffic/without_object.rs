//! What holds for calls to a Service without any TrafficPolicy.
//!
//! Where a table decides `None`, these are used for retries, ejection and warm-up. Every
//! other section has no effect until a policy sets it.

use crate::traffic::call::Retry;
use crate::traffic::endpoint::{Balance, Ejection};

pub static RETRY: Retry = Retry::DEFAULT;
pub static EJECTION: Ejection = Ejection::DEFAULT;
/// Where clients choose the pod, and no object ejects any.
pub static EJECTION_OFF: Ejection = Ejection {
    consecutive_failures: 0,
    ..Ejection::DEFAULT
};
pub static BALANCE: Balance = Balance::DEFAULT;
