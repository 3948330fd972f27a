//! Validates the sections about endpoints: ejection, breaker, balance.

use std::ops::RangeInclusive;
use std::time::Duration;

use policy::traffic::{
    bounds,
    endpoint::{Balance, Breaker, BreakerState, Ejection, Locality, Subset},
};

use super::reader::FieldReader;
use crate::weft;

pub(super) fn ejection(written: &weft::Ejection, reader: &mut FieldReader<'_>) -> Option<Ejection> {
    const FIELD: &str = "spec.ejection.maxTime";
    reader.whole(|reader| {
        let or = Ejection::DEFAULT;
        let codes = written.codes.as_deref();
        let (base, max) = (written.base_time.as_deref(), written.max_time.as_deref());
        let base_time = reader.duration_or(
            "spec.ejection.baseTime",
            base,
            &bounds::EJECTION_BASE_TIME,
            or.base_time,
        );
        // A user who sets a long first ejection, and nothing else, has to get it.
        let longest = or.max_time.max(base_time);
        let max_time = reader.duration_or(FIELD, max, &bounds::EJECTION_MAX_TIME, longest);
        if max_time < base_time {
            reader.wrong(
                FIELD,
                "is shorter than baseTime; make it longer, or leave it out",
            );
        }
        Some(Ejection {
            consecutive_failures: reader.number_or(
                "spec.ejection.consecutiveFailures",
                written.consecutive_failures,
                &bounds::EJECTION_FAILURES,
                or.consecutive_failures,
            ),
            codes: reader.statuses_or(
                "spec.ejection.codes",
                codes,
                &bounds::EJECTION_CODES,
                or.codes,
            ),
            base_time,
            max_time,
            max_percent: reader.percent_or(
                "spec.ejection.maxPercent",
                written.max_percent,
                0,
                or.max_percent,
            ),
        })
    })
}

pub(super) fn breaker(written: &weft::Breaker, reader: &mut FieldReader<'_>) -> Option<Breaker> {
    let states = [
        ("Auto", BreakerState::Auto),
        ("Open", BreakerState::Open),
        ("Closed", BreakerState::Closed),
    ];
    reader.whole(|reader| {
        let or = Breaker::DEFAULT;
        let mut time =
            |field: &str, text: Option<&String>, range: &RangeInclusive<Duration>, or| {
                let field = format!("spec.breaker.{field}");
                reader.duration_or(&field, text.map(String::as_str), range, or)
            };
        let interval = &bounds::BREAKER_INTERVAL;
        let interval = time("interval", written.interval.as_ref(), interval, or.interval);
        let open_time = &bounds::BREAKER_OPEN_TIME;
        let open_time = time(
            "openTime",
            written.open_time.as_ref(),
            open_time,
            or.open_time,
        );
        let state = written.state.as_deref();
        Some(Breaker {
            state: reader.one_of_or("spec.breaker.state", state, &states, or.state),
            failure_percent: reader.percent_or(
                "spec.breaker.failurePercent",
                written.failure_percent,
                *bounds::BREAKER_PERCENT.start(),
                or.failure_percent,
            ),
            interval,
            min_requests: reader.number_or(
                "spec.breaker.minRequests",
                written.min_requests,
                &bounds::BREAKER_REQUESTS,
                or.min_requests,
            ),
            open_time,
        })
    })
}

pub(super) fn balance(written: &weft::Balance, reader: &mut FieldReader<'_>) -> Option<Balance> {
    let localities = [
        ("None", Locality::None),
        ("PreferSameZone", Locality::PreferSameZone),
        ("PreferSameNode", Locality::PreferSameNode),
    ];
    reader.whole(|reader| {
        let or = Balance::DEFAULT;
        let locality = written.locality.as_deref();
        let locality =
            locality.and_then(|text| reader.one_of("spec.balance.locality", text, &localities));
        let subset = reader.number_or("spec.balance.subset", written.subset, &bounds::SUBSET, 0);
        let warmup = written.warmup.as_deref();
        Some(Balance {
            locality,
            subset: match u32::try_from(subset) {
                Ok(0) => Subset::All,
                Ok(count) => Subset::Count(count),
                Err(_) => Subset::Automatic,
            },
            warmup: reader.duration_or("spec.balance.warmup", warmup, &bounds::WARMUP, or.warmup),
        })
    })
}
