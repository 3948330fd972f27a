//! Converts numbers, times and names that many sections have.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::{Method, header::HeaderName};
use policy::{
    name::ServiceId,
    traffic::{
        call::TcpTarget,
        set::{Methods, Percent, Statuses},
    },
};

use crate::convert::error::BadResource;
use crate::convert::port::port;
use crate::v1;

pub(super) fn number<N>(
    field: &str,
    raw: impl Into<i64>,
    range: &RangeInclusive<N>,
) -> Result<N, BadResource>
where
    N: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    let raw = raw.into();
    let read = N::try_from(raw).ok().filter(|read| range.contains(read));
    read.ok_or_else(|| {
        let (least, most) = (range.start(), range.end());
        BadResource::new(field, format_args!("{raw} is not from {least} to {most}"))
    })
}

pub(super) fn percent(field: &str, raw: u32, least: u8) -> Result<Percent, BadResource> {
    Ok(Percent::at_most(number(field, raw, &(least..=100))?))
}

pub(super) fn time(
    field: &str,
    milliseconds: u64,
    range: &RangeInclusive<Duration>,
) -> Result<Duration, BadResource> {
    let read = Duration::from_millis(milliseconds);
    if !range.contains(&read) {
        let reason = format_args!("{milliseconds} ms is not in {range:?}");
        return Err(BadResource::new(field, reason));
    }
    Ok(read)
}

/// 0 stands for none.
pub(super) fn some_time(milliseconds: u64) -> Option<Duration> {
    (milliseconds != 0).then(|| Duration::from_millis(milliseconds))
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn statuses(
    codes: &[u32],
    range: &RangeInclusive<u16>,
) -> Result<Statuses, BadResource> {
    let codes: Result<Vec<u16>, _> = codes
        .iter()
        .map(|raw| number("codes", *raw, range))
        .collect();
    Ok(Statuses::of(&codes?))
}

pub(super) fn codes(statuses: Statuses) -> Vec<u32> {
    statuses.iter().map(u32::from).collect()
}

/// Absent: none, which is what a loss may cost.
pub(super) fn methods(message: Option<&v1::Methods>) -> Result<Methods, BadResource> {
    let Some(message) = message else {
        return Ok(Methods::Only(Vec::new().into()));
    };
    if message.any {
        return Ok(Methods::Any);
    }
    let read = message.methods.iter().map(|text| {
        Method::from_bytes(text.as_bytes())
            .map_err(|_| BadResource::new("methods", format_args!("{text:?} is no method")))
    });
    Ok(Methods::Only(read.collect::<Result<Vec<_>, _>>()?.into()))
}

pub(super) fn methods_message(methods: &Methods) -> Option<v1::Methods> {
    Some(match methods {
        Methods::Any => v1::Methods {
            any: true,
            methods: Vec::new(),
        },
        Methods::Only(methods) => v1::Methods {
            any: false,
            methods: methods.iter().map(|one| one.as_str().to_owned()).collect(),
        },
    })
}

pub(super) fn header(field: &str, name: &str) -> Result<HeaderName, BadResource> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| BadResource::new(field, format_args!("{name:?} is no header")))
}

/// A Service of a policy's namespace.
pub(super) fn service(
    field: &str,
    namespace: &std::sync::Arc<str>,
    name: &str,
) -> Result<ServiceId, BadResource> {
    if name.is_empty() {
        return Err(BadResource::new(field, "is missing"));
    }
    Ok(ServiceId::new(namespace.clone(), name))
}

pub(super) fn tcp_targets(messages: &[v1::TcpTarget]) -> Result<Vec<TcpTarget>, BadResource> {
    let read = messages.iter().map(|message| {
        Ok(TcpTarget {
            service: ServiceId::new(message.namespace.as_str(), message.name.as_str()),
            port: port("allow_tcp.port", message.port)?,
        })
    });
    read.collect()
}

pub(super) fn tcp_messages(targets: &[TcpTarget]) -> Vec<v1::TcpTarget> {
    let targets = targets.iter();
    targets
        .map(|target| v1::TcpTarget {
            namespace: target.service.namespace.to_string(),
            name: target.service.name.to_string(),
            port: target.port.into(),
        })
        .collect()
}
