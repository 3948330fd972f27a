//! Failures on demand: `POST /fault` with
//! `{"status": 503, "percent": 50, "delay": "200ms", "only": "/products", "for": "15s"}`.
//!
//! All fields are optional: without any, every response is 503 for ten minutes. `only` is the
//! prefix of the paths that fail, so that probes still succeed; `for` is how long it lasts, so
//! that no second request has to end it, and `"percent": 0` ends it at once. Each fault
//! replaces the one before. Variable `FAULT` has the one with which the application begins, so
//! that a version of a Deployment's template is a bad one. Unary calls of gRPC fail with status 14, whatever `status` is;
//! streams and websockets are unaffected.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use http::StatusCode;
use serde::Deserialize;

use super::duration;

/// The path that sets it.
pub const PATH: &str = "/fault";
/// No failure is meant to outlive a test.
const LONGEST: Duration = Duration::from_secs(600);

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub status: Option<StatusCode>,
    pub delay: Duration,
}

/// The failure that is on, if any.
#[derive(Debug, Default)]
pub struct Fault {
    set: Mutex<Option<Set>>,
    requests: AtomicU32,
}

#[derive(Debug)]
struct Set {
    wrong: Wrong,
    percent: u32,
    only: String,
    until: Instant,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultOrder {
    status: Option<u16>,
    #[serde(default = "always")]
    percent: u32,
    delay: Option<String>,
    #[serde(default)]
    only: String,
    r#for: Option<String>,
}

const fn always() -> u32 {
    100
}

impl Fault {
    /// From now on requests fail as `order` says, which is JSON.
    pub fn set(&self, order: &[u8], now: Instant) -> anyhow::Result<()> {
        let order: FaultOrder = serde_json::from_slice(order).context("a fault is JSON")?;
        ensure!(order.percent <= 100, "percent is at most 100");
        let time = order.r#for.as_deref().map(duration::parse).transpose()?;
        let delay = order.delay.as_deref().map(duration::parse).transpose()?;
        let status = order.status.map(StatusCode::from_u16).transpose()?;
        let set = Set {
            wrong: Wrong {
                status: status.or(delay.is_none().then_some(StatusCode::SERVICE_UNAVAILABLE)),
                delay: delay.unwrap_or_default().min(LONGEST),
            },
            percent: order.percent,
            only: order.only,
            until: now + time.unwrap_or(LONGEST).min(LONGEST),
        };
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = Some(set);
        Ok(())
    }

    /// What is wrong with the answer to a request for `path`.
    pub fn of(&self, path: &str, now: Instant) -> Option<Wrong> {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let set = set.as_ref()?;
        if now >= set.until || !path.starts_with(&set.only) {
            return None;
        }
        // 61 and 100 have no common factor: of a hundred in a row exactly so many fail,
        // and they are scattered.
        let number = self.requests.fetch_add(1, Ordering::Relaxed) % 100;
        (number * 61 % 100 < set.percent).then_some(set.wrong)
    }
}

#[cfg(test)]
mod tests;
