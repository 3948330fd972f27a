//! What is looked at or gone by, under which load, and what it may cost.

use crate::control::Extra;

/// What calls the Service.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// 32 connections of HTTP/1.1, as fast as they go.
    Full,
    /// The same, to a server that has no proxy.
    Plain,
    /// So many requests in a second.
    Rate(u32),
}

/// Whose CPU time counts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    Pair,
    Client,
}

/// How a difference is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Unit {
    /// Microseconds of CPU time for each request.
    Micros,
    /// Percent of what a request costs without.
    Percent,
}

impl Unit {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Micros => "µs",
            Self::Percent => "%",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) what: &'static str,
    pub(super) load: Load,
    pub(super) extra: Extra,
    pub(super) of: Of,
    pub(super) unit: Unit,
    pub(super) bound: f64,
}

const fn traces(share: u32) -> Extra {
    Extra::Traces { share, lost: false }
}

const fn tap(prefix: &'static str, most: u32) -> Extra {
    Extra::Tap { prefix, most }
}

/// The noise comes first.
pub(super) const ROWS: [Row; 9] = [
    Row {
        what: "nothing, as before: the noise; both proxies",
        load: Load::Full,
        extra: Extra::Nothing,
        of: Of::Pair,
        unit: Unit::Micros,
        bound: 0.6,
    },
    Row {
        what: "traces, none of them recorded; both proxies",
        load: Load::Full,
        extra: traces(0),
        of: Of::Pair,
        unit: Unit::Micros,
        bound: 0.6,
    },
    Row {
        what: "traces, none of them recorded, to a server without a proxy; the client's proxy",
        load: Load::Plain,
        extra: traces(0),
        of: Of::Client,
        unit: Unit::Micros,
        bound: 0.3,
    },
    Row {
        what: "traces, 1 % recorded; both proxies",
        load: Load::Full,
        extra: traces(10_000),
        of: Of::Pair,
        unit: Unit::Micros,
        bound: 1.0,
    },
    Row {
        what: "traces, all recorded, 4 000 requests/s; both proxies",
        load: Load::Rate(4000),
        extra: traces(1_000_000),
        of: Of::Pair,
        unit: Unit::Micros,
        bound: 16.0,
    },
    Row {
        what: "a tap that no request fits; the client's proxy",
        load: Load::Full,
        extra: tap("/nothing", 1000),
        of: Of::Client,
        unit: Unit::Micros,
        bound: 0.3,
    },
    Row {
        what: "a tap that shows every request, 1 000 requests/s; the client's proxy",
        load: Load::Rate(1000),
        extra: tap("/bench", 1000),
        of: Of::Client,
        unit: Unit::Micros,
        bound: 3.0,
    },
    Row {
        what: "a tap that shows 100/s of 10 000 requests/s; the client's proxy",
        load: Load::Rate(10_000),
        extra: tap("/bench", 100),
        of: Of::Client,
        unit: Unit::Percent,
        bound: 5.0,
    },
    Row {
        what: "a TrafficPolicy that says something in every section and changes nothing; both proxies",
        load: Load::Full,
        extra: Extra::Policies,
        of: Of::Pair,
        unit: Unit::Micros,
        bound: 5.0,
    },
];
