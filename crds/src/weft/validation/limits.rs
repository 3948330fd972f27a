//! Validates the sections about what pods serve: rateLimits, priority, overload.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use policy::traffic::{
    bounds,
    guard::{LimitKey, LimitMode, LimitScope, Overload, OverloadMode, Priority, RateLimit},
};

use super::reader::{FieldReader, shown};
use crate::{label_syntax::is_dns_label, weft};

/// What a mistake in a limit ends with.
const LIMIT_IGNORED: &str = "this limit is ignored";
/// `overload.maxConcurrency`; 0 is no cap.
const CONCURRENCY: RangeInclusive<u32> = 0..=1_000_000;

/// The limits that can be used, each name once.
pub(super) fn rate_limits(
    written: Option<&[weft::RateLimit]>,
    reader: &mut FieldReader<'_>,
) -> Vec<Arc<RateLimit>> {
    let written = written.unwrap_or_default();
    let mut seen = BTreeSet::new();
    let fits = reader.whole(|reader| {
        reader
            .fits("spec.rateLimits", written, bounds::LIMITS)
            .then_some(())
    });
    // Of too many, the first ones hold: none would let everything in.
    let most = if fits.is_some() {
        written.len()
    } else {
        bounds::LIMITS
    };
    let limits = written
        .iter()
        .take(most)
        .enumerate()
        .filter_map(|(i, one)| {
            let field = format!("spec.rateLimits[{i}]");
            let limit = reader.whole_of(LIMIT_IGNORED, |reader| {
                if !seen.insert(one.name.as_str()) {
                    let text = format!(
                        "{:?} is the name of two limits; the first counts, give this one another",
                        shown(&one.name)
                    );
                    reader.wrong(&format!("{field}.name"), &text);
                }
                rate_limit(&field, one, reader)
            });
            limit.map(Arc::new)
        });
    limits.collect()
}

fn rate_limit(
    field: &str,
    written: &weft::RateLimit,
    reader: &mut FieldReader<'_>,
) -> Option<RateLimit> {
    let scopes = [
        ("Service", LimitScope::Service),
        ("Instance", LimitScope::Instance),
    ];
    let modes = [("Enforce", LimitMode::Enforce), ("Audit", LimitMode::Audit)];
    if !is_dns_label(&written.name) {
        let text = format!(
            "is {:?}, but must be a short name in lower case, such as \"per-caller\"",
            shown(&written.name)
        );
        reader.wrong(&format!("{field}.name"), &text);
    }
    let numbers = &bounds::LIMIT_REQUESTS;
    let requests = reader.number(&format!("{field}.requests"), written.requests, numbers);
    let per = written.per.as_deref();
    let second = Duration::from_secs(1);
    let per = reader.duration_or(&format!("{field}.per"), per, &bounds::LIMIT_PER, second);
    let burst = written.burst;
    let burst = burst.map(|burst| reader.number(&format!("{field}.burst"), burst, numbers));
    let key = key(&format!("{field}.key"), written.key.as_ref(), reader);
    let scope = written.scope.as_deref();
    let scope = reader.one_of_or(
        &format!("{field}.scope"),
        scope,
        &scopes,
        LimitScope::Service,
    );
    let mode = written.mode.as_deref();
    let mode = reader.one_of_or(&format!("{field}.mode"), mode, &modes, LimitMode::Enforce);
    let requests = requests?;
    Some(RateLimit {
        name: written.name.as_str().into(),
        requests,
        per,
        burst: match burst {
            Some(burst) => burst?,
            None => RateLimit::default_burst(requests, per),
        },
        key: key?,
        scope,
        mode,
    })
}

fn key(
    field: &str,
    written: Option<&weft::LimitKey>,
    reader: &mut FieldReader<'_>,
) -> Option<LimitKey> {
    const TYPES: [(&str, u8); 4] = [
        ("None", 0),
        ("Caller", 1),
        ("Header", 2),
        ("ClientAddress", 3),
    ];
    const HEADER: u8 = 2;
    let Some(written) = written else {
        return Some(LimitKey::None);
    };
    let kind = reader.one_of(&format!("{field}.type"), &written.r#type, &TYPES)?;
    let at = format!("{field}.name");
    match (kind, written.name.as_deref()) {
        (HEADER, Some(name)) => Some(LimitKey::Header(reader.callers_header(&at, name)?)),
        (HEADER, None) => {
            reader.wrong(&at, "must name the header");
            None
        }
        (_, Some(_)) => {
            reader.wrong(&at, "is set, but only type Header has one; leave it out");
            None
        }
        (0, None) => Some(LimitKey::None),
        (3, None) => Some(LimitKey::ClientAddress),
        (_, None) => Some(LimitKey::Caller),
    }
}

pub(super) fn priority(written: &str, reader: &mut FieldReader<'_>) -> Option<Priority> {
    let known = Priority::ALL.map(|priority| (priority.as_str(), priority));
    reader.whole(|reader| reader.one_of("spec.priority", written, &known))
}

pub(super) fn overload(written: &weft::Overload, reader: &mut FieldReader<'_>) -> Option<Overload> {
    let modes = [
        ("Adaptive", OverloadMode::Adaptive),
        ("Audit", OverloadMode::Audit),
        ("Disabled", OverloadMode::Off),
    ];
    reader.whole(|reader| {
        let or = Overload::DEFAULT;
        let mode = written.mode.as_deref();
        let queue_time = written.queue_time.as_deref();
        let field = "spec.overload.maxConcurrency";
        let cap = reader.number_or(field, written.max_concurrency, &CONCURRENCY, 0);
        Some(Overload {
            mode: reader.one_of_or("spec.overload.mode", mode, &modes, or.mode),
            queue_time: reader.duration_or(
                "spec.overload.queueTime",
                queue_time,
                &bounds::OVERLOAD_QUEUE_TIME,
                or.queue_time,
            ),
            max_concurrency: (cap != 0).then_some(cap),
        })
    })
}
