//! The bounds of each number in a TrafficPolicy, once for schema, webhook and proxies.

use std::ops::RangeInclusive;
use std::time::Duration;

/// `retry.attempts`, after the first.
pub const RETRY_ATTEMPTS: RangeInclusive<u8> = 0..=5;
/// `retry.codes`.
pub const RETRY_CODES: RangeInclusive<u16> = 400..=599;
/// How many `retry.codes`, and how many `retry.methods`, a policy may list.
pub const RETRY_LISTED: usize = 16;
pub const RETRY_BACKOFF: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(10);
/// `retry.budget.interval`, which bounds what can be saved.
pub const BUDGET_INTERVAL: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(60);
pub const BUDGET_MIN_PER_SECOND: RangeInclusive<u16> = 0..=1000;

/// `timeouts.share`.
pub const TIMEOUT_SHARE: RangeInclusive<u8> = 1..=100;

/// `ejection.consecutiveFailures`; 0 is off.
pub const EJECTION_FAILURES: RangeInclusive<u8> = 0..=100;
pub const EJECTION_CODES: RangeInclusive<u16> = 500..=599;
pub const EJECTION_BASE_TIME: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(300);
/// `ejection.maxTime`, which is no less than `baseTime`.
pub const EJECTION_MAX_TIME: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);

pub const BREAKER_PERCENT: RangeInclusive<u8> = 1..=100;
pub const BREAKER_INTERVAL: RangeInclusive<Duration> =
    Duration::from_secs(5)..=Duration::from_secs(60);
pub const BREAKER_REQUESTS: RangeInclusive<u32> = 1..=100_000;
pub const BREAKER_OPEN_TIME: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(300);

pub const FALLBACK_STATUS: RangeInclusive<u16> = 200..=599;
/// Body and headers of `fallback.response` together, in bytes: it lies in every proxy
/// that calls the Service.
pub const FALLBACK_BYTES: usize = 4096;

/// `rateLimits` of one policy.
pub const LIMITS: usize = 16;
/// `requests` and `burst` of a limit.
pub const LIMIT_REQUESTS: RangeInclusive<u32> = 1..=1_000_000;
pub const LIMIT_PER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

pub const OVERLOAD_QUEUE_TIME: RangeInclusive<Duration> =
    Duration::from_millis(5)..=Duration::from_secs(10);

pub const MIRRORS: usize = 4;
/// `mirror[].allowTcp`.
pub const MIRROR_TCP: usize = 16;
pub const WARMUP: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(300);
/// `balance.subset`; [`crate::traffic::endpoint::Subset`] defines what -1 and 0 mean.
pub const SUBSET: RangeInclusive<i32> = -1..=10_000;

/// A FaultExperiment's `share`, in millionths: 0.01 % to all.
pub const FAULT_SHARE: RangeInclusive<u32> = 100..=1_000_000;
pub const FAULT_DELAY: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(30);
/// `fault.abort.httpStatus` and `grpcStatus`.
pub const FAULT_HTTP_STATUS: RangeInclusive<u16> = 400..=599;
pub const FAULT_GRPC_STATUS: RangeInclusive<u8> = 1..=16;

pub const OVERRIDES: usize = 8;
/// `to`, `forwarders` and `tokens` of one override; `sources` has [`SOURCES`].
pub const OVERRIDE_LISTED: usize = 64;
pub const ROUTES: usize = 16;
pub const SOURCES: usize = 64;

/// TrafficPolicies of one namespace that count, the oldest first.
pub const POLICIES_PER_NAMESPACE: usize = 1000;
/// TrafficPolicies that decide something at one Service, in order of precedence.
pub const POLICIES_PER_SERVICE: usize = 64;
