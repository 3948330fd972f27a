//! Converts the sections about what pods serve, such as rate limits and overload.

use std::sync::Arc;

use policy::traffic::{
    bounds,
    guard::{LimitKey, LimitMode, LimitScope, Overload, OverloadMode, Priority, RateLimit},
};

use super::super::values::{header, milliseconds, number, time};
use super::{Read, ToSection};
use crate::convert::error::BadResource;
use crate::v1::{self, policy_rule::Section};

pub(in super::super) fn priority(raw: i32) -> Priority {
    match v1::Priority::try_from(raw) {
        Ok(v1::Priority::Critical) => Priority::Critical,
        Ok(v1::Priority::Sheddable) => Priority::Sheddable,
        Ok(v1::Priority::Normal) | Err(_) => Priority::Normal,
    }
}

impl ToSection for Priority {
    fn to_section(&self) -> Section {
        let priority = match self {
            Self::Critical => v1::Priority::Critical,
            Self::Normal => v1::Priority::Normal,
            Self::Sheddable => v1::Priority::Sheddable,
        };
        Section::Priority(priority.into())
    }
}

/// `None`: what is counted apart is unknown here, and one count for all would refuse
/// calls that the limit allows.
pub(in super::super) fn rate_limit(message: &v1::RateLimit) -> Read<Option<Arc<RateLimit>>> {
    use v1::rate_limit::Key;
    let key = match &message.key {
        None => None,
        Some(Key::Caller(false)) => Some(LimitKey::None),
        Some(Key::Caller(true)) => Some(LimitKey::Caller),
        Some(Key::Header(name)) => Some(LimitKey::Header(header("header", name)?)),
        Some(Key::ClientAddress(true)) => Some(LimitKey::ClientAddress),
        Some(Key::ClientAddress(false)) => None,
    };
    if message.name.is_empty() {
        return Err(BadResource::new("name", "is missing"));
    }
    let (requests, per, burst) = (
        number("requests", message.requests, &bounds::LIMIT_REQUESTS)?,
        time("per", message.per, &bounds::LIMIT_PER)?,
        number("burst", message.burst, &bounds::LIMIT_REQUESTS)?,
    );
    let limit = |key| {
        Arc::new(RateLimit {
            name: message.name.as_str().into(),
            requests,
            per,
            burst,
            key,
            scope: if message.instance {
                LimitScope::Instance
            } else {
                LimitScope::Service
            },
            mode: if message.audit {
                LimitMode::Audit
            } else {
                LimitMode::Enforce
            },
        })
    };
    Ok(key.map(limit))
}

impl ToSection for Arc<RateLimit> {
    fn to_section(&self) -> Section {
        use v1::rate_limit::Key;
        Section::RateLimit(v1::RateLimit {
            name: self.name.to_string(),
            requests: self.requests,
            per: milliseconds(self.per),
            burst: self.burst,
            key: match &self.key {
                LimitKey::None => Some(Key::Caller(false)),
                LimitKey::Caller => Some(Key::Caller(true)),
                LimitKey::Header(name) => Some(Key::Header(name.as_str().to_owned())),
                LimitKey::ClientAddress => Some(Key::ClientAddress(true)),
            },
            instance: self.scope == LimitScope::Instance,
            audit: self.mode == LimitMode::Audit,
        })
    }
}

pub(in super::super) fn overload(message: &v1::Overload) -> Read<Overload> {
    use v1::overload::Mode;
    Ok(Overload {
        mode: match Mode::try_from(message.mode) {
            Ok(Mode::Adaptive) => OverloadMode::Adaptive,
            Ok(Mode::Audit) => OverloadMode::Audit,
            Ok(Mode::Off) | Err(_) => OverloadMode::Off,
        },
        queue_time: time(
            "queue_time",
            message.queue_time,
            &bounds::OVERLOAD_QUEUE_TIME,
        )?,
        max_concurrency: (message.max_concurrency != 0).then_some(message.max_concurrency),
    })
}

impl ToSection for Overload {
    fn to_section(&self) -> Section {
        use v1::overload::Mode;
        let mode = match self.mode {
            OverloadMode::Adaptive => Mode::Adaptive,
            OverloadMode::Audit => Mode::Audit,
            OverloadMode::Off => Mode::Off,
        };
        Section::Overload(v1::Overload {
            mode: mode.into(),
            queue_time: milliseconds(self.queue_time),
            max_concurrency: self.max_concurrency.unwrap_or(0),
        })
    }
}
