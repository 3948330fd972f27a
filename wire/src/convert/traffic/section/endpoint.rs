//! Converts the sections by which a caller's proxy chooses endpoints, from ejection to subsets.
//!
//! Numbers are read within bounds, as in `call`. An unknown state of a breaker counts as that of a
//! breaker which decides by itself: neither of the others is safe to guess.

use policy::traffic::{
    bounds,
    endpoint::{Balance, Breaker, BreakerState, Ejection, Subset},
};

use super::super::values::{codes, milliseconds, number, percent, statuses, time};
use super::{Read, ToSection};
use crate::convert::{locality, locality_message};
use crate::v1::{self, policy_rule::Section};

pub(in super::super) fn ejection(message: &v1::Ejection) -> Read<Ejection> {
    Ok(Ejection {
        consecutive_failures: number(
            "consecutive_failures",
            message.consecutive_failures,
            &bounds::EJECTION_FAILURES,
        )?,
        codes: statuses(&message.codes, &bounds::EJECTION_CODES)?,
        base_time: time("base_time", message.base_time, &bounds::EJECTION_BASE_TIME)?,
        max_time: time("max_time", message.max_time, &bounds::EJECTION_MAX_TIME)?,
        max_percent: percent("max_percent", message.max_percent, 0)?,
    })
}

impl ToSection for Ejection {
    fn to_section(&self) -> Section {
        Section::Ejection(v1::Ejection {
            consecutive_failures: self.consecutive_failures.into(),
            codes: codes(self.codes),
            base_time: milliseconds(self.base_time),
            max_time: milliseconds(self.max_time),
            max_percent: self.max_percent.get().into(),
        })
    }
}

pub(in super::super) fn breaker(message: &v1::Breaker) -> Read<Breaker> {
    use v1::breaker::State;
    let least = *bounds::BREAKER_PERCENT.start();
    Ok(Breaker {
        state: match State::try_from(message.state) {
            Ok(State::Open) => BreakerState::Open,
            Ok(State::Closed) => BreakerState::Closed,
            Ok(State::Auto) | Err(_) => BreakerState::Auto,
        },
        failure_percent: percent("failure_percent", message.failure_percent, least)?,
        interval: time("interval", message.interval, &bounds::BREAKER_INTERVAL)?,
        min_requests: number(
            "min_requests",
            message.min_requests,
            &bounds::BREAKER_REQUESTS,
        )?,
        open_time: time("open_time", message.open_time, &bounds::BREAKER_OPEN_TIME)?,
    })
}

impl ToSection for Breaker {
    fn to_section(&self) -> Section {
        use v1::breaker::State;
        let state = match self.state {
            BreakerState::Auto => State::Auto,
            BreakerState::Open => State::Open,
            BreakerState::Closed => State::Closed,
        };
        Section::Breaker(v1::Breaker {
            state: state.into(),
            failure_percent: self.failure_percent.get().into(),
            interval: milliseconds(self.interval),
            min_requests: self.min_requests,
            open_time: milliseconds(self.open_time),
        })
    }
}

pub(in super::super) fn balance(message: &v1::Balance) -> Read<Balance> {
    let subset: i32 = number("subset", message.subset, &bounds::SUBSET)?;
    Ok(Balance {
        locality: locality(message.locality),
        subset: match u32::try_from(subset) {
            Ok(0) => Subset::All,
            Ok(count) => Subset::Count(count),
            Err(_) => Subset::Automatic,
        },
        warmup: time("warmup", message.warmup, &bounds::WARMUP)?,
    })
}

impl ToSection for Balance {
    fn to_section(&self) -> Section {
        Section::Balance(v1::Balance {
            locality: locality_message(self.locality).into(),
            subset: match self.subset {
                Subset::All => 0,
                Subset::Automatic => -1,
                Subset::Count(count) => i32::try_from(count).unwrap_or(i32::MAX),
            },
            warmup: milliseconds(self.warmup),
        })
    }
}
