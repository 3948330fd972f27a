//! Converts the sections by which a caller's proxy makes calls, from timeouts to overrides.
//!
//! Numbers are read within the bounds of `policy`, since a controller of another version may have
//! others; a value out of bounds refuses the resource, and the last good one stays.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use policy::access::Source;
use policy::traffic::{
    bounds,
    call::{
        Budget, Cause, Causes, Downstream, Fallback, FallbackResponse, FallbackTo, Mirror,
        Override, Retry, Sticky, StickyKey, StickyScope, Timeouts, Token,
    },
    set::{GrpcCode, GrpcCodes},
};

use super::super::values::{
    codes, header, methods, methods_message, milliseconds, number, percent, service, some_time,
    statuses, tcp_messages, tcp_targets, time,
};
use super::{Read, ToSection};
use crate::convert::error::{BadResource, each};
use crate::v1::{self, policy_rule::Section};

pub(in super::super) fn timeouts(message: &v1::Timeouts) -> Read<Timeouts> {
    Ok(Timeouts {
        request: some_time(message.request),
        backend_request: some_time(message.backend_request),
        idle: some_time(message.idle),
        share: percent("share", message.share, *bounds::TIMEOUT_SHARE.start())?,
    })
}

impl ToSection for Timeouts {
    fn to_section(&self) -> Section {
        let time = |time: Option<Duration>| time.map_or(0, milliseconds);
        Section::Timeouts(v1::Timeouts {
            request: time(self.request),
            backend_request: time(self.backend_request),
            idle: time(self.idle),
            share: self.share.get().into(),
        })
    }
}

pub(in super::super) fn retry(message: &v1::Retry) -> Read<Retry> {
    // A number that no name stands for is never tried again.
    let named = |number: &u32| {
        let known = GrpcCode::ALL.into_iter();
        known
            .clone()
            .find(|code| u32::from(code.number()) == *number)
    };
    let grpc_codes: Vec<GrpcCode> = message.grpc_codes.iter().filter_map(named).collect();
    Ok(Retry {
        attempts: number("attempts", message.attempts, &bounds::RETRY_ATTEMPTS)?,
        codes: statuses(&message.codes, &bounds::RETRY_CODES)?,
        grpc_codes: GrpcCodes::of(&grpc_codes),
        methods: methods(message.methods.as_ref())?,
        backoff: time("backoff", message.backoff, &bounds::RETRY_BACKOFF)?,
        budget: Budget {
            percent: percent("budget_percent", message.budget_percent, 0)?,
            interval: time(
                "budget_interval",
                message.budget_interval,
                &bounds::BUDGET_INTERVAL,
            )?,
            min_per_second: number(
                "budget_min_per_second",
                message.budget_min_per_second,
                &bounds::BUDGET_MIN_PER_SECOND,
            )?,
        },
    })
}

impl ToSection for Retry {
    fn to_section(&self) -> Section {
        Section::Retry(v1::Retry {
            attempts: self.attempts.into(),
            codes: codes(self.codes),
            grpc_codes: self
                .grpc_codes
                .iter()
                .map(|code| code.number().into())
                .collect(),
            methods: methods_message(&self.methods),
            backoff: milliseconds(self.backoff),
            budget_percent: self.budget.percent.get().into(),
            budget_interval: milliseconds(self.budget.interval),
            budget_min_per_second: self.budget.min_per_second.into(),
        })
    }
}

/// `None` for a way of answering that is not known: there is then no fallback.
pub(in super::super) fn fallback(
    message: &v1::Fallback,
    namespace: &Arc<str>,
) -> Read<Option<Arc<Fallback>>> {
    use v1::fallback::To;
    let to = match &message.to {
        None => return Ok(None),
        Some(To::Service(name)) => FallbackTo::Service(service("service", namespace, name)?),
        Some(To::Response(one)) => {
            FallbackTo::Response(response(one).map_err(|bad| bad.within("response"))?)
        }
    };
    let named = |name: &String| Cause::ALL.into_iter().find(|one| one.as_str() == name);
    let on: Vec<Cause> = message.on.iter().filter_map(named).collect();
    Ok(Some(Arc::new(Fallback {
        to,
        on: Causes::of(&on),
    })))
}

fn response(message: &v1::FallbackResponse) -> Read<FallbackResponse> {
    let status: u16 = number("status", message.status, &bounds::FALLBACK_STATUS)?;
    let headers = message.headers.iter().map(|one| {
        let value = HeaderValue::from_bytes(&one.value);
        let value = value.map_err(|bad| BadResource::new("headers.value", bad))?;
        Ok((header("headers.name", &one.name)?, value))
    });
    let headers = headers.collect::<Read<Vec<_>>>()?;
    if message.body.len() > bounds::FALLBACK_BYTES {
        return Err(BadResource::new("body", "is too long"));
    }
    Ok(FallbackResponse {
        status: StatusCode::from_u16(status).map_err(|bad| BadResource::new("status", bad))?,
        headers,
        body: message.body.as_slice().into(),
    })
}

impl ToSection for Arc<Fallback> {
    fn to_section(&self) -> Section {
        use v1::fallback::To;
        let to = match &self.to {
            FallbackTo::Service(service) => To::Service(service.name.to_string()),
            FallbackTo::Response(one) => To::Response(v1::FallbackResponse {
                status: one.status.as_u16().into(),
                headers: one
                    .headers
                    .iter()
                    .map(|(name, value)| v1::Header {
                        name: name.as_str().to_owned(),
                        value: value.as_bytes().to_vec(),
                    })
                    .collect(),
                body: one.body.to_vec(),
            }),
        };
        Section::Fallback(v1::Fallback {
            to: Some(to),
            on: self
                .on
                .iter()
                .map(|cause| cause.as_str().to_owned())
                .collect(),
        })
    }
}

pub(in super::super) fn mirrors(
    message: &v1::Mirrors,
    namespace: &Arc<str>,
) -> Read<Arc<[Mirror]>> {
    number(
        "mirrors",
        message.mirrors.len() as i64,
        &(0..=bounds::MIRRORS as i64),
    )?;
    let mirrors = message.mirrors.iter().enumerate().map(|(i, one)| {
        let read = || {
            Ok(Mirror {
                service: service("service", namespace, &one.service)?,
                percent: percent("percent", one.percent, 0)?,
                methods: methods(one.methods.as_ref())?,
                downstream: if one.any_downstream {
                    Downstream::Any
                } else {
                    Downstream::ReadOnly
                },
                allow_tcp: tcp_targets(&one.allow_tcp)?,
            })
        };
        read().map_err(|bad: BadResource| bad.within(format_args!("mirrors[{i}]")))
    });
    mirrors.collect()
}

impl ToSection for Arc<[Mirror]> {
    fn to_section(&self) -> Section {
        let mirrors = self.iter().map(|one| v1::Mirror {
            service: one.service.name.to_string(),
            percent: one.percent.get().into(),
            methods: methods_message(&one.methods),
            any_downstream: one.downstream == Downstream::Any,
            allow_tcp: tcp_messages(&one.allow_tcp),
        });
        Section::Mirrors(v1::Mirrors {
            mirrors: mirrors.collect(),
        })
    }
}

/// `None` for a key that is not known: requests then go where they went without.
pub(in super::super) fn sticky(message: &v1::Sticky) -> Read<Option<Sticky>> {
    use v1::sticky::Key;
    let key = match &message.key {
        None | Some(Key::Caller(false)) => return Ok(None),
        Some(Key::Caller(true)) => StickyKey::Caller,
        Some(Key::Header(name)) => StickyKey::Header(header("header", name)?),
        Some(Key::Cookie(name)) if name.is_empty() => {
            return Err(BadResource::new("cookie", "is missing"));
        }
        Some(Key::Cookie(name)) => StickyKey::Cookie(name.as_str().into()),
    };
    Ok(Some(Sticky {
        key,
        scope: if message.backend {
            StickyScope::Backend
        } else {
            StickyScope::Endpoint
        },
        ttl: some_time(message.ttl),
    }))
}

impl ToSection for Sticky {
    fn to_section(&self) -> Section {
        use v1::sticky::Key;
        Section::Sticky(v1::Sticky {
            key: Some(match &self.key {
                StickyKey::Header(name) => Key::Header(name.as_str().to_owned()),
                StickyKey::Cookie(name) => Key::Cookie(name.to_string()),
                StickyKey::Caller => Key::Caller(true),
            }),
            backend: self.scope == StickyScope::Backend,
            ttl: self.ttl.map_or(0, milliseconds),
        })
    }
}

pub(in super::super) fn overrides(
    message: &v1::Overrides,
    namespace: &Arc<str>,
) -> Read<Arc<[Override]>> {
    let most = bounds::OVERRIDES as i64;
    number("overrides", message.overrides.len() as i64, &(0..=most))?;
    let overrides = message.overrides.iter().enumerate().map(|(i, one)| {
        let read = || {
            let to = one.to.iter().map(|name| service("to", namespace, name));
            Ok(Override {
                to: to.collect::<Read<_>>()?,
                sources: known("sources", &one.sources)?,
                forwarders: known("forwarders", &one.forwarders)?,
                tokens: one.tokens.iter().map(token).collect::<Read<_>>()?,
            })
        };
        read().map_err(|bad: BadResource| bad.within(format_args!("overrides[{i}]")))
    });
    overrides.collect()
}

/// Callers of an unknown kind match no caller.
fn known(field: &str, messages: &[v1::Source]) -> Read<Vec<Source>> {
    let known = messages.iter().filter(|one| {
        let read = Source::try_from(*one);
        read.as_ref().err().is_none_or(|bad| !bad.unknown)
    });
    let known: Vec<v1::Source> = known.cloned().collect();
    each(field, &known)
}

fn token(message: &v1::Token) -> Read<Token> {
    let sha256 = message.sha256.as_slice().try_into();
    Ok(Token {
        sha256: sha256.map_err(|_| BadResource::new("tokens.sha256", "is no SHA-256"))?,
        expires: message.expires,
    })
}

impl ToSection for Arc<[Override]> {
    fn to_section(&self) -> Section {
        let sources = |sources: &[Source]| -> Vec<v1::Source> {
            sources.iter().map(v1::Source::from).collect()
        };
        let overrides = self.iter().map(|one| v1::Override {
            to: one
                .to
                .iter()
                .map(|service| service.name.to_string())
                .collect(),
            sources: sources(&one.sources),
            forwarders: sources(&one.forwarders),
            tokens: one
                .tokens
                .iter()
                .map(|token| v1::Token {
                    sha256: token.sha256.to_vec(),
                    expires: token.expires,
                })
                .collect(),
        });
        Section::Overrides(v1::Overrides {
            overrides: overrides.collect(),
        })
    }
}
